"""Answers with its input, unless that asks it to crash."""

from __future__ import annotations

import os
import signal
from typing import Any

from worker import Agent

agent = Agent("fragile")


@agent.invoke
async def answer(value: Any) -> Any:
    if value == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return value


if __name__ == "__main__":
    agent.run()
