"""Events: what an agent says of a request beside the text of its answer.

# Theory of operation

An event is a JSON object with a `type`. It passes through the gateway as the bytes that the worker
wrote, because clients of the native API read it, and because a later version may add members. What
*is* checked is everything that somebody in between relies on: the type, the members that a dialect
reads, and a bound on each of them, in bytes and in things. So a dialect that decodes an event with
`read_event` needs no checks of its own.

Most rules hold for an event by itself (`read_event`). Two need to know the events before it, and
are kept by `RequestEvents`, one for each request that has any: a tool call's parts belong together
(one name; either all arguments at once or pieces of their text), and the last `usage` counts where
the result does not tell one.

How an answer ended is not an event: `Outcome` comes with the result or with the end of the chunks.

Both ends check alike: what the gateway would refuse, the worker's end does not send.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from .messages import JSON, Outcome
from .payloads import MAX_REASON, as_bytes, kind

MAX_EVENT_BYTES = 1024 * 1024
"""Of an event as JSON text: text comes in pieces, and a tool's result is meant to be read. A `file`
may be as long as its line."""

MAX_ID = 128
"""Characters of the id of a tool call or of a question: four times those of common libraries."""

MAX_TOOL_NAME = 128
"""Characters: what the Model Context Protocol allows; OpenAI allows 64."""

MAX_TYPE = 64
"""Characters of a type that begins with `x-`."""

MAX_CALLS = 1024
"""Tool calls of one request: whoever puts their parts together keeps something for each."""

MAX_FILE_NAME = 255
"""Characters of a file's name, and of its media type (RFC 6838, 4.2: twice 127)."""

MAX_PATH = 4096
"""Characters: Linux's PATH_MAX."""

MAX_STATUS_TEXT = 4096
"""Characters of a status, which is a line for a person."""

MAX_USAGE_MEMBERS = 32
"""Counts in one usage: the known services tell fewer than ten."""

MAX_USAGE_BYTES = 16 * 1024
"""Of a usage as JSON text. It is looked at before the text is decoded: a line may hold a million
members."""

MAX_COUNT = 2**53 - 1
"""The largest integer that is exact in every language that reads JSON (RFC 8259, 6)."""

MAX_ASKS = 16
"""Questions that one turn may end with: a person is to answer them."""

MAX_ASKS_BYTES = 1024 * 1024
"""Of all questions of one turn as JSON text, looked at before they are decoded."""

MAX_ASK_MESSAGE = 16 * 1024
"""Characters of a question."""

MAX_SCHEMA_BYTES = 64 * 1024
"""Of a JSON Schema as JSON text: of a question's answer, and of an agent's input or output."""

Finish: TypeAlias = Literal["stop", "length", "refused", "tool_calls", "input_required"]
"""Why an answer ended: it was whole, it was cut at a limit, the agent refused, tools of the client
are to be run, or questions (`asks`) are to be answered."""

FINISHES: tuple[Finish, ...] = get_args(Finish)

_Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TOOL_NAME)]
_Amount: TypeAlias = Annotated[float, Meta(ge=0)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_CountName: TypeAlias = Annotated[str, Meta(max_length=64)]


class Reasoning(Struct, gc=False, tag_field="type", tag="reasoning"):
    """A piece of the agent's thoughts, to be shown apart from the answer."""

    text: str


class ToolCall(Struct, gc=False, tag_field="type", tag="tool_call"):
    """A call of a tool: all its arguments, or the next piece of their JSON text."""

    call: _Id
    name: _Name
    arguments: Raw | UnsetType = UNSET
    """An object."""
    delta: str | UnsetType = UNSET


class ToolResult(Struct, gc=False, tag_field="type", tag="tool_result"):
    """What a tool of the agent's own has returned."""

    call: _Id
    content: Raw
    """Any JSON value."""
    is_error: bool = False


class File(Struct, gc=False, tag_field="type", tag="file"):
    """A file that the agent made: its bytes (base64 in JSON), or where a client can find it. The
    gateway opens no path."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_FILE_NAME)]
    mime: Annotated[str, Meta(max_length=MAX_FILE_NAME, pattern=r"^[!-.0-~]+/[!-.0-~]+$")]
    data: bytes | UnsetType = UNSET
    path: Annotated[str, Meta(min_length=1, max_length=MAX_PATH)] | UnsetType = UNSET


class Status(Struct, gc=False, tag_field="type", tag="status"):
    """What the agent is doing, in words, and how much of it is done."""

    text: Annotated[str, Meta(max_length=MAX_STATUS_TEXT)]
    progress: _Amount | None = None
    total: _Amount | None = None


class State(Struct, gc=False, tag_field="type", tag="state"):
    """The agent's state as a client may show it: whole, or as a patch (RFC 6902)."""

    value: Raw | UnsetType = UNSET
    patch: Raw | UnsetType = UNSET


class UsageSoFar(Struct, gc=False, tag_field="type", tag="usage"):
    """What the request has used so far; every other member is a count."""


class Custom(Struct, gc=False):
    """An event of the agent's own, whose type begins with `x-`."""

    type: Annotated[str, Meta(max_length=MAX_TYPE, pattern="^x-.")]


AgentEvent: TypeAlias = (
    Reasoning | ToolCall | ToolResult | File | Status | State | UsageSoFar | Custom
)

EVENT_TYPES = ("reasoning", "tool_call", "tool_result", "file", "status", "state", "usage")


class _Type(Struct, gc=False):
    type: str


class _Ask(Struct, gc=False):
    id: _Id
    reason: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=MAX_ASK_MESSAGE)]
    schema: Raw | UnsetType = UNSET
    call: _Id | UnsetType = UNSET


_decode_event = msgspec.json.Decoder(
    Reasoning | ToolCall | ToolResult | File | Status | State | UsageSoFar
).decode
_decode_type = msgspec.json.Decoder(_Type).decode
_decode_custom = msgspec.json.Decoder(Custom).decode
_decode_usage_event = msgspec.json.Decoder(dict[_CountName, _Count | Literal["usage"]]).decode
_decode_usage = msgspec.json.Decoder(
    Annotated[dict[_CountName, _Count], Meta(max_length=MAX_USAGE_MEMBERS)]
).decode
_decode_asks = msgspec.json.Decoder(
    Annotated[list[_Ask], Meta(min_length=1, max_length=MAX_ASKS)]
).decode
_encode = msgspec.json.encode


class EventError(ValueError):
    """An event or an outcome that is not as it must be; the message says how."""


def read_event(event: JSON | memoryview) -> AgentEvent:
    """Decode one event. Raises EventError."""
    try:
        if len(event) > MAX_EVENT_BYTES and _decode_type(event).type != "file":
            # Before it is decoded: what is refused is to cost nothing.
            raise EventError(f"an event of {len(event)} bytes, expected at most {MAX_EVENT_BYTES}")
        decoded: AgentEvent = _decode_event(event)
    except msgspec.ValidationError as error:
        return _read_custom(event, error)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _unreadable(error) from None
    _check_choices(decoded)
    return decoded


def _check_choices(event: AgentEvent) -> None:
    """Check what the members' types cannot say. Raises EventError."""
    match event:
        case ToolCall(arguments=arguments, delta=delta):
            if (arguments is UNSET) == (delta is UNSET):
                raise EventError("a tool_call has either 'arguments' or 'delta'")
            if isinstance(arguments, Raw) and (found := kind(as_bytes(arguments))) != "an object":
                raise EventError(f"a tool_call's arguments are {found}, expected an object")
        case File(data=data, path=path) if (data is UNSET) == (path is UNSET):
            raise EventError("a file has either 'data' or 'path'")
        case State(value=value, patch=patch):
            if (value is UNSET) == (patch is UNSET):
                raise EventError("a state has either 'value' or 'patch'")
            if isinstance(patch, Raw) and (found := kind(as_bytes(patch))) != "an array":
                raise EventError(f"a state's patch is {found}, expected an array")


def _read_custom(event: JSON | memoryview, error: msgspec.ValidationError) -> Custom:
    """Read an event that is of none of the known types, which `error` says; or it is wrong."""
    try:
        named = _decode_type(event).type
        if named in EVENT_TYPES:
            raise _unreadable(error)
        if not named.startswith("x-"):
            types = ", ".join(EVENT_TYPES)
            raise EventError(f"an event's type is {named[:80]!r}, expected {types}, or x-…")
        return _decode_custom(event)
    except msgspec.ValidationError as other:
        raise _unreadable(other) from None


