"""W3C Trace Context (Level 1): the two headers by which a request says of which trace it is.

`traceparent` has the trace and the caller's span; one that is invalid is dropped, and its
`tracestate` with it, so that a new trace begins (3.2, 4.3). `tracestate` has what tracing systems
add; one that is invalid is dropped alone (3.3). Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PARENT = b"traceparent"
STATE = b"tracestate"

MAX_STATE = 512
"""Characters of a `tracestate` that are passed on, in whole members: what everybody has to
pass on (3.3.1.5). It has to fit into a line of the wire, with everything beside it."""

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"(?:{_KEY})={_VALUE}")

_MOST_MEMBERS = 32

_SAMPLED = 1


class TraceContext(NamedTuple):
    """Of which trace a request is: the headers, checked."""

    parent: str
    """As version 00 has it, which is what this gateway understands (3.2.4)."""
    state: str | None = None

    @property
    def trace_id(self) -> int:
        return int(self.parent[3:35], 16)

    @property
    def span_id(self) -> int:
        return int(self.parent[36:52], 16)

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded its span."""
        return bool(int(self.parent[53:], 16) & _SAMPLED)


class Spans(NamedTuple):
    """The spans of one request of ours, decided at its beginning. See `observe.traces`."""

    trace_id: int
    request_span: int
    worker_span: int
    parent: TraceContext | None
    """The caller's span."""
    state: str | None
    recorded: bool

    def __str__(self) -> str:
        """The trace's id, as logs and collectors show it."""
        return f"{self.trace_id:032x}"


def trace_context(trace_id: int, span_id: int, state: str | None, *, sampled: bool) -> TraceContext:
    return TraceContext(f"00-{trace_id:032x}-{span_id:016x}-{int(sampled):02x}", state)


def read_trace_context(fields: Mapping[bytes, bytes]) -> TraceContext | None:
    """The trace of a request with these header fields; None: it has none, or none that is valid.

    A field that was sent twice is two lines (`head.read_head`).
    """
    value = fields.get(PARENT)
    if value is None:
        return None
    match = _PARENT.fullmatch(value)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    invalid = version == b"ff" or (version == b"00" and more is not None)
    if invalid or not trace.strip(b"0") or not span.strip(b"0") or b"\n" in value:
        return None
    if version != b"00":  # of its flags, only one is known
        flags = b"%02x" % (int(flags, 16) & _SAMPLED)
    parent = b"00-%b-%b-%b" % (trace, span, flags)
    return TraceContext(parent.decode("ascii"), _read_state(fields.get(STATE)))


def _read_state(value: bytes | None) -> str | None:
    """The members in their order; several fields are one list (3.3.1)."""
    if value is None:
        return None
    text = value.replace(b"\n", b",").decode("latin-1")
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MOST_MEMBERS or len(keys) < len(members):
        return None
    if not all(map(_MEMBER.fullmatch, members)):
        return None
    while members and sum(map(len, members)) + len(members) - 1 > MAX_STATE:
        members.pop()  # the oldest
    return ",".join(members) or None
