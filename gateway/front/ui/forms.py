"""The parts ("chunks") of a UI message stream, and those of an agent's events that need no state.

Types and members are those of the AI SDK, https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, whose
reader checks them strictly: a member that has no value is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct

from gateway.front.chats.endings import counts_of, total_of
from gateway.front.event_stream import HEADERS as EVENT_STREAM
from protocol import on_one_line

if TYPE_CHECKING:
    from protocol import Outcome
    from protocol.events import File, State, Status

HEADERS = (*EVENT_STREAM, (b"x-vercel-ai-ui-message-stream", b"v1"))

_encode = msgspec.json.encode


class Ask(Struct, gc=False):
    """A question, which was checked."""

    id: str
    reason: str
    message: str
    schema: Raw | msgspec.UnsetType = UNSET
    call: str | msgspec.UnsetType = UNSET


_decode_asks = msgspec.json.Decoder(list[Ask]).decode

FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "refused": "content-filter",
    "tool_calls": "tool-calls",
    "input_required": "other",
}

_COUNTS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "reasoning_tokens": "reasoningTokens",
    "cached_input_tokens": "cachedInputTokens",
}


def part(kind: str, **members: Any) -> bytes:
    """One part, as it is sent."""
    return b"data: %b\n\n" % on_one_line(_encode({"type": kind, **members}))


def file_part(file: File) -> bytes:
    """A file. A page gets the name as metadata: the part has no member for it that is kept."""
    if isinstance(file.data, bytes):
        data = _encode(file.data)[1:-1].decode("ascii")
        url = f"data:{file.mime};base64,{data}"
    else:
        url = str(file.path)
    return part(
        "file", url=url, mediaType=file.mime, providerMetadata={"agent": {"filename": file.name}}
    )


def status_part(status: Status) -> bytes:
    """What the agent is doing: for `onData`, and not kept in the message."""
    told = {"text": status.text, "progress": status.progress, "total": status.total}
    data = {name: value for name, value in told.items() if value is not None}
    return part("data-status", data=data, transient=True)


def state_part(state: State) -> bytes:
    """The agent's state, of which the message keeps the last; or a patch of it, for `onData`."""
    if isinstance(state.value, Raw):
        return part("data-state", id="state", data=state.value)
    return part("data-state-patch", data=state.patch, transient=True)


def custom_part(kind: str, event: bytes) -> bytes:
    """An event of the agent's own: for `onData`."""
    return part(f"data-{kind}", data=Raw(event), transient=True)


def asks_of(outcome: Outcome | None) -> list[Ask]:
    """The questions that the answer ends with."""
    return [] if outcome is None or outcome.asks is None else _decode_asks(outcome.asks)


def ask_part(ask: Ask) -> bytes:
    return part("data-ask", id=ask.id, data=ask)


def metadata_of(outcome: Outcome | None) -> dict[str, Any]:
    """`messageMetadata` of the end: the usage, if it is known."""
    counts = counts_of(outcome)
    if counts is None:
        return {}
    usage = {name: counts[own] for own, name in _COUNTS.items() if own in counts}
    return {"messageMetadata": {"usage": {**usage, "totalTokens": total_of(counts)}}}
