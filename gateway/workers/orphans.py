"""Processes that workers leave behind: adopted, killed and reaped.

# Theory of operation

In the strict sandbox a worker's whole process tree ends with it. Without the sandbox, a process
that was forked twice and started its own session survives both the worker and its process group. As
a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) the gateway becomes the parent of such an
orphan and finds it among its children. It reaps all orphans, because nobody else will.

Not every child is a worker's. What started the gateway may have started helpers before
(`sh -c 'helper & exec gateway …'`, `2> >(logger)`), whose descendants are adopted in the same way.
And the first process of a container adopts every orphan in it, also those of `docker exec`. Only a
process that certainly descends from a worker is killed:

- A process with a worker's mark in its environment. Every process inherits that from its parent,
  unless that clears its environment. While the worker lives, its processes are left alone.
- A process without a mark, if nothing but workers can have left it: the gateway is not the first
  process of its PID namespace, and had no living child when it began to adopt.

Children that were there before the gateway are never signalled.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gateway.sandbox.launch import MARK, is_own_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class OrphanKeeper:
    """Ends orphans. `workers` gives the pid and the mark, if any, of each child that is none."""

    def __init__(self, workers: Callable[[], Iterable[tuple[int, str | None]]]) -> None:
        self._workers = workers
        self._helpers: set[int] = set()
        """The children that existed before the gateway and have not been reaped."""
        self._only_workers = False
        """Whether only workers can have left behind an orphan."""

    def __repr__(self) -> str:
        adopts = "workers'" if self._only_workers else "anybody's"
        return f"<OrphanKeeper of {adopts} processes, {len(self._helpers)} helpers>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Become a subreaper, and sweep now and whenever a child ends."""
        self._helpers = set(_children()) - dict(self._workers()).keys()
        self._only_workers = os.getpid() != 1 and not any(map(_is_alive, self._helpers))
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            task_status.started()
            self.sweep()
            async for _ in signals:
                self.sweep()

    def sweep(self) -> None:
        """Kill the orphans of workers that have ended, and reap the orphans that have ended."""
        workers = dict(self._workers())
        living = set(workers.values())
        for pid in _children():
            if pid not in workers:
                if pid not in self._helpers and self._is_left_behind(pid, living):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        self._helpers.discard(pid)  # from now on its pid may be reused

    def _is_left_behind(self, pid: int, living: set[str | None]) -> bool:
        """Whether a child certainly descends from a worker that has ended, or hides which one it is
        from."""
        mark = _mark_of(pid)
        if mark is not None and is_own_mark(mark):
            return mark not in living
        return self._only_workers


def _children() -> list[int]:
    # The kernel lists children by thread: workers belong to the thread that spawned them, and
    # orphans to the first thread; both are the main thread.
    thread = threading.main_thread().native_id
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()]
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _mark_of(pid: int) -> str | None:
    prefix = f"{MARK}=".encode()
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for variable in environ.split(b"\0"):
        if variable.startswith(prefix):
            return variable[len(prefix) :].decode("ascii", "replace")
    return None
