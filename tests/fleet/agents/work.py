"""Writes the nonce of each request into the file that its argument names, and works on it for as
long as it is told.

Invoke: `{"nonce": "1", "seconds": 0.1}`, answered with the nonce. Chat: the same as the content of
the last message, as a JSON text, and `words`: so many chunks "w0 ", "w1 ", ... in that time. With
`held`, the answer, or the last chunk, waits until there is another file: its name and `.released`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio

from worker import Agent

agent = Agent("work", concurrency=100)
RELEASED = anyio.Path(f"{sys.argv[1]}.released")
tally = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def released(value: dict[str, Any]) -> None:
    while value.get("held") and not await RELEASED.exists():  # noqa: ASYNC110 - a test makes it
        await anyio.sleep(0.05)


@agent.invoke
async def work(value: dict[str, Any]) -> str:
    os.write(tally, f"{value['nonce']}\n".encode())
    await anyio.sleep(value["seconds"])
    await released(value)
    return str(value["nonce"])


@agent.chat
async def talk(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    value = json.loads(messages[-1]["content"])
    os.write(tally, f"{value['nonce']}\n".encode())
    for number in range(value["words"]):
        if number == value["words"] - 1:
            await released(value)
        yield f"w{number} "
        await anyio.sleep(value["seconds"] / value["words"])


agent.run()
