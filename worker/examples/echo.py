"""Answers with what it was asked.

    gateway --agent echo="agent-worker worker.examples.echo:agent"

`plain.py`, `echo.sh` and `echo.mjs` are the same agent without the SDK.
"""

from __future__ import annotations

from typing import Any

from worker import Agent, InvalidInput

agent = Agent("echo", description="Answers with what it was asked.")


@agent.invoke
async def echo(value: Any) -> Any:
    return value


@agent.chat
async def repeat(messages: list[dict[str, Any]]) -> dict[str, Any]:
    for message in reversed(messages):
        if message["role"] == "user":
            return {"role": "assistant", "content": message.get("content")}
    raise InvalidInput("there is no message of the user's to repeat")


if __name__ == "__main__":
    agent.run()
