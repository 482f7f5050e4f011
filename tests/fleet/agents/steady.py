"""Takes a while: an invoke says so many words, a word each `PACE` seconds, as a stream or together.

{"words": 100}
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from worker import Agent

PACE = 0.02

agent = Agent("steady", concurrency=64)


@agent.invoke
async def speak(words: int) -> AsyncIterator[str]:
    for number in range(words):
        yield f"{number} "
        await anyio.sleep(PACE)


agent.run()
