"""Daemon threads for plain functions: one that never returns cannot keep the process from exiting.

Knows neither requests nor the event loop. Its owner bounds how many jobs run at the same time, and
says when one is done.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Threads:
    """Runs each job at once, in a thread that waits for one or in a new one.

    To be used from one thread. anyio's own worker threads are no daemons, and hand every result
    back through the event loop.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle = 0
        self._started = 0

    def __repr__(self) -> str:
        return f"<Threads {self._started} started, {self._idle} idle>"

    def run(self, job: Callable[[], object]) -> None:
        """Run `job`, which must not raise, and may not wait for another job."""
        if self._idle:
            self._idle -= 1
        else:
            self._started += 1
            Thread(target=self._work, name=f"handler-{self._started}", daemon=True).start()
        self._jobs.put(job)

    def job_done(self) -> None:
        """A job has come to its end: its thread will take the next."""
        self._idle += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
