"""An agent that remembers what it was told, as frameworks do: in its memory, by conversation; and
in its folder, if the gateway gives it one. It answers with all that it knows, also of itself."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio

from worker import Agent, Context

agent = Agent("remembers", concurrency=16)
told: defaultdict[str | None, list[Any]] = defaultdict(list)


@agent.invoke
async def remember(value: Any, context: Context) -> dict[str, Any]:
    before = [*told[context.conversation_id]]
    told[context.conversation_id].append(value)
    home, lying = Path.home(), []
    if "conversations" in home.parts:
        lying = sorted(path.name for path in home.iterdir())
        (home / str(value)).touch()
    return {
        "before": before,
        "conversation": context.conversation_id,
        "user": context.user_id,
        "home": str(home),
        "lying": lying,
        "pid": os.getpid(),
        "environ": dict(os.environ),
        "context": repr(context),
    }


@agent.chat
async def talk(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str]:
    text = str(messages[-1]["content"])
    yield f"{context.conversation_id} {context.user_id} "
    if text == "slowly":
        for _ in range(3):
            await anyio.sleep(0.2)
            yield "word "
    yield text


agent.run()
