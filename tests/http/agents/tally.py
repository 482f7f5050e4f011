"""Appends what it is asked to the file that its argument names, and takes a while to repeat it.

Whoever counts the file's lines knows how often each request was run, also by a worker that was
ended before it could answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio

from worker import Agent

WORK_SECONDS = 0.02
"""So that requests are under way whenever a signal comes."""

agent = Agent("tally", concurrency=64)
tally = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@agent.invoke
async def repeat(value: str) -> str:
    os.write(tally, f"{value}\n".encode())
    await anyio.sleep(WORK_SECONDS)
    return value


@agent.chat
async def repeat_in_words(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    value = messages[-1]["content"]
    os.write(tally, f"{value}\n".encode())
    for word in value.split(" "):
        yield word
        await anyio.sleep(WORK_SECONDS)


agent.run()
