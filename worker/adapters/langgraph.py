"""LangGraph and LangChain: the stream of a graph or a model as words and events.

    @agent.chat
    async def chat(messages, context):
        run = {"messages": messages}
        return langgraph.events(graph.astream(run, stream_mode=["messages", "updates"]))

Of LangGraph's stream modes, `messages` has the words, `updates` the interrupts, and `custom` what a
node has written, which may be an event of ours; the others are ignored. A LangChain model's own
stream of message chunks is read, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, overload

import msgspec

from ..context import Context
from ..events import Ask, Event, Finish, Reasoning, ToolCall, ToolResult, Usage
from ._steps import steps

_FINISHES: dict[object, Any] = {
    "stop": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "MAX_TOKENS": "length",
    "content_filter": "refused",
    "refusal": "refused",
    "SAFETY": "refused",
}
"""What models of OpenAI, Anthropic and Google call them; any other reason is a "stop". The last
message's counts."""


@overload
def events(stream: AsyncIterable[Any]) -> AsyncIterator[str | Event]: ...
@overload
def events(stream: Iterable[Any]) -> Iterator[str | Event]: ...
def events(stream: Any) -> Any:
    """The words and events of `graph.astream(…)`, `graph.stream(…)`, or a model's stream."""
    return _events_later(stream) if hasattr(stream, "__aiter__") else _events(stream)


def tools(context: Context) -> list[dict[str, Any]]:
    """The client's tools for `model.bind_tools([*own, *tools(context)])`.

    A graph must not run them: its routing leads to `END` where `is_clients` says so.
    """
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in context.tools
    ]


def is_clients(message: Any, context: Context) -> bool:
    """Whether a model's message calls a tool of the client's, so that the turn must end."""
    names = {tool.name for tool in context.tools}
    return any(call["name"] in names for call in message.tool_calls)


def resume(context: Context) -> Any:
    """`Command(resume=…)` with the answers to a graph's interrupts; None if there are none.

    To a graph, the answer to a question that was cancelled is None, whatever its payload.
    """
    from langgraph.types import Command  # noqa: PLC0415  (see the package's docstring)

    answers = {
        answer.id: answer.payload if answer.status == "resolved" else None
        for answer in context.resume
    }
    return Command(resume=answers) if answers else None


def _events(stream: Iterable[Any]) -> Iterator[str | Event]:
    reader = _Reader()
    for item in stream:
        yield from reader.read(item)
    yield from reader.calls()


async def _events_later(stream: AsyncIterable[Any]) -> AsyncIterator[str | Event]:
    reader = _Reader()
    async with aclosing(steps(stream)) as items:
        async for item in items:
            for each in reader.read(item):
                yield each
    for each in reader.calls():
        yield each


class _Reader:
    """What is known of the messages that are still coming, by their ids."""

    def __init__(self) -> None:
        self._coming: dict[Any, Any] = {}
        self._last: Any = None
        """The id of the message that spoke last."""
        self._finish = "stop"
        """What that message's reason, so far, makes of the answer."""

    def read(self, item: Any) -> Iterator[str | Event]:
        """The words and events of one item of a stream, in any of the shapes that it may have."""
        if hasattr(item, "tool_call_id") or hasattr(item, "content"):
            yield from self._read_message(item)
            return
        mode, data = _mode_of(item)
        if mode == "messages":
            yield from self._read_message(data[0])
        elif mode == "updates" and isinstance(data, Mapping) and "__interrupt__" in data:
            yield from self.calls()
            yield from (_ask(interrupt) for interrupt in data["__interrupt__"])
        elif mode == "custom" and isinstance(data, (str, Event)):
            yield data

    def calls(self) -> Iterator[ToolCall]:
        """The tool calls of the messages that have come in pieces; nothing more comes of them."""
        coming, self._coming = self._coming, {}
        for message in coming.values():
            yield from _calls(message)

    def _read_message(self, message: Any) -> Iterator[str | Event]:
        kind = message.type
        if kind in {"tool", "ToolMessageChunk"}:
            yield from self.calls()
            error = message.status == "error"
            yield ToolResult(message.tool_call_id, message.content, is_error=error)
        elif kind in {"ai", "AIMessageChunk"}:
            yield from _words(message)
            yield from _usage(message)
            yield from self._read_finish(message)
            if kind == "ai":
                yield from _calls(message)
            else:
                self._collect(message)
                if getattr(message, "chunk_position", None) == "last":
                    yield from _calls(self._coming.pop(message.id, None))

    def _read_finish(self, message: Any) -> Iterator[Finish]:
        """The finish as this message has it; that of an earlier message counts no more.

        Some models give the pieces of one message several ids: a piece that says nothing begins no
        message.
        """
        says = message.content or message.tool_calls or message.additional_kwargs
        if message.type == "ai" or (says and message.id != self._last):
            self._last = message.id
            if self._finish != "stop":
                yield self._finish_with("stop")
        reason = _reason(message)
        if _refusal(message):
            yield self._finish_with("refused")
        elif reason is not None and self._finish != "refused":
            yield self._finish_with(_FINISHES.get(reason, "stop"))

    def _finish_with(self, reason: Any) -> Finish:
        self._finish = reason
        return Finish(reason)

    def _collect(self, chunk: Any) -> None:
        if chunk.tool_call_chunks:
            known = self._coming.get(chunk.id)
            self._coming[chunk.id] = chunk if known is None else known + chunk


