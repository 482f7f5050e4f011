"""The bounded queue of lines for the gateway, written in batches.

Any thread may add lines; the event loop's thread writes all queued lines with one system call.
While the gateway does not read, the queue passes its high-water mark, and producers of many lines
wait (backpressure). This module does not know what a line says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from threading import Condition, Lock

import anyio
from anyio.lowlevel import checkpoint

HIGH_WATER_BYTES = 96 * 1024
"""Producers wait while more bytes than this are queued. The mark is above the default capacity of a
pipe (pipe(7): 64 KiB), so that the gateway finds the pipe full once and enlarges it, if it may:
from then on one write takes everything. The event loop's producers and those in threads queue at
most twice this together, plus one line each."""


class Outbox:
    """The lines that are not written yet.

    `on_broken` is called once, when the reading end is gone; from then on lines are dropped. Only
    the methods named for threads may be called on a thread other than the event loop's.
    """

    def __init__(self, fd: int, *, on_broken: Callable[[], object]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self.size = 0
        """Bytes queued by the event loop, excluding those queued by threads."""
        self._lines: list[bytes] = []
        self._unsent = memoryview(b"")
        self._broken = False
        # Threads have a queue of their own, so that the event loop, which may add thousands of
        # lines of one word each, needs no lock.
        self._thread_lines: list[bytes] = []
        self._thread_size = 0
        self._room = Condition(Lock())  # guards the two above
        self._blocked = anyio.Event()
        self._progress = anyio.Event()
        if not _shares_stderr(fd):
            os.set_blocking(fd, False)

    def __repr__(self) -> str:
        state = "broken" if self._broken else "blocked" if self._blocked.is_set() else "flowing"
        return f"<Outbox {state}, {self._all} bytes>"

    def put(self, line: bytes) -> bool:
        """Add a line. True when the queue was empty: the caller then arranges a call of `flush`."""
        self._lines.append(line)
        self.size += len(line)
        return len(self._lines) == 1

    def put_from_thread(self, line: bytes) -> bool:
        """Add a line from any thread. Lines that the event loop adds later are written after it."""
        with self._room:
            self._thread_lines.append(line)
            self._thread_size += len(line)
            return len(self._thread_lines) == 1

    def flush(self) -> None:
        """Write as much of the queue as the pipe takes without waiting."""
        if not self._blocked.is_set():
            self._write()

    async def write_when_possible(self) -> None:
        """Write whenever the gateway has made room in the pipe. Runs until cancelled."""
        while True:
            await self._blocked.wait()
            await anyio.wait_writable(self._fd)
            self._blocked = anyio.Event()
            while self._all and not self._blocked.is_set():
                self._write()
                await checkpoint()  # threads may add lines as fast as this writes them

    async def wait_for_room(self) -> None:
        """Write, and return as soon as there is room. Always yields to other tasks."""
        self.flush()
        while self.size > HIGH_WATER_BYTES:
            await self._wait_for_progress()
        await checkpoint()

    async def wait_until_empty(self) -> None:
        """Write everything; return when the queue is empty."""
        self.flush()
        while self._all:
            await self._wait_for_progress()

    def wait_for_room_in_thread(self, *, unless: Callable[[], bool]) -> None:
        """Block this thread until there is room or `unless` is true. `wake_threads` re-evaluates
        both."""
        if self._all > HIGH_WATER_BYTES:
            with self._room:
                self._room.wait_for(lambda: self._all <= HIGH_WATER_BYTES or unless())

    def wake_threads(self) -> None:
        """Make the threads that wait for room check their `unless` again."""
        with self._room:
            self._room.notify_all()

    @property
    def _all(self) -> int:
        return self.size + self._thread_size

    async def _wait_for_progress(self) -> None:
        if self._progress.is_set():
            self._progress = anyio.Event()
        await self._progress.wait()

    def _write(self) -> None:
        if not self._unsent:
            lines = self._take()
            self._unsent = memoryview(lines[0] if len(lines) == 1 else b"".join(lines))
        while self._unsent:
            try:
                written = os.write(self._fd, self._unsent)
            except BlockingIOError:
                self._blocked.set()
                return
            except OSError:  # EPIPE: the gateway is gone, or has closed its end
                self._drop_everything()
                return
            self._unsent = self._unsent[written:]
            self.size -= written
            self._tell_of_progress()

    def _take(self) -> list[bytes]:
        with self._room:
            lines, self._thread_lines = self._thread_lines, []
            self.size += self._thread_size
            self._thread_size = 0
        lines += self._lines
        self._lines = []
        return lines

    def _tell_of_progress(self) -> None:
        self.wake_threads()
        self._progress.set()

    def _drop_everything(self) -> None:
        self._unsent = memoryview(b"")
        self._take()
        self.size = 0
        self._tell_of_progress()
        if not self._broken:
            self._broken = True
            self._on_broken()


def _shares_stderr(fd: int) -> bool:
    """Whether making `fd` non-blocking might make stderr non-blocking too, as on a terminal.

    O_NONBLOCK belongs to the open file description (open(2)), which descriptors may share.
    """
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return True
    try:
        return os.path.samestat(os.fstat(fd), os.fstat(2))
    except OSError:  # stderr is closed
        return False
