"""pydantic-ai: an agent with a tool that streams its words, and one that answers with a model.

    gateway --agent guide="agent-worker worker/examples/frameworks/pydantic_ai_chat.py:agent"

The caller sends the whole conversation each time, so that the agent keeps nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pydantic
from pydantic_ai import Agent as Model
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.test import TestModel

from worker import Agent, Context


class Trip(pydantic.BaseModel):
    city: str
    days: int = pydantic.Field(default=1, ge=1, le=30)


class Plan(pydantic.BaseModel):
    city: str
    highlights: list[str]


# Stands in for a model: "openai:gpt-5" goes there.
guide = Model(TestModel(), deps_type=str, instructions="You know every town.")
planner = Model(TestModel(custom_output_args={"city": "Rome", "highlights": ["Pantheon"]}),
                output_type=Plan)  # fmt: skip


@guide.tool
def whereabouts(run: RunContext[str]) -> str:
    """Where the user is."""
    return f"{run.deps} is in Rome."


agent = Agent("guide", description="Knows its way around.")


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str]:
    *before, last = messages
    history: list[ModelMessage] = [
        ModelResponse([TextPart(str(each["content"]))])
        if each["role"] == "assistant"
        else ModelRequest([UserPromptPart(str(each["content"]))])
        for each in before
    ]
    async with guide.run_stream(
        last["content"], message_history=history, deps=context.user_id or "Somebody"
    ) as result:
        async for words in result.stream_text(delta=True):
            yield words


@agent.invoke
async def plan(trip: Trip) -> Plan:
    result = await planner.run(f"{trip.days} days in {trip.city}")
    return result.output


if __name__ == "__main__":
    agent.run()
