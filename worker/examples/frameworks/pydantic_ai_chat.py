"""pydantic-ai: an agent with a tool of its own and those of its client, and one that answers with a
model.

    gateway --agent guide="agent-worker worker/examples/frameworks/pydantic_ai_chat.py:agent"

The caller sends the whole conversation each time, so that the agent keeps nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pydantic
from pydantic_ai import Agent as Model
from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.models.test import TestModel

from worker import Agent, Context, Event
from worker.adapters import pydantic_ai


class Trip(pydantic.BaseModel):
    city: str
    days: int = pydantic.Field(default=1, ge=1, le=30)


class Plan(pydantic.BaseModel):
    city: str
    highlights: list[str]


# Stands in for a model: "openai:gpt-5" goes there.
guide = Model(
    TestModel(),
    deps_type=str,
    instructions="You know every town.",
    output_type=[str, DeferredToolRequests],  # calls of the client's tools end the run
)
planner = Model(TestModel(custom_output_args={"city": "Rome", "highlights": ["Pantheon"]}),
                output_type=Plan)  # fmt: skip


@guide.tool
def whereabouts(run: RunContext[str]) -> str:
    """Where the user is."""
    return f"{run.deps} is in Rome."


agent = Agent("guide", description="Knows its way around.", tools=True, modes=["text", "image"])


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    run = guide.run_stream_events(
        message_history=pydantic_ai.history(messages),
        deps=context.user_id or "Somebody",
        toolsets=[pydantic_ai.toolset(context)],
    )
    async with run as stream:
        async for each in pydantic_ai.events(stream):
            yield each


@agent.invoke
async def plan(trip: Trip) -> Plan:
    result = await planner.run(f"{trip.days} days in {trip.city}")
    return result.output


if __name__ == "__main__":
    agent.run()
