"""What a handler learns about a request besides its input, and how it refuses that input."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from protocol import Chat, Invoke, Payload


class InvalidInput(Exception):  # noqa: N818  (it reads as what it says: `raise InvalidInput(…)`)
    """Raise this in a handler to refuse the caller's input: the caller gets status 400 and the
    text.

    Any other exception is the agent's own failure, and the caller gets status 500.
    """


class Tool(msgspec.Struct, frozen=True):
    """A tool of the client's, which the agent may call (`ToolCall`) and the client runs."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """The JSON Schema of its arguments."""


class Resume(msgspec.Struct, frozen=True):
    """The answer to a question that an earlier turn ended with (`Ask`)."""

    id: str
    """The question's."""
    status: str = "resolved"
    """Either "resolved" or "cancelled": the user gave no answer."""
    payload: Any = None


class Context(msgspec.Struct, kw_only=True):
    """What the caller sent as `context`, and what is known about the request.

    Tests of your own handlers can construct one: `Context(user_id="u1")`.
    """

    conversation_id: str | None = None
    user_id: str | None = None
    custom: dict[str, Any] = {}
    """`context.custom`: the caller's own data; empty when there is none."""
    extras: dict[str, Any] = {}
    """All other members of `context`."""
    request_id: str = ""
    """Identifies the request in the gateway's log and in the `X-Request-Id` of its response."""
    stream: bool = False
    """Whether the caller asked for a stream. A handler may yield in either case: the gateway
    adapts."""
    events: bool = False
    """Whether the caller sees more than text. A handler may yield events in either case."""
    tools: list[Tool] = []
    """The client's tools."""
    resume: list[Resume] = []
    """Answers to the questions that the last turn ended with."""
    traceparent: str | None = None
    """The caller's span, as W3C Trace Context has it, to which the agent's own may belong: a trace
    that the agent goes on with is one with the gateway's and with its caller's."""
    tracestate: str | None = None
    """What tracing systems have added to that."""
    cancelled: bool = False
    """Becomes true when nobody waits for the answer any more. A plain function or generator that
    runs for long should check this flag now and then, and return. A coroutine need not: it is
    cancelled where it awaits."""


def context_of(request: Invoke | Chat) -> Context:
    """The Context of a request. Raises InvalidInput."""
    context = read_context(request.context, request_id=request.request_id, stream=request.stream)
    context.events = request.events
    context.traceparent = request.traceparent
    context.tracestate = request.tracestate
    if request.tools is not None:
        given = _decode_as(list[_GivenTool], request.tools, "tools")
        context.tools = [
            Tool(each.name, each.description or "", each.parameters or {}) for each in given
        ]
    if request.resume is not None:
        context.resume = _decode_as(list[Resume], request.resume, "resume")
    return context


def read_context(text: bytes, *, request_id: str, stream: bool) -> Context:
    """The Context that a request's JSON text describes. Raises InvalidInput."""
    if text in {b"{}", b"null"}:
        return Context(request_id=request_id, stream=stream)
    extras = decode(text, "context")
    if not isinstance(extras, dict):
        raise InvalidInput(f"context is {type(extras).__name__}, expected an object")
    return Context(
        conversation_id=_take(extras, "conversation_id", str),
        user_id=_take(extras, "user_id", str),
        custom=_take(extras, "custom", dict) or {},
        extras=extras,
        request_id=request_id,
        stream=stream,
    )


def decode(text: Payload, name: str) -> Any:
    """The Python objects that the JSON text of `name` stands for.

    Raises InvalidInput for JSON that has no such objects: an integer of thousands of digits, a
    number beyond every float, nesting without end.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} cannot be decoded: {error}") from None


class _GivenTool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


_T = TypeVar("_T")


def _decode_as(kind: type[_T], text: Payload, name: str) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} cannot be decoded: {error}") from None


def _take(context: dict[str, Any], key: str, expected: type[str] | type[dict[str, Any]]) -> Any:
    value = context.pop(key, None)
    if value is not None and not isinstance(value, expected):
        name = "a string" if expected is str else "an object"
        raise InvalidInput(f"context.{key} is {type(value).__name__}, expected {name} or null")
    return value
