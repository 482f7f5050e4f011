"""Answers at once with its input."""

from __future__ import annotations

from typing import Any

from worker import Agent

agent = Agent("echo")


@agent.invoke
async def echo(value: Any) -> Any:
    return value


@agent.chat
async def repeat(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": "assistant", "content": messages[-1]["content"]}


if __name__ == "__main__":
    agent.run()
