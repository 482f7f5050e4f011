"""The lines of a worker's stdout, and which request each is for.

As lenient as can be: a recording has to show what a worker wrote that is not the protocol. What a
line means is the protocol's business, which reads the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from protocol.framing import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_OF_A_NAME = 64
"""Bytes of a method or an id that is looked at."""


class Lines:
    """Makes lines of bytes in any split."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False
        """Whether a part of the present line was lost."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete, without those that are empty."""
        *whole, last = data.split(b"\n")
        for piece in whole:
            line = b"" if self._skipping else (bytes(self._partial) + piece).strip()
            self._skipping = False
            self._partial.clear()
            if line:
                yield line
        if not self._skipping and len(self._partial) <= MAX_LINE_BYTES:
            self._partial += last

    def lose(self) -> None:
        """Some bytes are missing: the line that they belong to is no line."""
        self._partial.clear()
        self._skipping = True

    def rest(self) -> bytes:
        """What has come of a line that will not be finished."""
        return bytes(self._partial)


class Said(NamedTuple):
    """What is recorded of a line: `value` under the name `kind`; and for which request it is."""

    kind: str
    value: object
    method: str | None = None
    wire_id: int | None = None
    """None for a line that names no request."""


class _Line(Struct):
    id: Raw = Raw(b"null")
    method: Raw = Raw(b"null")
    params: Raw = Raw(b"null")


class _Params(Struct):
    id: Raw = Raw(b"null")


def read(line: bytes) -> Said:
    """What to record of a line. Never raises."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Said("text", line.decode(errors="backslashreplace"))
    try:
        found = msgspec.json.decode(line, type=_Line)
        method, wire_id = _short(found.method), _short(found.id)
        if method in {"chunk", "event"}:
            wire_id = _short(msgspec.json.decode(found.params, type=_Params).id)
        elif method is not None:
            wire_id = None
    except (msgspec.DecodeError, RecursionError):  # no JSON, or too deep for anybody to read
        return Said("text", text)
    return Said("from", Raw(line), method, wire_id if isinstance(wire_id, int) else None)


def _short(raw: Raw) -> Any:
    """A method or an id; None for what is none, since a worker may write anything there."""
    text = bytes(raw)
    if len(text) > MOST_OF_A_NAME or text.startswith((b"[", b"{")):
        return None
    return msgspec.json.decode(text)
