"""Counts the turns of each conversation, and writes into the file that its argument names when each
begins and ends, with its conversation and the process.

Answers `{"turn": 3, "pid": 4711}`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import anyio

from worker import Agent, Context

agent = Agent("remember", concurrency=100)
journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
turns: Counter[str] = Counter()


@agent.invoke
async def take(seconds: float, context: Context) -> dict[str, Any]:
    conversation = context.conversation_id or ""
    os.write(journal, f"{conversation} {os.getpid()} begins\n".encode())
    turns[conversation] += 1
    turn = turns[conversation]
    await anyio.sleep(seconds)
    os.write(journal, f"{conversation} {os.getpid()} ends\n".encode())
    return {"turn": turn, "pid": os.getpid()}


agent.run()
