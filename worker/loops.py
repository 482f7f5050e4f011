"""Operations of the two event loops that anyio lacks, or that cost too much through it.

A request is one read, one task and one wake-up. On asyncio, a reader that stays registered costs a
tenth of `anyio.wait_readable`, and a plain task half of a task in a task group (measured within one
run); anyio has no way at all to schedule a function without waiting for it. Everything else in this
package goes through anyio.
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
"""Bytes of one read: the default capacity of a pipe (pipe(7))."""

LARGE_READ_BYTES = 256 * 1024
"""Bytes of a read that follows a full one: the gateway enlarges the pipe when it has much to write.
Reading as much every time would make the allocator ask the system for memory at each read."""


class Loop(Protocol):
    """The operations of an event loop that a server needs."""

    def call_soon(self, function: Callable[[], object]) -> object:
        """Call the function on the loop's next turn. Only from the loop's thread."""

    def call_soon_from_thread(self, function: Callable[[], object]) -> object:
        """Call the function on the loop's next turn, from any thread. Raises RuntimeError when the
        loop has ended."""

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> object:
        """Start a task, which must not raise. Keep the returned value until the task has ended."""

    async def read(self, fd: int, receive: Callable[[bytes], object]) -> None:
        """Call `receive`, which must not raise, with each piece read, until the end of the file."""

    def receive_signals(
        self, numbers: Sequence[int], receive: Callable[[int], object]
    ) -> AbstractContextManager[None]:
        """Call `receive` with the number of each of these signals. Only on the main thread."""


def current_loop(backend: Backend, tasks: TaskGroup) -> Loop:
    """The loop that runs this task. `tasks` owns the spawned tasks where the loop requires an
    owner."""
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
        # Not signal.signal: a handler of that kind does not wake a loop that is about to wait.
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
        # A plain handler suffices: trio sets the interpreter's wakeup descriptor.
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
    """Read a regular file or /dev/null. epoll refuses these: reading them never blocks."""
    while data := os.read(fd, READ_BYTES):
        receive(data)
        await checkpoint()
