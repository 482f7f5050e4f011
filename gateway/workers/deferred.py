"""A worker that is spawned when it is known whom it works for.

Where each conversation has a folder of its own, a process can only be started once its conversation
is known. To the supervisor, a `DeferredWorker` is one that runs and has not spoken yet: it is given
one request, as such a worker is, and starts with that.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway.errors import WorkerCrashed
from gateway.workers.events import Ended, Reason, Spawned
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Clocks
    from gateway.exchange import Exchange
    from gateway.sandbox.launch import Launcher
    from gateway.workers.events import WorkerEvent


class DeferredWorker:
    """As `workers.worker.Worker`. Reports `Spawned` before there is a process."""

    def __init__(
        self,
        worker_id: int,
        agent: str,
        launcher: Launcher,
        report: Callable[[int, WorkerEvent], None],
        *,
        clocks: Clocks,
        new_worker: Callable[..., Worker] = Worker,
    ) -> None:
        self.id = worker_id
        self._report = report
        self._first: Exchange | None = None
        self._reason: Reason | None = None
        self._decided = trio.Event()
        self._worker: Worker | None = None
        self._make = partial(new_worker, worker_id, agent, launcher, self._pass_on, clocks=clocks)

    def __repr__(self) -> str:
        return f"<DeferredWorker {self.id} {self._worker}>"

    @property
    def began_at(self) -> float:
        return math.nan if self._worker is None else self._worker.began_at

    @property
    def pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    @property
    def mark(self) -> str | None:
        return None if self._worker is None else self._worker.mark

    @property
    def spoke(self) -> bool:
        return self._worker is not None and self._worker.spoke

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        first = () if self._first is None else (self._first,)
        return first if self._worker is None else (*first, *self._worker.exchanges)

    def has_read(self, exchange: Exchange) -> bool:
        """As `gateway.exchange.Carrier.has_read`."""
        return self._worker is not None and self._worker.has_read(exchange)

    def catch_up(self) -> None:
        """As `gateway.exchange.Carrier.catch_up`."""
        if self._worker is not None:
            self._worker.catch_up()

    def send(self, exchange: Exchange) -> None:
        """Send a request to the worker; the first one starts it."""
        if self._worker is not None and self._first is None:
            self._hand_on(self._worker, exchange)
        else:
            assert self._first is None, f"{self} was given a second request before it has spoken"
            self._first = exchange
            self._decided.set()

    def cancel(self, exchange: Exchange) -> None:
        """As `Worker.cancel`. A worker that is not there yet does not start for it."""
        if exchange is not self._first and self._worker is not None:
            self._worker.cancel(exchange)
        elif exchange is self._first:
            self.end(Reason.ASKED)

    def end(self, reason: Reason) -> None:
        """Make the worker end. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._decided.set()
            if self._worker is not None:
                self._worker.end(reason)

    async def run(self) -> None:
        """Wait for the first request, and return when the worker's process has been reaped."""
        self._report(self.id, Spawned())
        await self._decided.wait()
        first = self._first
        if first is None or self._reason is not None:
            lost = self.exchanges
            self._first = None
            error = WorkerCrashed("the worker was ended before it was started")
            self._report(self.id, Ended(self._reason or Reason.ASKED, error, lost, lost))
            return
        self._worker = self._make(conversation=first.conversation)
        await self._worker.run()

    def _pass_on(self, worker_id: int, event: WorkerEvent) -> None:
        """What the worker reports, but for its start, which has been reported before."""
        first = self._first
        if isinstance(event, Spawned):
            assert self._worker is not None
            assert first is not None
            if self._reason is None:
                self._first = None
                self._hand_on(self._worker, first)
            return
        if isinstance(event, Ended) and first is not None:
            self._first = None
            # A conversation whose folder is too large, say, is the trouble of its requests alone.
            unread = () if event.reason is Reason.NOT_STARTED else (first,)
            event = Ended(event.reason, event.error, lost=(first,), unread=unread)
        self._report(worker_id, event)

    def _hand_on(self, worker: Worker, exchange: Exchange) -> None:
        exchange.carrier = worker
        worker.send(exchange)
