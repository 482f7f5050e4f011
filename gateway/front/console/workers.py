"""The workers of an agent that somebody has opened in the console, one by one.

What has not changed of a worker is the very object that it was the time before: so readers find out
what is new to them by comparing identities, and thousands of workers at rest cost each of them next
to nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway import clock
from gateway.agents.pool_types import WorkerPhase
from gateway.front.slices import Slices, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.agents.agent import Agent
    from gateway.agents.pool_types import PoolWorker

SECONDS_APART = 0.05
"""By which the beginning of a worker on the clock of the day may move and be the same."""

MOST_WORKERS = 500
"""That are told of in one event."""

STATES = {
    "b": "busy",
    "r": "ready",
    "s": "starting",
    "t": "retiring",
    "e": "stopping",
    "f": "failing",
}
"""By the letters of `AgentView.cells`."""


class WorkerView(Struct, frozen=True, kw_only=True, array_like=True):
    """WORKER, as the README has it: its members in this order."""

    pid: int | None
    state: str
    started: float
    served: int
    in_flight: int
    capacity: int
    memory: int | None


def letter_of(worker: PoolWorker[Any]) -> str:
    """The letter of a worker's state."""
    phase = worker.phase
    if phase is WorkerPhase.READY:
        return "b" if worker.in_flight else "r"
    if phase is WorkerPhase.RETIRING:
        return "t"
    if phase is WorkerPhase.STOPPING:
        return "f" if worker.failed else "e"
    return "s"


class WorkerGlances:
    """Of the workers of agents, by the agents' names."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, WorkerView]] = {}

    def __repr__(self) -> str:
        return f"<WorkerGlances of {len(self._last)} agents>"

    async def look(
        self,
        agents: Mapping[str, Agent | None],
        memory: Mapping[tuple[str, int], int],
    ) -> Mapping[str, Mapping[str, WorkerView]]:
        """The views of the workers of these agents, by the workers' ids. None is an agent that is
        not there. `memory` is by the agent's name and the worker's id."""
        self._last = {
            name: {} if agent is None else await self._look_at(agent, memory)
            for name, agent in agents.items()
        }
        return self._last

    async def _look_at(
        self, agent: Agent, memory: Mapping[tuple[str, int], int]
    ) -> Mapping[str, WorkerView]:
        slices = Slices()
        known = self._last.get(agent.name, {})
        offset = time.time() - clock.now()
        pids = agent.pids()
        views = {}
        for worker in agent.workers:
            key = str(worker.id)
            used = memory.get((agent.name, worker.id))
            views[key] = _view(worker, pids.get(worker.id), used, offset, known.get(key))
            await slices.pause()
        return views


def _view(
    worker: PoolWorker[Any],
    pid: int | None,
    used: int | None,
    offset: float,
    last: WorkerView | None,
) -> WorkerView:
    """The view of a worker: `last` if that is what it still is."""
    started = worker.started_at + offset
    if last is not None and abs(last.started - started) < SECONDS_APART:
        started = last.started  # the two clocks drift against one another
    view = WorkerView(
        pid=pid,
        state=STATES[letter_of(worker)],
        started=round(started, 3),
        served=worker.served,
        in_flight=worker.in_flight,
        capacity=worker.capacity,
        memory=used,
    )
    return last if view == last else view


class SeenWorkers:
    """What one reader has been told of the workers of one agent."""

    def __init__(self) -> None:
        self._told: Mapping[str, WorkerView] = {}

    def news(self, views: Mapping[str, WorkerView]) -> Iterator[dict[str, WorkerView | None]]:
        """What has changed, in pieces; None of a worker that is gone."""
        before, self._told = self._told, views
        changed: list[tuple[str, WorkerView | None]] = [
            (key, None) for key in before if key not in views
        ]
        changed += [(key, view) for key, view in views.items() if before.get(key) is not view]
        yield from map(dict, pieces(changed, MOST_WORKERS))
