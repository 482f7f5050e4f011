"""Works until it is done, or until nobody waits for it any more.

    gateway --agent patient="agent-worker worker.examples.cancellation:agent"

Ask it with `curl --max-time 1` and look at the log: a client that goes away, or a clock of the
gateway that runs out, cancels the handler.
"""

from __future__ import annotations

import time
from typing import Any

import anyio

from worker import Agent, Context

STEP = 0.1  # seconds of work between two looks at the flag

# What is printed is log: the wire is out of its reach.
agent = Agent("patient", description="Takes its time, and stops when it is told to.")


@agent.chat
async def think(messages: list[dict[str, Any]]) -> str:
    """A coroutine is cancelled where it awaits; what must be tidied up stands in `finally`."""
    print("thinking")
    try:
        await anyio.sleep(3600)
    finally:
        print("stopped thinking")
    return f"After an hour's thought about {len(messages)} messages: yes."


@agent.invoke
def work(seconds: float, context: Context) -> str:
    """A plain function runs in a thread, which nothing can stop: it looks at the flag itself."""
    print("working")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if context.cancelled:
            print("stopped working")
            return "nobody reads this"
        time.sleep(STEP)
    return f"worked for {seconds:g} seconds"


if __name__ == "__main__":
    agent.run()
