"""Speaks word by word, as language models do.

    gateway --agent talker="agent-worker worker.examples.streaming_chat:agent"

Whoever asks with `"stream": true` hears each word when it is said; anyone else gets them all at
once. The handlers are the same either way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from worker import Agent, Context, InvalidInput

PACE = 0.05  # seconds between words

agent = Agent("talker", description="Speaks word by word.", concurrency=100)


@agent.chat
async def talk(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str]:
    said = messages[-1].get("content")
    if not isinstance(said, str):
        raise InvalidInput("the last message is not plain text")
    yield f"Hello, {context.user_id or 'stranger'}. "
    yield "You said: "
    for word in said.split():
        await anyio.sleep(PACE)
        yield f"{word} "


@agent.invoke
def spell(word: str) -> Iterator[str]:
    """A plain generator: each step runs in a thread, and may block.

    What is no string is refused before this is called, because the parameter says `str`.
    """
    yield from word


if __name__ == "__main__":
    agent.run()
