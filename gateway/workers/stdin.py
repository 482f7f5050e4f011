"""The stdin of one worker: writes lines into the pipe, and knows how much of them was taken.

Writes at once what the pipe takes, and has a task write the rest. What may wait for the end of the
turn of the event loop leaves with all else that is said in the turn: a write is cheap, but it wakes
the worker, which is not. Knows bytes, and no requests.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import trio

from gateway import turns
from gateway.readiness import writable
from gateway.workers.process import enlarge_pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from protocol import Payload

PIPE_BYTES = 64 * 1024
"""What a pipe holds unless more is asked for (pipe(7))."""

_PARTS_AT_ONCE = 64
"""Parts in one write; the system takes up to 1,024 (IOV_MAX)."""


class Stdin(Protocol):
    """What is needed of a worker's process: the gateway's end of the pipe."""

    stdin: int

    def unread_input(self) -> int: ...


class StdinWriter:
    """See the module's docstring. `report_closed` is called, from any method that writes, when the
    worker takes no more input."""

    def __init__(
        self, process: Stdin, nursery: trio.Nursery, report_closed: Callable[[], None]
    ) -> None:
        self.sent = 0
        """Bytes that were ever to be written: where the next line begins."""
        self._process = process
        self._nursery = nursery
        self._report_closed = report_closed
        self._unwritten: deque[memoryview] = deque()
        self._written = 0
        self._taken = 0
        self._corked = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<StdinWriter {self._written} of {self.sent} bytes written>"

    def look_at_taken(self) -> int:
        """How many of all bytes written to its stdin the worker has taken."""
        # The maximum, because a worker may write into its own stdin.
        self._taken = max(self._taken, self._written - self._process.unread_input())
        return self._taken

    def write(self, line: Sequence[Payload], size: int, *, may_wait: bool = False) -> None:
        """Write a line of `size` bytes, given in parts. `may_wait`: at the end of the turn."""
        self.sent += size
        if self._closed:
            self._report_closed()
            return
        idle = not self._unwritten
        if size > PIPE_BYTES and self._process.stdin >= 0:
            enlarge_pipe(self._process.stdin)
        self._unwritten += map(memoryview, line)
        if idle and not self._corked and not (may_wait and turns.at_end(self._end_turn)):
            self._begin()

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Write all lines of this block together at its end: the worker is woken once for them."""
        idle, self._corked = not self._unwritten, True
        try:
            yield
        finally:
            self._corked = False
        if idle and self._unwritten:
            self._begin()

    def _begin(self) -> None:
        try:
            if not self._write_some():
                self._nursery.start_soon(self._write_rest)
        except OSError:
            self._give_up()

    def _end_turn(self) -> None:
        try:
            done = self._write_some()
        except OSError:
            done = False
        if not done:
            turns.soon(self._go_on)

    def _go_on(self) -> None:
        if not self._nursery.cancel_scope.cancel_called:
            self._begin()

    def _write_some(self) -> bool:
        """Write until the pipe is full (False) or nothing is left to be written (True).

        Raises OSError: EPIPE, the worker closed its stdin; EBADF, we did.
        """
        while self._unwritten:
            try:
                count = self._write_once()
            except BlockingIOError:
                return False
            self._written += count
            while self._unwritten and count >= len(self._unwritten[0]):
                count -= len(self._unwritten.popleft())
            if count:
                self._unwritten[0] = self._unwritten[0][count:]
        return True

    def _write_once(self) -> int:
        if len(self._unwritten) == 1:  # mostly, and then `write` costs less
            return os.write(self._process.stdin, self._unwritten[0])
        parts = [*islice(self._unwritten, _PARTS_AT_ONCE)]
        return os.writev(self._process.stdin, parts)

    async def _write_rest(self) -> None:
        try:
            await writable(self._process.stdin)
            while not self._write_some():
                await writable(self._process.stdin)
        except (trio.ClosedResourceError, OSError):
            self._give_up()

    def _give_up(self) -> None:
        self._closed = True
        self._unwritten.clear()
        self._report_closed()
