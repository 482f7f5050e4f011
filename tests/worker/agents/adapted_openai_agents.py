"""An openai-agents agent behind `worker.adapters.openai_agents`, with a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent as Clerk
from agents import Model, ModelResponse, Runner, function_tool, set_tracing_disabled
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseTextDeltaEvent,
    ResponseUsage,
)

from worker import Agent, Context, Event
from worker.adapters import openai_agents

USAGE = {
    "input_tokens": 5,
    "output_tokens": 2,
    "total_tokens": 7,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 1},
}


def call(name: str, arguments: str, id: str) -> ResponseFunctionToolCall:  # noqa: A002
    return ResponseFunctionToolCall(
        arguments=arguments, call_id=id, name=name, type="function_call", id=f"f{id}"
    )


def message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(
        id="1", content=[content], role="assistant", status="completed", type="message"
    )


def delta(text: str) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta", delta=text, sequence_number=1, logprobs=[],
        item_id="1", output_index=0, content_index=0,
    )  # fmt: skip


class Scripted(Model):
    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    async def stream_response(self, _: str | None, items: Any, *__: Any, **___: Any) -> Any:
        last = items[-1]
        text, calls = "", []
        place = {"item_id": "1", "output_index": 0}
        if last.get("content") == "slowly":
            yield delta("Roses ")
            try:
                print("the model thinks", flush=True)
                await asyncio.sleep(3600)
            finally:
                print("the model was given up", flush=True)
        if last.get("type") != "function_call_output":
            if last["content"] == "Weather?":
                calls = [call("weather", '{"city":"Rome"}', "c2")]
            elif last["content"] == "Delete it.":
                calls = [call("delete", '{"n":1}', "c3")]
            elif isinstance(last["content"], list):
                text = " ".join(part["type"] for part in last["content"])
            else:
                yield ResponseReasoningSummaryTextDeltaEvent(
                    type="response.reasoning_summary_text.delta",
                    delta="Where? ",
                    sequence_number=0,
                    summary_index=0,
                    **place,
                )
                calls = [call("find", '{"user":"Ada"}', "c1")]
        elif last["call_id"] == "c1":
            text = "Let me see. "
            calls = [call("weather", '{"city":"Rome"}', "c2"), call("delete", '{"n":1}', "c3")]
        else:
            text = f"It is {last['output']}."
        if text:
            yield delta(text)
        response = Response(
            id="1", created_at=0, model="scripted", object="response", parallel_tool_calls=False,
            output=[*([message(text)] if text else []), *calls], tool_choice="none", tools=[],
            usage=ResponseUsage.model_validate(USAGE),
        )  # fmt: skip
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=2
        )


@function_tool
def find(user: str) -> str:
    """Where somebody is."""
    return f"{user} is in Rome"


@function_tool(needs_approval=True)
def delete(n: int) -> str:
    """Delete so many."""
    return f"gone, all {n}"


set_tracing_disabled(True)
clerk = Clerk("clerk", model=Scripted(), tools=[find, delete])
states: dict[str | None, Any] = {}
agent = Agent("openai-agents", tools=True, asks=True, modes=["text", "image"])


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    ready = clerk.clone(tools=[*clerk.tools, *openai_agents.tools(context)])
    if context.resume:
        run = openai_agents.decide(states.pop(context.conversation_id), context)
    else:
        run = openai_agents.items(messages)
    result = Runner.run_streamed(ready, run)
    async for each in openai_agents.events(result, context):
        yield each
    if result.interruptions:
        states[context.conversation_id] = result.to_state()
