"""What has become of one agent's workers so far, for the metrics: plain values, which only grow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.agents.pool_types import WorkerPhase
from gateway.agents.status import AgentState
from gateway.observe.metrics.distribution import Distribution
from gateway.observe.metrics.readings import AgentReading
from gateway.workers.events import Reason

if TYPE_CHECKING:
    from gateway.agents.pool import Pool
    from gateway.agents.pool_types import PoolWorker, T
    from gateway.config import AgentSettings
    from gateway.sandbox.launch import Launcher
    from gateway.workers.events import Ended

START_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""In seconds: a bare interpreter in its sandbox, and frameworks with a model to load."""

_CLOSED = (Reason.STDOUT_CLOSED, Reason.STDIN_CLOSED)

_EXIT = frozenset({"exit_status", "signal"})
"""Details of an error that tells how a process has exited by itself."""

_STATES = ("spawning", "starting", "idle", "busy", "retiring", "stopping")


class Tally:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._ends = dict.fromkeys(Reason, 0)
        self._start_seconds = Distribution(START_BOUNDS)

    def spoke(self, seconds: float) -> None:
        """A worker has said its first line, so many seconds after its start was begun."""
        self._start_seconds.add(seconds)

    def ended(self, end: Ended) -> None:
        """Nothing more comes of a worker."""
        # The end of a process is mostly seen by its pipes first.
        exited = end.reason in _CLOSED and not _EXIT.isdisjoint(end.error.details)
        self._ends[Reason.EXITED if exited else end.reason] += 1

    def read(
        self,
        name: str,
        settings: AgentSettings,
        state: AgentState,
        pool: Pool[T],
        launcher: Launcher,
    ) -> AgentReading:
        """What the metrics are told of an agent."""
        workers = dict.fromkeys(_STATES, 0)
        for worker in pool.workers:
            workers[_state_of(worker)] += 1
        names = [service.name for service in launcher.services]
        services, network = launcher.meter.read(names, time.time())
        return AgentReading(
            name=name,
            states={each.value: each is state for each in AgentState},
            waiting=pool.waiting,
            queue=settings.queue,
            in_flight=pool.in_flight,
            workers=workers,
            max_workers=settings.workers.max,
            starts=pool.started,
            ends={reason.name.lower(): count for reason, count in self._ends.items()},
            start_seconds=self._start_seconds.copy(),
            services=services,
            network=network,
        )


def _state_of(worker: PoolWorker[T]) -> str:
    if worker.phase is WorkerPhase.READY:
        return "idle" if worker.idle else "busy"
    phase: str = worker.phase.value
    return phase
