"""A worker as its supervisor sees it. `workers.worker.Worker` is one; tests have others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.exchange import Carrier

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Clocks
    from gateway.exchange import Exchange
    from gateway.sandbox.launch import Launcher
    from gateway.workers.events import Reason, WorkerEvent


class SupervisedWorker(Carrier, Protocol):
    """One worker, from before its start to its reaping."""

    @property
    def began_at(self) -> float:
        """The running time at which its start was begun; known once it has spoken."""

    @property
    def pid(self) -> int | None:
        """None before the worker was spawned, and if it could not be."""

    @property
    def mark(self) -> str | None:
        """What every process of the worker carries in its environment, if anything."""

    @property
    def spoke(self) -> bool:
        """Whether the worker's first line has come."""

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The requests that the worker still owes an answer to, oldest first."""

    def send(self, exchange: Exchange) -> None:
        """Send a request to the worker. Its end is never reported from within this call."""

    def cancel(self, exchange: Exchange) -> None:
        """Tell the worker that nobody waits for a request, which has ended, any more."""

    def end(self, reason: Reason) -> None:
        """Make the worker end. The first reason counts."""

    async def run(self) -> None:
        """Spawn the worker, and return when its process has ended and was reaped."""


class WorkerFactory(Protocol):
    """Makes a worker that is not started yet; `report` takes its id and each of its events."""

    def __call__(
        self,
        worker_id: int,
        agent: str,
        launcher: Launcher,
        report: Callable[[int, WorkerEvent], None],
        *,
        clocks: Clocks,
    ) -> SupervisedWorker: ...
