"""Waiting for descriptors, where the kernel may have no room for one more.

# Theory of operation

trio registers each descriptor with its epoll instance when it is first waited for, and that takes
one of the epoll watches of the user (epoll(7), `max_user_watches`). Processes of the same user
share them. A worker of another user id does not; one of the gateway's own user id can use up all
of them, and `epoll_ctl` then fails with ENOSPC in whichever task of the gateway waits next.

A registration stays until the descriptor is closed, so only the first wait can fail. `register`
makes that first wait at a moment when one connection or one start can still be refused. `readable`
and `writable` are for waits that must not fail, because somebody has to read, write or reap to the
end: without a watch they return after a moment, and their callers, who try without blocking, look
again.
"""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""The process, its user or the system has no room: accept(2), epoll_ctl(2)."""

LOOK_SECONDS = 0.02
"""Between two looks at a descriptor that the kernel does not watch."""


async def register(descriptor: int) -> None:
    """Take the kernel's watch for a descriptor, without waiting for it to be ready.

    Raises OSError when there is no room for it.
    """
    with trio.CancelScope() as scope:
        scope.cancel()  # it is registered before the wait is given up
        await trio.lowlevel.wait_readable(descriptor)


async def readable(descriptor: int) -> None:
    """Return when a descriptor may be read without blocking, or, without a watch, in a moment."""
    await _ready(trio.lowlevel.wait_readable, descriptor)


async def writable(descriptor: int) -> None:
    """The same for writing."""
    await _ready(trio.lowlevel.wait_writable, descriptor)


async def hung_up(descriptor: int) -> None:
    """Return when nobody has the other end of a socket any more, on which nothing is ever said."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors and the other end's end are always told
    while True:
        await readable(descriptor)
        if poll.poll(0):
            return


async def _ready(wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
    try:
        await wait(descriptor)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        await trio.sleep(LOOK_SECONDS)
