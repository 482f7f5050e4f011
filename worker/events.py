"""What a handler may say beside text: the event objects that it yields or returns.

Each is a small frozen Struct with the members of the wire (protocol/README.md, "Events"). They are
plain values: nothing is sent, and nothing is checked, until a handler yields one. `encode_event`
does the checking, and names the member that is wrong. The README of this package says when a caller
sees which of them ("Events").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import asdict

from protocol.wording import read_mismatch

from .messages import to_plain

if TYPE_CHECKING:
    _Bytes: TypeAlias = bytes | str
else:
    _Bytes = bytes  # what msgspec decodes base64 into, and thereby checks

_Count = Annotated[int, Meta(ge=0)]


class Event(Struct, frozen=True, omit_defaults=True):
    """The base of all of them: `AsyncIterator[str | Event]` is what a handler yields."""


class Reasoning(Event, frozen=True, tag="reasoning"):
    """A piece of what the model thinks, which is no part of the answer."""

    text: str


class ToolCall(Event, frozen=True, tag="tool_call"):
    """A tool is called: one of the agent's own, or one of the client's (`context.tools`).

    `call` identifies the call. Either `arguments` are complete, or `delta` is a piece of their JSON
    text, of which a call may have several. A call of a client's tool without a `ToolResult` ends
    the turn: the client makes the call, and sends the result with its next request.
    """

    call: str
    name: str
    arguments: dict[str, Any] | None = None
    delta: str | None = None


class ToolResult(Event, frozen=True, tag="tool_result"):
    """What came of a call of one of the agent's own tools. `content` is any JSON value."""

    call: str
    content: Any
    is_error: bool = False


class Status(Event, frozen=True, tag="status"):
    """What the agent is doing: "Searching…", and `progress` of `total`, in units of its own."""

    text: str
    progress: float | None = None
    total: float | None = None


class File(Event, frozen=True, tag="file"):
    """A file that the agent made: `data`, its bytes or a string of them in base64; or a `path` at
    which the client can find it, which nobody in between opens."""

    name: str
    mime: str
    data: _Bytes | None = None
    path: str | None = None


class Usage(Event, frozen=True):
    """Tokens that the answer took, those from a cache and for reasoning included.

    Several in one answer are added up.
    """

    input_tokens: _Count
    output_tokens: _Count
    cached_input_tokens: _Count = 0
    reasoning_tokens: _Count = 0


class Finish(Event, frozen=True):
    """Why the answer ends here, if not because it is whole: cut at a `length`, or `refused`.

    `tool_calls` and `input_required` need not be said: they follow from `ToolCall` and `Ask`.
    """

    reason: Literal["stop", "length", "refused"]


class Ask(Event, frozen=True):
    """A question to the user, which ends the turn. Several may be asked at once.

    The answer comes in a new request, in `context.resume`, under the same `id`. `schema` is a JSON
    Schema of the answer; `call` the tool call that the question is about, as for an approval.
    """

    id: str
    message: str
    reason: str = "question"
    schema: dict[str, Any] | None = None
    call: str | None = None


_BY_TYPE: dict[str, type[Event]] = {
    "reasoning": Reasoning,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "status": Status,
    "file": File,
    "finish": Finish,
    "ask": Ask,
}

_HAS_NO_JSON_FORM = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def tool_call(call: str, name: str, arguments: str | Mapping[str, Any] | None) -> ToolCall:
    """A whole call whose arguments may be JSON text, as models write it."""
    if isinstance(arguments, str):
        try:
            parsed = msgspec.json.decode(arguments or "{}")
        except (msgspec.DecodeError, ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            return ToolCall(call, name, delta=arguments)  # as the model wrote it
        return ToolCall(call, name, parsed)
    return ToolCall(call, name, dict(arguments or {}))


def event_of(value: Mapping[str, Any]) -> Event | Raw:
    """A dict with a `type` as an event; what has no class here (`state`, and an agent's own
    `x-…`) as JSON text.

    Raises TypeError as `encode_event` does.
    """
    kind = value["type"]
    known = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    name = repr(kind) if known is None else known.__name__
    try:
        if known is not None:
            return msgspec.convert(dict(value), known)
        return Raw(msgspec.json.encode(value, enc_hook=to_plain))
    except msgspec.ValidationError as error:
        raise TypeError(explain(name, error)) from None
    except _HAS_NO_JSON_FORM as error:
        raise TypeError(f"{name} has no JSON form: {error}") from error


def encode_event(event: Event) -> bytes:
    """An event as JSON text.

    Raises TypeError or ValueError, worded for the agent's author, for a member that is not what it
    should be.
    """
    kind = type(event).__name__
    members = asdict(event)
    for name, value in members.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{kind}.{name} is {value}, expected a finite number")
    # A question's reason is part of the wire, also where it is the default one.
    ask = isinstance(event, Ask) and {k: v for k, v in members.items() if v is not None}
    try:
        text = msgspec.json.encode(ask or event, enc_hook=to_plain)
        msgspec.json.decode(text, type=type(event))
    except msgspec.ValidationError as error:
        raise TypeError(explain(kind, error)) from None
    except _HAS_NO_JSON_FORM as error:
        raise TypeError(f"{kind} has no JSON form: {error}") from error
    return text


def explain(kind: str, error: Exception) -> str:
    """An error of msgspec's with the place in front: "ToolCall.name: expected str, got int"."""
    mismatch = read_mismatch(error)
    sentence = mismatch.sentence.replace("`", "")
    return f"{kind}{mismatch.path}: {sentence[:1].lower()}{sentence[1:]}"
