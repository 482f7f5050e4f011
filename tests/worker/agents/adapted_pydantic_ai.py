"""A pydantic-ai agent behind `worker.adapters.pydantic_ai`, with a scripted model that streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pydantic
from pydantic_ai import Agent as Guide
from pydantic_ai import DeferredToolRequests
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel

from worker import Agent, Context, Event
from worker.adapters import pydantic_ai


class Town(pydantic.BaseModel):
    name: str


async def script(messages: list[Any], info: AgentInfo) -> AsyncIterator[Any]:
    part = messages[-1].parts[-1]
    if part.part_kind == "tool-return" and part.tool_name != "find":
        yield f"It is {part.content}."
    elif part.part_kind == "tool-return":
        yield "Let me "
        yield "see. "
        yield {2: DeltaToolCall("delete", '{"number":1}', tool_call_id="c3")}
        if "weather" in [tool.name for tool in info.function_tools]:
            yield {3: DeltaToolCall("weather", '{"city":"Rome"}', tool_call_id="c2")}
    elif part.content == "Which town?":
        yield {0: DeltaToolCall(info.output_tools[0].name, '{"name":"Rome"}', tool_call_id="c9")}
    elif part.content == "Weather?":
        yield {0: DeltaToolCall("weather", '{"city":"Rome"}', tool_call_id="c2")}
    elif part.content == "slowly":
        yield "Roses "
        try:
            print("the model thinks", flush=True)
            await asyncio.sleep(3600)
        finally:
            print("the model was given up", flush=True)
    elif isinstance(part.content, list):
        yield " ".join(getattr(each, "media_type", each) for each in part.content)
    else:
        yield {0: DeltaThinkingPart(content="Where? ")}
        yield {1: DeltaToolCall("find", '{"us', tool_call_id="c1")}
        yield {1: DeltaToolCall(json_args='er":"Ada"}')}


guide = Guide(FunctionModel(stream_function=script), output_type=[str, Town, DeferredToolRequests])
pending: dict[str | None, list[Any]] = {}


@guide.tool_plain
def find(user: str) -> str:
    return f"{user} is in Rome"


@guide.tool_plain(requires_approval=True)
def delete(number: int) -> str:
    return f"gone, all {number}"


agent = Agent("pydantic-ai", tools=True, asks=True, modes=["text", "image"])


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    decided = pydantic_ai.approvals(context)
    history = pending.pop(context.conversation_id) if decided else pydantic_ai.history(messages)
    run = guide.run_stream_events(
        message_history=history,
        deferred_tool_results=decided,
        toolsets=[pydantic_ai.toolset(context)],
    )
    async with run as stream:
        async for each in pydantic_ai.events(stream):
            yield each
    if stream.result and isinstance(stream.result.output, DeferredToolRequests):
        pending[context.conversation_id] = stream.result.all_messages()
