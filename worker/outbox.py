"""Lines on their way to the gateway, written in batches, and never more of them than a bound.

Any thread puts lines in; the event loop's thread writes them, as many as there are in one write.
When the gateway does not read, `size` passes the bound, and whoever produces many lines waits.
Knows nothing of what a line says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from threading import Condition, Lock

import anyio
from anyio.lowlevel import checkpoint

HIGH_WATER_BYTES = 96 * 1024
"""Above this, producers wait. More than a pipe holds at first (pipe(7): 64 KiB), so that the
gateway sees it full once and makes it larger, if it may: from then on one write takes all of it.
The loop's producers and those in threads hold twice this at most, and one line each."""


class Outbox:
    """The lines that were not written yet.

    `on_broken` is called once, when nobody can read what is written any more; from then on lines
    are dropped. Made and used on the event loop's thread, but for what is named for threads.
    """

    def __init__(self, fd: int, *, on_broken: Callable[[], object]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self.size = 0
        """Bytes that wait, but for those of threads."""
        self._lines: list[bytes] = []
        self._unsent = memoryview(b"")
        self._broken = False
        # What threads put in lies apart, so that the loop's own lines, each of which may be one
        # word of thousands, need no lock.
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
        """Add a line. True when it is the first that waits: see to it that `flush` is called."""
        self._lines.append(line)
        self.size += len(line)
        return len(self._lines) == 1

    def put_from_thread(self, line: bytes) -> bool:
        """The same from any thread. It is written before what is put in later from the loop's."""
        with self._room:
            self._thread_lines.append(line)
            self._thread_size += len(line)
            return len(self._thread_lines) == 1

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
            while self._all and not self._blocked.is_set():
                self._write()
                await checkpoint()  # threads may put lines in as fast as they are written

    async def wait_for_room(self) -> None:
        """Write, and return as soon as there is room. Other tasks get their turn."""
        self.flush()
        while self.size > HIGH_WATER_BYTES:
            await self._wait_for_progress()
        await checkpoint()

    async def wait_until_empty(self) -> None:
        """Return when everything is written."""
        self.flush()
        while self._all:
            await self._wait_for_progress()

    def wait_for_room_in_thread(self, *, unless: Callable[[], bool]) -> None:
        """Block this thread until there is room, or until `unless` is true; see `wake_threads`."""
        if self._all > HIGH_WATER_BYTES:
            with self._room:
                self._room.wait_for(lambda: self._all <= HIGH_WATER_BYTES or unless())

    def wake_threads(self) -> None:
        """Let the threads that wait for room look at their `unless` again."""
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
            except OSError:  # EPIPE: the gateway is gone, or has let go of this worker
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
