"""Lines: assembling them from bytes in any split, within a maximum length.

This module knows what separates lines, and nothing of what a line holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from .errors import RemoteProtocolError, Violation

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Bytes of the longest line, its newline included. Requests and answers of a few MiB are common
(documents, images as base64), and both sides hold each one in flight in memory: at 8 MiB, a hundred
of them stay under one GiB."""

MAX_RELAYED_LINE_BYTES = 2 * MAX_LINE_BYTES + 1024
"""Bytes of the longest line about what was read from a worker, where somebody in between writes it
anew: an event that was put on one line (`on_one_line`) is at most twice as long as it was, and the
members around it may be longer than the worker's."""

MAX_REQUEST_BYTES = MAX_LINE_BYTES - 1024
"""Bytes of the payload and the context of a request together, on one line: the rest of its line
needs less than 1 KiB, with an id of the request of up to 128 characters."""

_LINE_ENDS_IN_STRINGS = (
    (b"\xc2", "\u0085".encode(), rb"\u0085"),
    (b"\xe2", "\u2028".encode(), rb"\u2028"),
    (b"\xe2", "\u2029".encode(), rb"\u2029"),
)
"""First byte, bytes and escape of every character that a JSON text may hold unescaped in a string
(RFC 8259, 7: anything from U+0020) and that ends a line for some reader: Node's readline, Java's
Scanner, Python's `str.splitlines`. The other such characters (U+000A to U+000D, U+001C to U+001E)
are control characters: of them, only newline and carriage return may stand in a JSON text at all,
and only between tokens."""


def is_one_line(text: bytes) -> bool:
    """Whether no reader of lines, in any language, finds the end of a line in a JSON text."""
    if b"\n" in text or b"\r" in text:
        return False
    # Looking for one byte is thirty times as fast as looking for several.
    return text.isascii() or not any(
        first in text and raw in text for first, raw, _ in _LINE_ENDS_IN_STRINGS
    )


def on_one_line(text: bytes) -> bytes:
    """A JSON text of the same meaning that is one line to every reader: see `is_one_line`.

    Returns `text` itself if nothing has to change.
    """
    if not text.isascii():
        for first, raw, escape in _LINE_ENDS_IN_STRINGS:
            if first in text:
                text = text.replace(raw, escape)
    # Between tokens: a string cannot hold either without an escape.
    return text.replace(b"\n", b" ").replace(b"\r", b" ")


class LineBuffer:
    """A buffer that takes bytes and returns whole lines.

    The work is linear in the input, however the input is split, and the buffer holds at most
    `max_line_bytes`. After a line that exceeds the maximum, `overflowed` is true and the buffer
    accepts nothing more, because the rest of that line has no beginning.
    """

    __slots__ = ("_partial", "max_line_bytes", "overflowed")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.overflowed = False
        self._partial = BytesIO()

    def __repr__(self) -> str:
        state = "overflowed" if self.overflowed else f"{self.partial_bytes} bytes held"
        return f"<LineBuffer {state}, at most {self.max_line_bytes}>"

    @property
    def partial_bytes(self) -> int:
        """Bytes of the unfinished line that the buffer holds."""
        return self._partial.tell()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes that were read; return the lines that they complete, without their newlines.

        Blank lines are left out.
        """
        return split_lines(self.feed_text(data))

    def feed_text(self, data: bytes) -> bytes:
        """Add bytes that were read; return the lines that they complete as one text, without the
        last newline. Each of its lines is within the maximum length."""
        if self.overflowed:
            return b""
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data)
            return b""
        text = self._with_partial(data[:end])
        if len(text) >= self.max_line_bytes:
            text = self._before_too_long(text)
        if not self.overflowed and end + 1 < len(data):
            self._hold(data[end + 1 :])
        return text

    def too_long(self) -> RemoteProtocolError:
        """The error that describes an overflow."""
        return RemoteProtocolError(
            Violation.LINE_TOO_LONG, f"a line is longer than {self.max_line_bytes} bytes"
        )

    def _with_partial(self, data: bytes) -> bytes:
        if not self.partial_bytes:
            return data
        self._partial.write(data)
        # `getvalue` makes no copy as long as the buffer is not written to again.
        text = self._partial.getvalue()
        self._partial = BytesIO()
        return text

    def _hold(self, data: bytes) -> None:
        if self.partial_bytes + len(data) >= self.max_line_bytes:
            self._overflow()
        else:
            self._partial.write(data)

    def _before_too_long(self, text: bytes) -> bytes:
        start = 0
        while start <= len(text):
            newline = text.find(b"\n", start)
            end = len(text) if newline < 0 else newline
            if end - start >= self.max_line_bytes:
                self._overflow()
                return text[: max(0, start - 1)]
            start = end + 1
        return text

    def _overflow(self) -> None:
        self.overflowed = True
        self._partial = BytesIO()


def split_lines(text: bytes) -> list[bytes]:
    """The lines of a text that are not blank."""
    # A worker may write newlines for ever: looking at each would take time from its neighbours.
    if not text or text.isspace():
        return []
    # `in` is much faster than `split` in a long text without a newline.
    if b"\n" not in text:
        return [text]
    # `strip` makes no copy of a line without surrounding white space.
    return list(filter(bytes.strip, text.split(b"\n")))


def split_pieces(text: bytes, size: int) -> Iterator[bytes]:
    """The text in pieces of whole lines: `size` bytes and the rest of the last line, each."""
    start = 0
    while (end := text.find(b"\n", start + size)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]
