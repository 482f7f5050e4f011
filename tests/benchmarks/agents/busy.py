"""Takes 50 ms for each answer and works on 8 at a time: at most 160 answers a second."""

from __future__ import annotations

from typing import Any

import anyio

from worker import Agent

SECONDS = 0.05
AT_A_TIME = 8

agent = Agent("busy", concurrency=AT_A_TIME)


@agent.invoke
async def answer(value: Any) -> Any:
    await anyio.sleep(SECONDS)
    return value


if __name__ == "__main__":
    agent.run()
