"""A worker's stderr: drained always, so that it never holds a worker, and logged within bounds.

Agents are not trusted to write little: lines are cut and their rate is limited, and what was left
out is counted. The last lines are kept for the log entry of a crash.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import deque
from typing import TYPE_CHECKING

import trio

from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("gateway.agent")

MAX_LINE_BYTES = 4096
"""Of one line in the log. A traceback's lines are far shorter; a dump of data is cut."""

LINES_PER_SECOND = 100
"""That one worker may log for long: enough to follow an agent, not enough to fill a disk soon."""

BURST_LINES = 1000
"""That it may log at once before the rate counts: a few long tracebacks."""

TAIL_LINES = 20
"""Kept for the crash's log entry: a traceback's end, where the reason stands."""

_READ_BYTES = 64 * 1024

_MAX_READS_OF_REST = 4
"""One read empties a pipe of 64 KiB; a few more take what was on its way into a full one."""


class StderrRelay:
    """Reads one worker's stderr and logs its lines with the fields that `describe` returns."""

    def __init__(self, descriptor: int, describe: Callable[[], dict[str, object]]) -> None:
        self._descriptor = descriptor
        self._describe = describe
        self._partial = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._allowance = float(BURST_LINES)
        self._filled_at = trio.current_time()
        self._left_out = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return tuple(self._tail)

    async def run(self) -> None:
        """Read until the end of stderr."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            data = self._read()
            if data == b"":
                break
            if data:
                self._take_in(data)
        self._finish()

    def read_rest(self) -> None:
        """Read what is in the pipe now, without waiting."""
        # Bounded: a process that the worker left behind may write faster than this reads.
        for _ in range(_MAX_READS_OF_REST):
            data = self._read()
            if not data:
                break
            self._take_in(data)
        self._finish()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return None

    def _take_in(self, data: bytes) -> None:
        lines, newline, partial = (self._partial + data).rpartition(b"\n")
        # One byte over the cap is enough to know that the line is cut.
        self._partial = partial[: MAX_LINE_BYTES + 1]
        if newline:
            self._take_in_lines(lines)

    def _take_in_lines(self, text: bytes) -> None:
        """Look at the lines that may be logged and at the last; of a flood, only count the rest."""
        self._earn()
        may = int(self._allowance)
        unseen = text.count(b"\n") + 1 - may - TAIL_LINES
        if unseen > 0:
            *lines, text = text.split(b"\n", may)
            for line in lines:
                self._line(line)
            self._left_out += unseen
            text = b"\n".join(text.rsplit(b"\n", TAIL_LINES)[1:])
        for line in text.split(b"\n"):
            self._line(line)

    def _finish(self) -> None:
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        self._report_left_out()

    def _line(self, line: bytes) -> None:
        text = _printable(line[:MAX_LINE_BYTES])
        if len(line) > MAX_LINE_BYTES:
            text += " … (cut)"
        if not text:
            return
        self._tail.append(text)
        if not self._may_log():
            self._left_out += 1
            return
        self._report_left_out()
        logs.event(log, logging.INFO, text, **self._describe())

    def _earn(self) -> None:
        now = trio.current_time()
        earned = (now - self._filled_at) * LINES_PER_SECOND
        self._allowance = min(self._allowance + earned, BURST_LINES)
        self._filled_at = now

    def _may_log(self) -> bool:
        self._earn()
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _report_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            logs.event(log, logging.WARNING, f"{count} lines were left out", **self._describe())


def _printable(line: bytes) -> str:
    """Text that cannot move the cursor of a terminal or forge a line of the log."""
    text = line.decode("utf-8", "backslashreplace").rstrip()
    if text.isprintable():
        return text
    return "".join(
        char if char == "\t" or unicodedata.category(char)[0] != "C" else f"\\x{ord(char):02x}"
        for char in text
    )
