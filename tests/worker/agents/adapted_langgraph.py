"""A LangGraph agent behind `worker.adapters.langgraph`, with a scripted model that streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

from worker import Agent, Context, Event, Status
from worker.adapters import langgraph


def usage(given: int, made: int) -> dict[str, Any]:
    parts = {"output_token_details": {"reasoning": 1}}
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made, **parts}


SCRIPT: dict[str, list[dict[str, Any]]] = {
    "own": [
        {"content": [{"type": "reasoning", "reasoning": "Where? "}]},
        {"content": "Let me "},
        {"content": "see. "},
        {"tool_call_chunks": [{"name": "find", "args": '{"us', "id": "c1", "index": 0}]},
        {"tool_call_chunks": [{"name": None, "args": 'er":"Ada"}', "id": None, "index": 0}]},
        {"usage_metadata": usage(5, 2), "response_metadata": {"finish_reason": "tool_calls"}},
    ],
    "clients": [
        {"tool_call_chunks": [{"name": "weather", "args": '{"city":', "id": "c2", "index": 0}]},
        {"tool_call_chunks": [{"name": None, "args": '"Rome"}', "id": None, "index": 0}]},
        {"usage_metadata": usage(1, 1)},
    ],
    "end": [
        {"content": "It is warm."},
        {"usage_metadata": usage(7, 3), "response_metadata": {"finish_reason": "length"}},
    ],
}


class Scripted(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: list[Any], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        last = messages[-1]
        name = {"Where is she?": "own", "Weather?": "clients"}.get(str(last.content), "end")
        for chunk in SCRIPT[name]:
            yield ChatGenerationChunk(message=AIMessageChunk(**{"content": "", **chunk}))

    async def _astream(
        self, messages: list[Any], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if messages[-1].content == "slowly":
            yield ChatGenerationChunk(message=AIMessageChunk("Roses "))
            try:
                print("the model thinks", flush=True)
                await asyncio.sleep(3600)
            finally:
                print("the model was given up", flush=True)
        for chunk in self._stream(messages):
            yield chunk


@tool
def find(user: str) -> str:
    """Where somebody is."""
    get_stream_writer()(Status("Searching…"))
    return f"{user} is in Rome"


async def think(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Scripted().ainvoke(state["messages"])]}


def confirm(_: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"You said {interrupt({'question': 'Really?'})}.")]}


def graph_for(context: Context) -> Any:
    """The graph whose calls of the client's tools end the turn."""

    def after(state: MessagesState) -> str:
        last = state["messages"][-1]
        if langgraph.is_clients(last, context):
            return END
        return "tools" if getattr(last, "tool_calls", None) else END

    return (
        StateGraph(MessagesState)
        .add_node("think", think)
        .add_node("tools", ToolNode([find]))
        .add_node("confirm", confirm)
        .add_conditional_edges(START, starts)
        .add_conditional_edges("think", after)
        .add_edge("tools", "think")
        .compile(checkpointer=memory)
    )


def starts(state: MessagesState) -> str:
    return "confirm" if state["messages"][-1].content == "Confirm" else "think"


memory = InMemorySaver()
agent = Agent("langgraph", tools=True, asks=True)


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    run = langgraph.resume(context) or {"messages": convert_to_messages(messages)}
    config = {"configurable": {"thread_id": context.conversation_id or context.request_id}}
    modes = ["messages", "updates", "custom"]
    return langgraph.events(graph_for(context).astream(run, config, stream_mode=modes))


SHAPES: dict[str, dict[str, Any]] = {
    "messages": {"stream_mode": "messages"},
    "subgraphs": {"stream_mode": ["messages", "values"], "subgraphs": True},
    "messages of subgraphs": {"stream_mode": "messages", "subgraphs": True},
    "v2": {"stream_mode": ["messages", "updates"], "version": "v2"},
}


CUT = AIMessageChunk("Roses, ", id="1", response_metadata={"finish_reason": "length"})

ENDINGS: dict[str, list[AIMessage]] = {
    "refusal": [
        AIMessage(
            "",
            additional_kwargs={"refusal": "I will not."},
            response_metadata={"finish_reason": "stop"},
        )
    ],
    "refusal of Responses": [AIMessage([{"type": "refusal", "refusal": "I will not."}])],
    "refusal in pieces": [
        AIMessageChunk("", id="1", additional_kwargs={"refusal": "I will "}),
        AIMessageChunk("", id="1", additional_kwargs={"refusal": "not."}),
        AIMessageChunk("", id="1", response_metadata={"finish_reason": "stop"}),
    ],
    "cut by Responses": [
        AIMessage(
            "Roses", response_metadata={"incomplete_details": {"reason": "max_output_tokens"}}
        )
    ],
    "cut, then ended as no other model says it": [
        CUT,
        AIMessageChunk("Tulips", id="2"),
        AIMessageChunk("", id="2", response_metadata={"finish_reason": "enough"}),
    ],
    "cut, then ended without a reason": [CUT, AIMessage("Tulips")],
}
"""As langchain-openai has them: without a reason, or with one that is `stop`."""


@agent.invoke
def say(shape: str) -> Any:
    """The stream of a model without a graph, in a thread; or that of a graph in another shape."""
    if shape in ENDINGS:
        return langgraph.events(iter(ENDINGS[shape]))
    if shape == "model":
        return langgraph.events(Scripted().stream("Hello"))
    run = {"messages": [("user", "Where is she?")]}
    config = {"configurable": {"thread_id": shape}}
    return langgraph.events(graph_for(Context()).astream(run, config, **SHAPES[shape]))
