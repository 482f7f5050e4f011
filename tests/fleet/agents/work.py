"""Writes the nonce of each request into the file that its argument names, and works on it for as
long as it is told.

Invoke: `{"nonce": "1", "seconds": 0.1}`, answered with the nonce. Chat: the same as the content of
the last message, as a JSON text, and `words`: so many chunks "w0 ", "w1 ", ... in that time.
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
tally = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@agent.invoke
async def work(value: dict[str, Any]) -> str:
    os.write(tally, f"{value['nonce']}\n".encode())
    await anyio.sleep(value["seconds"])
    return str(value["nonce"])


@agent.chat
async def talk(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    value = json.loads(messages[-1]["content"])
    os.write(tally, f"{value['nonce']}\n".encode())
    for number in range(value["words"]):
        yield f"w{number} "
        await anyio.sleep(value["seconds"] / value["words"])


agent.run()
