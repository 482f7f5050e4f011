"""What the two event loops do themselves, where anyio has no such call or a dear one.

A request is one read, one task and one wake-up. On asyncio, a reader that stays registered and a
plain task cost a fraction of `anyio.wait_readable` and of a task in a task group (measured
within one run: a tenth, and a half); handing a function to the loop and going on is something
that anyio cannot do at all. Everything else is anyio's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

Backend: TypeAlias = Literal["asyncio", "trio"]

READ_BYTES = 64 * 1024
"""At most this is read at once: what a pipe holds unless asked for more."""

LARGE_READ_BYTES = 256 * 1024
"""The same after a read that was full: the gateway asks for a larger pipe when it has much to
write. Always, it would have the allocator ask the system for memory at each read."""


class Loop(Protocol):
    """An event loop, as a server needs it."""

    def call_soon(self, function: Callable[[], object]) -> object:
        """Call the function on the loop's next turn. Only from the loop's thread."""

    def call_soon_from_thread(self, function: Callable[[], object]) -> object:
        """The same from any thread. Raises RuntimeError when the loop has ended."""

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> object:
        """Start a task, which must not raise; keep what is returned until it has ended."""

    async def read(self, fd: int, receive: Callable[[bytes], object]) -> None:
        """Call `receive`, which must not raise, with what comes, until the end of the file."""

    def receive_signals(
        self, numbers: Sequence[int], receive: Callable[[int], object]
    ) -> AbstractContextManager[None]:
        """Call `receive` with the number of each of these signals. Only on the main thread."""


def current_loop(backend: Backend, tasks: TaskGroup) -> Loop:
    """The loop that runs this task. `tasks` owns what it spawns, if the loop needs an owner."""
    return _Asyncio() if backend == "asyncio" else _Trio(tasks)


class _Asyncio:
    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415  (only the backend in use is imported)

        self._loop = asyncio.get_running_loop()
        self._new_event = asyncio.Event
        self.call_soon = self._loop.call_soon
        self.call_soon_from_thread = self._loop.call_soon_threadsafe

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> object:
        return self._loop.create_task(function(*args))

    async def read(self, fd: int, receive: Callable[[bytes], object]) -> None:
        ended = self._new_event()
        most = READ_BYTES

        def read_once() -> None:
            nonlocal most
            data = os.read(fd, most)
            most = READ_BYTES if len(data) < READ_BYTES else LARGE_READ_BYTES
            if data:
                receive(data)
            else:
                self._loop.remove_reader(fd)
                ended.set()

        try:
            self._loop.add_reader(fd, read_once)
        except PermissionError:
            await _read_file(fd, receive)
            return
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(fd)

    @contextmanager
    def receive_signals(
        self, numbers: Sequence[int], receive: Callable[[int], object]
    ) -> Iterator[None]:
        # Not signal.signal: it does not wake a loop that was about to wait.
        for number in numbers:
            self._loop.add_signal_handler(number, receive, number)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)


class _Trio:
    def __init__(self, tasks: TaskGroup) -> None:
        import trio  # noqa: PLC0415  (only the backend in use is imported)

        token = trio.lowlevel.current_trio_token()
        self._wait_readable = trio.lowlevel.wait_readable
        self.call_soon = self.call_soon_from_thread = token.run_sync_soon
        self.spawn = tasks.start_soon

    async def read(self, fd: int, receive: Callable[[bytes], object]) -> None:
        try:
            await self._wait_readable(fd)
        except PermissionError:
            await _read_file(fd, receive)
            return
        while data := os.read(fd, READ_BYTES):
            receive(data)
            await self._wait_readable(fd)

    @contextmanager
    def receive_signals(
        self, numbers: Sequence[int], receive: Callable[[int], object]
    ) -> Iterator[None]:
        # trio has the interpreter wake it for every signal.
        def hand_over(number: int, frame: FrameType | None) -> None:
            del frame
            self.call_soon(partial(receive, number))

        previous = {number: signal.signal(number, hand_over) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


async def _read_file(fd: int, receive: Callable[[bytes], object]) -> None:
    """Read a regular file or /dev/null, which epoll refuses: it can always be read at once."""
    while data := os.read(fd, READ_BYTES):
        receive(data)
        await checkpoint()
