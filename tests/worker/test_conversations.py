"""What an agent remembers of a conversation, through a real gateway with its defaults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import RunningGateway, running_gateway

AGENT = """
import os
from worker import Agent, Context

agent = Agent("memory")
said: dict[str | None, list[str]] = {}

@agent.invoke
def remember(word: str, *, context: Context) -> list[str]:
    if word == "die":
        os._exit(3)
    said.setdefault(context.conversation_id, []).append(word)
    return said[context.conversation_id]
"""


async def say(gateway: RunningGateway, word: str, **context: Any) -> tuple[Any, str | None]:
    """What the agent answers, and what the conversation found."""
    response = await gateway.post("/agent/memory/invoke", input=word, context=context)
    answer = response.json()
    return answer.get("output", response.status_code), response.headers.get("x-agent-session")


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    path = tmp_path / "memory.py"
    path.write_text(AGENT)
    tmp_path.chmod(0o755)
    return [sys.executable, "-m", "worker", f"{path}:agent"]


async def test_a_conversation_whose_worker_has_died_is_lost_and_told_so_once(
    command: list[str],
) -> None:
    async with running_gateway({"memory": command}) as gateway:
        assert await say(gateway, "a", conversation_id="c") == (["a"], "new")
        assert await say(gateway, "b", conversation_id="c") == (["a", "b"], "kept")
        assert await say(gateway, "x") == (["x"], None)
        assert await say(gateway, "die", conversation_id="c") == (501, None)
        assert await say(gateway, "d", conversation_id="c") == (["d"], "lost")
        assert await say(gateway, "e", conversation_id="c") == (["d", "e"], "kept")
