"""The forms of AG-UI's events, and of those of an agent's that need no state to be told.

Event types and members are those of AG-UI 1.0, https://docs.ag-ui.com/spec/1.0. A member that has
no value is left out: the protocol knows no null there.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from gateway.errors import InvalidAgentResponse
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocol import Outcome
    from protocol.events import State

PROTOCOL_VERSION = "1.0"

_encode = msgspec.json.encode

_Pointer = Annotated[str, Meta(pattern=r"^(/([^/~]|~[01])*)*$")]
"""RFC 6901, 3."""


class _Add(Struct, gc=False, tag_field="op", tag="add"):
    path: _Pointer
    value: Raw


class _Remove(Struct, gc=False, tag_field="op", tag="remove"):
    path: _Pointer


class _Replace(Struct, gc=False, tag_field="op", tag="replace"):
    path: _Pointer
    value: Raw


class _Move(Struct, gc=False, tag_field="op", tag="move"):
    path: _Pointer
    source: _Pointer = msgspec.field(name="from")


class _Copy(Struct, gc=False, tag_field="op", tag="copy"):
    path: _Pointer
    source: _Pointer = msgspec.field(name="from")


class _Test(Struct, gc=False, tag_field="op", tag="test"):
    path: _Pointer
    value: Raw


_decode_patch = msgspec.json.Decoder(list[_Add | _Remove | _Replace | _Move | _Copy | _Test]).decode


class _Ask(Struct, gc=False):
    id: str
    reason: str
    message: str
    schema: Raw | msgspec.UnsetType = UNSET
    call: str | None = None


_decode_asks = msgspec.json.Decoder(list[_Ask]).decode
_decode_usage = msgspec.json.Decoder(dict[str, int]).decode
_decode_usage_event = msgspec.json.Decoder(dict[str, Any]).decode

_COUNTS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "total_tokens": "totalTokens",
    "reasoning_tokens": "reasoningTokens",
    "cached_input_tokens": "cachedInputTokens",
    "cache_write_input_tokens": "cacheWriteInputTokens",
}
"""AG-UI's names of the counts in a usage; it has no place for others."""


def new_id(kind: str) -> str:
    """An id that no message of the client's has."""
    return f"{kind}_{secrets.token_hex(12)}"


def event(kind: str, **members: Any) -> bytes:
    """One event, as it is sent."""
    return b"data: %b\n\n" % on_one_line(_encode({"type": kind, **members}))


def custom(name: str, word: bytes) -> bytes:
    """What AG-UI has no event for: the agent's event as it is, which clients hand over to their
    application. It may be as long as a line, and is copied once."""
    head = b'data: {"type":"CUSTOM","name":%b,"value":' % on_one_line(_encode(name))
    return b"".join((head, on_one_line(word), b"}\n\n"))


def state_event(state: State) -> bytes:
    """Raises InvalidAgentResponse for a patch that is none: clients end a run for it."""
    if isinstance(state.value, Raw):
        return event("STATE_SNAPSHOT", snapshot=state.value)
    assert isinstance(state.patch, Raw)
    try:
        _check_patch(state.patch)
    except (ValueError, RecursionError) as error:  # of msgspec among them
        raise InvalidAgentResponse(
            f"a state's patch is not one that RFC 6902 allows: {error}"
        ) from None
    return event("STATE_DELTA", delta=state.patch)


def _check_patch(patch: Raw) -> None:
    """Raises ValueError for what is no patch, whatever the state is."""
    for operation in _decode_patch(patch):
        # RFC 6902, 4.4. Clients that do it all the same get a state that has itself within it.
        if isinstance(operation, _Move) and operation.path.startswith(f"{operation.source}/"):
            raise ValueError(f"'from' is {operation.source[:80]!r}, above 'path'")


def usage_of(outcome: Outcome | None) -> list[dict[str, int]]:
    """`usage` of the end of a run; empty if nothing is known of it."""
    return [] if outcome is None or outcome.usage is None else counts_in(outcome.usage)


def usage_so_far(word: bytes | None) -> list[dict[str, int]]:
    """The same, of a `usage` event, which was checked."""
    return [] if word is None else _named(_decode_usage_event(word))


def counts_in(usage: bytes) -> list[dict[str, int]]:
    return _named(_decode_usage(usage))


def _named(counts: Mapping[str, Any]) -> list[dict[str, int]]:
    known = {name: counts[own] for own, name in _COUNTS.items() if own in counts}
    return [known] if known else []


def interrupts_of(outcome: Outcome, calls: Mapping[str, str]) -> list[dict[str, Any]]:
    """The questions that an answer ends with. `calls` are the ids that the client knows calls by,
    by the agent's."""
    assert outcome.asks is not None
    found = []
    for ask in _decode_asks(outcome.asks):
        interrupt: dict[str, Any] = {"id": ask.id, "reason": ask.reason, "message": ask.message}
        if ask.call is not None and ask.call in calls:
            interrupt["toolCallId"] = calls[ask.call]
        if isinstance(ask.schema, Raw):
            interrupt["responseSchema"] = ask.schema
        found.append(interrupt)
    return found
