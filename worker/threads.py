"""Daemon threads for plain functions: a job that never returns cannot keep the process from
exiting.

This module knows neither requests nor the event loop. The owner of the threads bounds how many jobs
run at the same time, and reports the end of each.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Threads:
    """Threads that run each job at once: an idle thread takes it, or else a new one.

    All methods must be called on the same thread. anyio's worker threads would not do: they are not
    daemons, and they pass every result back through the event loop.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle = 0
        self._started = 0

    def __repr__(self) -> str:
        return f"<Threads {self._started} started, {self._idle} idle>"

    def run(self, job: Callable[[], object]) -> None:
        """Run `job`, which must neither raise nor wait for another job."""
        if self._idle:
            self._idle -= 1
        else:
            self._started += 1
            Thread(target=self._work, name=f"handler-{self._started}", daemon=True).start()
        self._jobs.put(job)

    def job_done(self) -> None:
        """Report the end of a job: its thread takes the next one."""
        self._idle += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