def _unreadable(error: Exception) -> EventError:
    if isinstance(error, RecursionError):
        return EventError("an event nests too deeply")
    return EventError(f"an event: {str(error)[:MAX_REASON]}")


class RequestEvents:
    """What the events of one request must keep to together. See the module's docstring."""

    __slots__ = ("_calls", "usage")

    def __init__(self) -> None:
        self._calls: dict[str, tuple[str, int | None]] = {}
        """The name of each call, by its id, and the length of its pieces; None: it is whole."""
        self.usage: JSON | None = None
        """The last that was told."""

    def add(self, event: JSON) -> None:
        """Raises EventError, and then nothing has changed."""
        decoded = read_event(event)
        if isinstance(decoded, ToolCall):
            self._add_call(decoded)
        elif isinstance(decoded, UsageSoFar):
            self.usage = _read_usage_event(event)

    def _add_call(self, call: ToolCall) -> None:
        before = self._calls.get(call.call)
        if before is None:
            if len(self._calls) >= MAX_CALLS:
                raise EventError(f"more than {MAX_CALLS} tool calls in one request")
            name, size = call.name, 0
        else:
            name, known_size = before
            if name != call.name:
                raise EventError(f"tool_call {call.call!r} was {name!r}, and is {call.name!r} now")
            if known_size is None:
                raise EventError(f"tool_call {call.call!r} goes on after all its arguments")
            size = known_size
            if call.delta is UNSET:
                raise EventError(f"tool_call {call.call!r} has 'arguments' after a 'delta'")
        if isinstance(call.delta, str):
            size += len(call.delta)
            if size > MAX_EVENT_BYTES:
                raise EventError(
                    f"tool_call {call.call!r} has more than {MAX_EVENT_BYTES} characters of "
                    "arguments"
                )
            self._calls[call.call] = (name, size)
        else:
            self._calls[call.call] = (name, None)


def _read_usage_event(event: JSON) -> JSON:
    _check_usage_length(event)
    try:
        members = _decode_usage_event(event)
    except msgspec.MsgspecError as error:
        raise _unreadable(error) from None
    members.pop("type", None)
    return read_usage(_encode(members))


def read_usage(usage: JSON) -> JSON:
    """A usage with each member once: names of non-negative integers. Raises EventError."""
    _check_usage_length(usage)
    try:
        return _encode(_decode_usage(usage))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise EventError(f"usage: {str(error)[:MAX_REASON]}") from None


def _check_usage_length(usage: JSON) -> None:
    if len(usage) > MAX_USAGE_BYTES:
        raise EventError(f"usage of {len(usage)} bytes, expected at most {MAX_USAGE_BYTES}")


def check_asks(asks: JSON) -> None:
    """Check the questions of an answer, a JSON array. Raises EventError."""
    if len(asks) > MAX_ASKS_BYTES:
        raise EventError(f"asks of {len(asks)} bytes, expected at most {MAX_ASKS_BYTES}")
    try:
        decoded = _decode_asks(asks)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise EventError(f"asks: {str(error)[:MAX_REASON]}") from None
    if len({ask.id for ask in decoded}) < len(decoded):
        raise EventError("two asks have the same id")
    for ask in decoded:
        if ask.schema is UNSET:
            continue
        schema = as_bytes(ask.schema)
        if kind(schema) != "an object":
            raise EventError(f"the schema of ask {ask.id!r} is {kind(schema)}, expected an object")
        if len(schema) > MAX_SCHEMA_BYTES:
            raise EventError(
                f"the schema of ask {ask.id!r} has {len(schema)} bytes, expected at most "
                f"{MAX_SCHEMA_BYTES}"
            )


def check_outcome(outcome: Outcome) -> Outcome:
    """The outcome with its usage's members each once. Raises EventError."""
    if outcome.finish is not None and outcome.finish not in FINISHES:
        raise EventError(
            f"finish is {outcome.finish[:80]!r}, expected one of {', '.join(FINISHES)}"
        )
    if (outcome.finish == "input_required") != (outcome.asks is not None):
        raise EventError("finish 'input_required' and 'asks' come together")
    if outcome.asks is not None:
        check_asks(outcome.asks)
    usage = None if outcome.usage is None else read_usage(outcome.usage)
    return Outcome(outcome.finish, usage, outcome.asks)
