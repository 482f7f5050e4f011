"""Serves an agent that was written with a framework: its stream of events becomes the chunks.

    gateway --agent researcher="agent-worker worker.examples.framework:agent"

`Researcher` stands for the framework's own object, which usually has an async method that yields
events of several kinds. The handler picks the words for the user, and logs the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel

from worker import Agent, Context


@dataclass
class Event:
    kind: str
    text: str


class Researcher:
    """The framework's agent: looks something up, then answers."""

    async def run_stream(self, question: str, *, thread: str) -> AsyncIterator[Event]:
        yield Event("tool_call", f"search({question!r}) in thread {thread}")
        await anyio.lowlevel.checkpoint()
        for word in ("I ", "found ", "nothing."):
            yield Event("text", word)


researcher = Researcher()
agent = Agent("researcher", description="Looks things up.", metadata={"framework": "none"})


@agent.chat
async def answer(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str]:
    thread = context.conversation_id or context.request_id
    async for event in researcher.run_stream(str(messages[-1]["content"]), thread=thread):
        if event.kind == "text":
            yield event.text
        else:
            print(event.kind, event.text)  # stdout is log, like stderr


if __name__ == "__main__":
    agent.run()
