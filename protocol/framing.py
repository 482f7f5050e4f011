"""From bytes in any split to whole lines, with a cap on the length of one.

Knows newlines and nothing of what a line holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from .errors import RemoteProtocolError, Violation

MAX_LINE_BYTES = 8 * 1024 * 1024
"""The longest line, newline included. A request or an answer of a few MiB is ordinary (documents,
images as base64), and each one in flight is held in memory on both sides: 8 MiB keeps a hundred of
them under one GiB."""


def on_one_line(text: bytes) -> bytes:
    """A JSON text on one line. A newline in it stands between tokens: strings escape theirs."""
    return text.replace(b"\n", b" ") if b"\n" in text else text


class LineBuffer:
    """Collects bytes and hands out whole lines.

    The work is linear in the input, however that is split, and at most `max_line_bytes` are held.
    Once a line has passed the cap, `overflowed` is true and nothing more is taken in: what follows
    has no beginning.
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
        """How many bytes of an unfinished line are held."""
        return self._partial.tell()

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; return the lines that it completed, without their newlines.

        Lines of nothing but white space are left out.
        """
        return split_lines(self.feed_text(data))

    def feed_text(self, data: bytes) -> bytes:
        """Add what was read; return the lines that it completed as one text, without the last
        newline. No line in it is too long."""
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
        """The error that an overflow is."""
        return RemoteProtocolError(
            Violation.LINE_TOO_LONG, f"a line is longer than {self.max_line_bytes} bytes"
        )

    def _with_partial(self, data: bytes) -> bytes:
        if not self.partial_bytes:
            return data
        self._partial.write(data)
        # All that is in it, and no copy: the buffer is given up for it.
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
    """The lines of a text, but for those of nothing but white space."""
    # A worker may write newlines for ever: to look at them one by one would be its neighbours'
    # loss.
    if not text or text.isspace():
        return []
    # `split` goes byte by byte through a text in which it finds nothing, `in` does not.
    if b"\n" not in text:
        return [text]
    # `strip` returns a line without white space around it as it is, without a copy.
    return list(filter(bytes.strip, text.split(b"\n")))


def split_pieces(text: bytes, size: int) -> Iterator[bytes]:
    """The text in pieces of whole lines, each of `size` bytes and what is left of its last line."""
    start = 0
    while (end := text.find(b"\n", start + size)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]
