"""Streams `chunks` words of 20 bytes as fast as it can; in a chat, as many as the user says.

With `every`, it streams one word every `every` seconds, each the time at which it was sent. With
`chunks` 0, it sends one word and is then silent for ever.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

from worker import Agent

WORD = "twenty bytes of text"

agent = Agent("words", concurrency=2000)


@agent.invoke
async def speak(value: dict[str, Any]) -> AsyncIterator[str]:
    every = value.get("every")
    if every:
        for _ in range(value["chunks"]):
            yield str(time.monotonic_ns())
            await anyio.sleep(every)
        return
    for _ in range(value["chunks"]):
        yield WORD
    if not value["chunks"]:
        yield WORD
        await anyio.sleep_forever()


@agent.chat
async def talk(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    for _ in range(int(messages[-1]["content"])):
        yield WORD


if __name__ == "__main__":
    agent.run()
