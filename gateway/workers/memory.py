"""Memory of a process and its descendants, from /proc, and the watch over it.

Where no control group holds a worker's memory limit, the gateway looks at the worker's whole tree
of processes a few times a second, and ends the worker when it holds more. That is late by up to
`WATCH_SECONDS`, and counts what is mapped: neither what lies in the worker's /tmp and /dev/shm
(`sandbox.tmp` limits these), nor shared pages that were unmapped, of which the sandbox's filter of
system calls leaves only the anonymous ones. A control group is better.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

WATCH_SECONDS = 0.25
"""Between two looks at a worker that is far from its limit: each takes a part of a millisecond."""

NEAR_SECONDS = 0.05
"""Between two looks at a worker that holds more than half of its limit."""

_Key = TypeVar("_Key", bound=Hashable)
_Measured = TypeVar("_Measured")

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None) -> int:
    """Resident bytes of `pid` and all its descendants; 0 if the process has ended.

    A page that several of them share counts once for each (proc(5), statm).
    """
    return sum(map(_resident, tree(pid)))


def proportional_bytes(pid: int | None) -> int:
    """The same, but a page that several processes share counts in parts (proc(5), smaps_rollup).

    This takes the kernel a hundred times as long.
    """
    return sum(map(_proportional, tree(pid)))


async def measure_all(pids: Mapping[_Key, int | None]) -> dict[_Key, int]:
    """The resident bytes of several trees of processes, under the keys of their first processes."""

    def measure() -> list[int]:
        return [resident_bytes(pid) for pid in pids.values()]

    return dict(zip(pids, await _in_thread(measure), strict=True))


async def exceeds(pid: int, limit: int) -> int:
    """Wait until a process and its descendants hold more than `limit` bytes; returns how many."""
    while True:
        used = await _in_thread(partial(resident_bytes, pid))
        if used > limit:  # what processes share counts once for each: look again
            used = await _in_thread(partial(proportional_bytes, pid))
        if used > limit:
            return used
        await trio.sleep(NEAR_SECONDS if used > limit // 2 else WATCH_SECONDS)


async def _in_thread(measure: Callable[[], _Measured]) -> _Measured:
    # A tree of many processes takes milliseconds to walk through.
    try:
        return await trio.to_thread.run_sync(measure)
    except RuntimeError:  # the user may have no more threads: better late than not at all
        return measure()


def tree(pid: int | None) -> Iterator[int]:
    """The process and its descendants."""
    todo = [] if pid is None else [pid]
    while todo:
        current = todo.pop()
        yield current
        with suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                with suppress(OSError):  # it may end meanwhile
                    todo += map(int, (thread / "children").read_text().split())


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        return _resident(pid)
    except OSError:
        pass
    return 0
