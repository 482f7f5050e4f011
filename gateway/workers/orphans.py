"""Processes that workers leave behind: adopted, ended and reaped.

In the strict sandbox a worker's whole tree ends with it. Without one, a process that a worker
forked twice and gave a session of its own survives it and its process group. As a child subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER) the gateway becomes the parent of such a process when its own is
gone, and finds it among its children. As the first process of a container it is so anyway, and
nobody else would reap what ends there.

Which worker an orphan is of is told by a mark in its environment. One whose worker lives is left
alone; one without a mark has taken pains to hide, and is ended.
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

from gateway.sandbox.launch import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class OrphanKeeper:
    """`workers` gives the pid and the mark, if any, of every process that has another keeper."""

    def __init__(self, workers: Callable[[], Iterable[tuple[int, str | None]]]) -> None:
        self._workers = workers

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt orphans, and look at them whenever a child ends."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            task_status.started()
            async for _ in signals:
                self.sweep()

    def sweep(self) -> None:
        """End the orphans of workers that have ended, and reap those that have ended themselves."""
        workers = dict(self._workers())
        marks = set(workers.values()) - {None}
        for pid in _children():
            if pid not in workers:
                if _mark_of(pid) not in marks:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    # Of the thread that spawns: children belong to threads, and orphans go to the first of them.
    thread = threading.main_thread().native_id
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()]
    except OSError:
        return []


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