def _mode_of(item: Any) -> tuple[object, Any]:
    """The stream mode that an item belongs to, and what it says."""
    if isinstance(item, Mapping):  # `version="v2"`; or a plain `stream_mode="updates"`
        return (
            (item["type"], item["data"]) if {"type", "data"} <= item.keys() else ("updates", item)
        )
    if isinstance(item, tuple) and len(item) == 2:
        first, second = item
        if isinstance(first, str):
            return first, second
        # A plain `stream_mode="messages"`; or, of a subgraph, its name before that.
        return ("messages", item) if hasattr(first, "content") else _mode_of(second)
    if isinstance(item, tuple) and len(item) == 3:
        return item[1], item[2]
    return None, item


def _words(message: Any) -> Iterator[str | Event]:
    content = message.content
    if isinstance(content, str) and not message.additional_kwargs:
        if content:
            yield content
        return
    for block in message.content_blocks:
        if block["type"] == "text" and block["text"]:
            yield block["text"]
        elif block["type"] == "reasoning" and block.get("reasoning"):
            yield Reasoning(block["reasoning"])
    if refusal := _refusal(message):
        yield refusal


def _refusal(message: Any) -> str:
    """What an OpenAI model says instead of an answer, which is no text of LangChain's own."""
    blocks = [message.additional_kwargs]
    if not isinstance(message.content, str):
        blocks += (block for block in message.content if isinstance(block, Mapping))
    return "".join(block.get("refusal") or "" for block in blocks)


def _usage(message: Any) -> Iterator[Usage]:
    if usage := message.usage_metadata:
        details = {**usage.get("input_token_details", {}), **usage.get("output_token_details", {})}
        yield Usage(
            usage["input_tokens"],
            usage["output_tokens"],
            cached_input_tokens=details.get("cache_read") or 0,
            reasoning_tokens=details.get("reasoning") or 0,
        )


def _reason(message: Any) -> Any:
    """Why the model ended its message, in its own words; None if it has not said."""
    metadata = message.response_metadata
    incomplete = metadata.get("incomplete_details") or {}
    reasons = (metadata.get("finish_reason"), metadata.get("stop_reason"), incomplete.get("reason"))
    return next(filter(None, reasons), None)


def _calls(message: Any) -> Iterator[ToolCall]:
    if message is None:
        return
    for call in message.tool_calls:
        yield ToolCall(call["id"], call["name"], call["args"])
    for call in message.invalid_tool_calls:
        # The model wrote no JSON: it is shown as it is.
        yield ToolCall(call["id"], call["name"], delta=call["args"] or "")


def _ask(interrupt: Any) -> Ask:
    value = interrupt.value
    message = value
    if isinstance(value, Mapping):
        message = next((value[key] for key in ("message", "question") if key in value), value)
    if not isinstance(message, str):
        message = msgspec.json.encode(message, enc_hook=str).decode()
    schema = getattr(interrupt, "response_schema", None)
    return Ask(
        interrupt.id,
        message,
        reason="interrupt",
        schema=dict(schema) if isinstance(schema, Mapping) else None,
    )
