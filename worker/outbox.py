"""Lines on their way to the gateway, written in batches, and never more of them than a bound.

Any thread puts lines in; the event loop's thread writes them, as many as there are in one write.
When the gateway does not read, `has_room` becomes false, and whoever produces many lines waits.
Knows nothing of what a line says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from threading import Condition, Lock

import anyio
from anyio.lowlevel import checkpoint

HIGH_WATER_BYTES = 64 * 1024
"""Above this, producers wait: what a pipe holds, so that the next write can fill it. At most this
and one line of each running handler is held in memory."""


class Outbox:
    """The lines that were not written yet.

    `on_broken` is called once, when nobody can read what is written any more; from then on lines
    are dropped. Made and used on the event loop's thread, but for `put`, `has_room` and
    `wait_for_room_in_thread`.
    """

    def __init__(self, fd: int, *, on_broken: Callable[[], object]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._lines: list[bytes] = []
        self._size = 0
        self._unsent = memoryview(b"")
        self._broken = False
        self._lock = Lock()  # guards _lines and _size
        self._room = Condition(self._lock)
        self._blocked = anyio.Event()
        self._progress = anyio.Event()
        if not _shares_stderr(fd):
            os.set_blocking(fd, False)

    def __repr__(self) -> str:
        state = "broken" if self._broken else "blocked" if self._blocked.is_set() else "flowing"
        return f"<Outbox {state}, {self._size} bytes>"

    @property
    def has_room(self) -> bool:
        """Whether a producer of many lines may go on."""
        return self._size <= HIGH_WATER_BYTES

    def put(self, line: bytes) -> bool:
        """Add a line. True when it is the first that waits: see to it that `flush` is called."""
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
            return len(self._lines) == 1

    def flush(self) -> None:
        """Write what there is, as far as that is possible without waiting."""
        if not self._blocked.is_set():
            self._write()

    async def write_when_possible(self) -> None:
        """Go on writing whenever the gateway has made room in the pipe. Runs until cancelled."""
        while True:
            await self._blocked.wait()
            await anyio.wait_writable(self._fd)
            self._blocked = anyio.Event()
            while self._size and not self._blocked.is_set():
                self._write()
                await checkpoint()  # threads may put lines in as fast as they are written

    async def wait_for_room(self) -> None:
        """Write, and return as soon as there is room. Other tasks get their turn."""
        self.flush()
        while not self.has_room:
            await self._wait_for_progress()
        await checkpoint()

    async def wait_until_empty(self) -> None:
        """Return when everything is written."""
        self.flush()
        while self._size:
            await self._wait_for_progress()

    def wait_for_room_in_thread(self, *, unless: Callable[[], bool]) -> None:
        """Block this thread until there is room, or until `unless` is true; see `wake_threads`."""
        with self._room:
            self._room.wait_for(lambda: self.has_room or unless())

    def wake_threads(self) -> None:
        """Let the threads that wait for room look at their `unless` again."""
        with self._room:
            self._room.notify_all()

    async def _wait_for_progress(self) -> None:
        if self._progress.is_set():
            self._progress = anyio.Event()
        await self._progress.wait()

    def _write(self) -> None:
        if not self._unsent:
            with self._lock:
                lines, self._lines = self._lines, []
            self._unsent = memoryview(lines[0] if len(lines) == 1 else b"".join(lines))
        while self._unsent:
            try:
                written = os.write(self._fd, self._unsent)
            except BlockingIOError:
                self._blocked.set()
                return
            except OSError:  # EPIPE: the gateway is gone, or has let go of this worker
                self._drop_everything()
                return
            self._unsent = self._unsent[written:]
            self._made_room(written)

    def _made_room(self, written: int) -> None:
        with self._room:
            self._size -= written
            self._room.notify_all()
        self._progress.set()

    def _drop_everything(self) -> None:
        self._unsent = memoryview(b"")
        with self._room:
            self._lines = []
            self._size = 0
            self._room.notify_all()
        self._progress.set()
        if not self._broken:
            self._broken = True
            self._on_broken()


def _shares_stderr(fd: int) -> bool:
    """Whether making `fd` non-blocking might make stderr so too, as on a terminal.

    The flag belongs to what was opened, not to the descriptor.
    """
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return True
    try:
        return os.path.samestat(os.fstat(fd), os.fstat(2))
    except OSError:  # stderr is closed
        return False
