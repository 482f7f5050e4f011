"""openai-agents: a session for each conversation, its words as they come, and the client's tools.

    gateway --agent clerk="agent-worker worker/examples/frameworks/openai_agents_sessions.py:agent"

Calls of tools and hand-offs are among the events, too, for callers who ask for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent as Clerk
from agents import Model, ModelResponse, Runner, SQLiteSession, Usage, set_tracing_disabled
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

from worker import Agent, Context, Event
from worker.adapters import openai_agents

MOST_SESSIONS = 1000
"""Conversations that are remembered; the one that was silent for longest is forgotten first."""


class Listener(Model):
    """Stands in for a model: the name of one, "gpt-5", goes where this is used."""

    async def get_response(self, _: str | None, input: Any, *__: Any, **___: Any) -> ModelResponse:  # noqa: A002
        return ModelResponse([_message(_words(input))], Usage(), None)

    async def stream_response(self, _: str | None, input: Any, *__: Any, **___: Any) -> Any:  # noqa: A002
        text = _words(input)
        place = {"item_id": "1", "output_index": 0, "content_index": 0, "logprobs": []}
        for number, word in enumerate(text.split(" ")):
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta",
                delta=f"{' ' if number else ''}{word}",
                sequence_number=number,
                **place,
            )
        response = Response(
            id="1", created_at=0, model="listener", object="response", output=[_message(text)],
            parallel_tool_calls=False, tool_choice="none", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


def _words(items: Any) -> str:
    said = [each["content"] for each in items if each.get("role") == "user"]
    return f"{len(said)} so far, the last one: {said[-1]}"


def _message(text: str) -> ResponseOutputMessage:
    words = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(
        id="1", content=[words], role="assistant", status="completed", type="message"
    )


set_tracing_disabled(True)  # it would send what was said to OpenAI
clerk = Clerk("clerk", instructions="Count what you are told.", model=Listener())
sessions: OrderedDict[str, SQLiteSession] = OrderedDict()

agent = Agent("clerk", description="Counts what it is told.", tools=True)


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    words = str(messages[-1]["content"])
    ready = clerk.clone(tools=[*clerk.tools, *openai_agents.tools(context)])
    run = Runner.run_streamed(ready, words, session=session_of(context))
    return openai_agents.events(run, context)


def session_of(context: Context) -> SQLiteSession | None:
    """The session of a conversation, in memory; for one that is kept, name a file."""
    if context.conversation_id is None:
        return None
    name = f"{context.user_id}/{context.conversation_id}"
    session = sessions.pop(name, None) or SQLiteSession(name)
    sessions[name] = session
    if len(sessions) > MOST_SESSIONS:
        sessions.popitem(last=False)[1].close()
    return session


if __name__ == "__main__":
    agent.run()
