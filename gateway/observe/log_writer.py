"""The log's way out: a bounded queue, and one thread that writes.

# Theory of operation

A write to stderr can take for ever: it may be a pipe whose reader is paused, a terminal that was
stopped with Ctrl-S, a network file system. It can also fail, at a full disk or a pipe that nobody
reads any more. Whoever logs must not notice: `write` only appends to a queue, and a thread takes
everything that is queued and writes it.

**Lines are written in batches.** To wake a thread costs more than to make a line, and the thread
then competes with the event loop for the interpreter. So the thread, once it has written, rests for
`REST_SECONDS`, and what is queued meanwhile is written together. A line after a silence is written
at once; so is what is queued when a line is `urgent`, when much waits already, and in `flush`: a
process that dies suddenly loses no warning that it gave, and its plain lines of one rest at most.

The queue is bounded in bytes and in lines. A line that does not fit is dropped and counted, and so
are lines that could not be written; the count follows the next lines that are written. New lines
are dropped, not old ones: the first lines of a flood tell more than its last.

The thread is a daemon: the end of the process does not wait for it, except in `flush`, for a
bounded time.
"""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 1024 * 1024
"""Capacity of the queue, with as much again being written: seconds of a busy log."""

MAX_LINES = 8192
"""Capacity of the queue in lines: empty lines cost memory, too."""

REST_SECONDS = 0.05
"""Between two writes of lines that are not urgent: nobody who reads along notices."""

MUCH = MAX_BYTES // 8
"""Bytes that are written without a rest. A queue that fills up within a rest would drop lines."""

MANY = MAX_LINES // 8
"""As `MUCH`, in lines."""

_LINE_FEED = ord("\n")


class LogWriter:
    """Writes to a descriptor, which may be shared with other processes and is never closed here."""

    def __init__(self, descriptor: int, notice: Callable[[int], bytes]) -> None:
        """`notice` makes the line that says how many were dropped; the thread calls it."""
        self._descriptor = descriptor
        self._notice = notice
        # One buffer, and no lines: what one thread allocates and another frees costs both.
        self._queue = bytearray()
        self._lines = 0
        self._dropped = 0
        """Since the last notice."""
        self.dropped_in_all = 0
        self._writing = False
        self._torn = False
        self._idle = False
        """Whether the thread waits for a line, rather than rests or writes."""
        self._hurry = True
        """Whether the thread is not to rest: there is no write yet to rest after."""
        # One lock: the condition's own `with` is Python, and costs as much as all of `write`.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    def __repr__(self) -> str:
        return f"<LogWriter {self._lines} queued, {self._dropped} dropped>"

    def write(self, data: bytes, *, lines: int = 1, urgent: bool = True) -> None:
        """Queue one line or several, each of which must end with a line feed. Never blocks.

        What is not `urgent` may wait for others, for `REST_SECONDS` at most.
        """
        with self._lock:
            if self._lines + lines > MAX_LINES or len(self._queue) + len(data) > MAX_BYTES:
                self._dropped += lines
                self.dropped_in_all += lines
                return
            self._queue += data
            self._lines += lines
            if urgent or self._lines >= MANY or len(self._queue) >= MUCH:
                self._wake()
            elif self._idle:
                self._idle = False
                self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything was written or given up; False if `seconds` pass first."""
        with self._changed:
            self._wake()
            return self._changed.wait_for(lambda: not (self._queue or self._writing), seconds)

    def _wake(self) -> None:
        """Have the thread write what is queued, now."""
        if self._queue and not self._hurry:
            self._hurry = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._hurry, REST_SECONDS)
                self._hurry, self._idle = False, not self._queue
                self._changed.wait_for(lambda: self._queue)
                self._idle = self._hurry = False
                data, self._queue = self._queue, bytearray()
                self._lines = 0
                dropped, self._dropped = self._dropped, 0
                self._writing = True
            if unwritten := self._write_out(data).count(b"\n"):
                dropped += unwritten
                with self._changed:
                    self.dropped_in_all += unwritten
            if dropped and self._write_out(self._notice(dropped)):
                with self._changed:
                    self._dropped += dropped

    def _write_out(self, data: bytes | bytearray) -> bytes | bytearray:
        """Write `data`; returns what could not be written."""
        # If a part of a line was written before a failure, that line is ended first.
        if self._torn and self._put(b"\n"):
            return data
        return self._put(data)

    def _put(self, data: bytes | bytearray) -> bytes:
        left = memoryview(data)
        while left:
            try:
                written = os.write(self._descriptor, left)
            except BlockingIOError:
                # Whoever shares the descriptor has made it non-blocking.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                break
            else:
                self._torn = left[written - 1] != _LINE_FEED
                left = left[written:]
        return bytes(left)
