"""The log's way out: a bounded queue, and one thread that writes.

# Theory of operation

A write to stderr can take for ever: it may be a pipe whose reader is paused, a terminal that was
stopped with Ctrl-S, a network file system. It can also fail, at a full disk or a pipe that nobody
reads any more. Whoever logs must not notice: `write` only appends to a queue, and a thread takes
everything that is queued and writes it.

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
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 1024 * 1024
"""Capacity of the queue, with as much again being written: seconds of a busy log."""

MAX_LINES = 8192
"""Capacity of the queue in lines: empty lines cost memory, too."""

_LINE_FEED = ord("\n")


class LogWriter:
    """Writes to a descriptor, which may be shared with other processes and is never closed here."""

    def __init__(self, descriptor: int, notice: Callable[[int], bytes]) -> None:
        """`notice` makes the line that says how many were dropped; the thread calls it."""
        self._descriptor = descriptor
        self._notice = notice
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        """Since the last notice."""
        self.dropped_in_all = 0
        self._writing = False
        self._torn = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    def __repr__(self) -> str:
        return f"<LogWriter {len(self._queue)} queued, {self._dropped} dropped>"

    def write(self, line: bytes) -> None:
        """Queue a line, which must end with a line feed. Never blocks."""
        with self._changed:
            if len(self._queue) >= MAX_LINES or self._bytes + len(line) > MAX_BYTES:
                self._dropped += 1
                self.dropped_in_all += 1
                return
            self._queue.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything was written or given up; False if `seconds` pass first."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._queue or self._writing), seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue)
                data = b"".join(self._queue)
                self._queue.clear()
                self._bytes = 0
                dropped, self._dropped = self._dropped, 0
                self._writing = True
            if unwritten := self._write_out(data).count(b"\n"):
                dropped += unwritten
                with self._changed:
                    self.dropped_in_all += unwritten
            if dropped and self._write_out(self._notice(dropped)):
                with self._changed:
                    self._dropped += dropped

    def _write_out(self, data: bytes) -> bytes:
        """Write `data`; returns what could not be written."""
        # If a part of a line was written before a failure, that line is ended first.
        if self._torn and self._put(b"\n"):
            return data
        return self._put(data)

    def _put(self, data: bytes) -> bytes:
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
