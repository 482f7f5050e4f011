"""From bytes in any split to whole lines, with a cap on the length of one.

Knows newlines and nothing of what a line holds.
"""

from __future__ import annotations

from .errors import RemoteProtocolError, Violation

MAX_LINE_BYTES = 8 * 1024 * 1024
"""The longest line, newline included. A request or an answer of a few MiB is ordinary (documents,
images as base64), and each one in flight is held in memory on both sides: 8 MiB keeps a hundred of
them under one GiB."""


class LineBuffer:
    """Collects bytes and hands out whole lines.

    Each byte is looked at once, however the input is split, and at most `max_line_bytes` are held.
    Once a line has passed the cap, `overflowed` is true and nothing more is taken in: what follows
    has no beginning.
    """

    __slots__ = ("_partial", "max_line_bytes", "overflowed")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.overflowed = False
        self._partial = bytearray()

    def __repr__(self) -> str:
        state = "overflowed" if self.overflowed else f"{self.partial_bytes} bytes held"
        return f"<LineBuffer {state}, at most {self.max_line_bytes}>"

    @property
    def partial_bytes(self) -> int:
        """How many bytes of an unfinished line are held."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; return the lines that it completed, without their newlines.

        Lines of nothing but white space are left out.
        """
        if self.overflowed:
            return []
        end = data.rfind(b"\n") + 1
        if not end:
            self._hold(data)
            return []
        whole = data[:end]
        if self._partial:
            self._partial += whole
            whole = bytes(self._partial)
            self._partial.clear()
        lines = [line for line in whole.split(b"\n") if line and not line.isspace()]
        if len(whole) > self.max_line_bytes:
            lines = self._before_too_long(lines)
        if not self.overflowed and end < len(data):
            self._hold(data[end:])
        return lines

    def too_long(self) -> RemoteProtocolError:
        """The error that an overflow is."""
        return RemoteProtocolError(
            Violation.LINE_TOO_LONG, f"a line is longer than {self.max_line_bytes} bytes"
        )

    def _hold(self, data: bytes) -> None:
        if len(self._partial) + len(data) >= self.max_line_bytes:
            self._overflow()
        else:
            self._partial += data

    def _before_too_long(self, lines: list[bytes]) -> list[bytes]:
        for index, line in enumerate(lines):
            if len(line) >= self.max_line_bytes:
                self._overflow()
                return lines[:index]
        return lines

    def _overflow(self) -> None:
        self.overflowed = True
        self._partial.clear()
