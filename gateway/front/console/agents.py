"""Agents as the console shows them, and what has changed since a reader has seen them.

`Glances.look` makes the views of one moment. What has not changed is the very object that it was
the time before, down to the single worker, so that readers find out what is new to them by
comparing identities: thousands of workers at rest cost each of them next to nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from gateway import clock
from gateway.agents.pool_types import WorkerPhase
from gateway.agents.status import LastFailure, LimitMet
from gateway.observe.harmless import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.agents.agent import Agent
    from gateway.agents.pool_types import PoolWorker

MOST_DESCRIPTION = 500
MOST_MESSAGE = 2000
MOST_HANDLERS = 100

SECONDS_APART = 0.05
"""By which the beginning of a worker on the clock of the day may move and be the same."""


class WorkerView(Struct, frozen=True, kw_only=True):
    """WORKER, as the README has it."""

    pid: int | None
    state: str
    started: float
    served: int
    in_flight: int
    capacity: int
    memory: int | None


class AgentView(Struct, frozen=True, kw_only=True):
    """AGENT, as the README has it, with all members."""

    name: str
    description: str | None
    handlers: tuple[str, ...] | None
    state: str
    waiting: int
    queue: int
    in_flight: int
    max_workers: int
    started: int
    failures: int
    failure: LastFailure | None
    limit: LimitMet | None
    revision: int
    workers: dict[str, WorkerView]


_MEMBERS = tuple(name for name in AgentView.__struct_fields__ if name not in {"name", "workers"})


class Glances:
    """Of the agents of one gateway."""

    def __init__(self) -> None:
        self._last: dict[str, AgentView] = {}
        self._details: dict[str, tuple[object, ...]] = {}
        self._revision = 0

    def __repr__(self) -> str:
        return f"<Glances at {len(self._last)} agents>"

    def look(
        self, agents: Iterable[Agent], memory: Mapping[tuple[str, int], int]
    ) -> Mapping[str, AgentView]:
        """The views by name. `memory` is by the agent's name and the worker's id."""
        now, day = clock.now(), time.time()
        views = {}
        for agent in agents:
            view = self._view(agent, memory, day - now)
            last = self._last.get(view.name)
            views[view.name] = last if last is not None and _is_same(last, view) else view
        for gone in self._details.keys() - views.keys():
            del self._details[gone]
        self._last = views
        return views

    def _view(
        self, agent: Agent, memory: Mapping[tuple[str, int], int], offset: float
    ) -> AgentView:
        summary = agent.summary
        last = self._last.get(agent.name)
        known = {} if last is None else last.workers
        pids = agent.pids()
        workers = {}
        for worker in agent.workers:
            key = str(worker.id)
            used = memory.get((agent.name, worker.id))
            workers[key] = _worker(worker, pids.get(worker.id), used, offset, known.get(key))
        failure = agent.last_failure
        return AgentView(
            name=summary.name,
            description=_cut(summary.description, MOST_DESCRIPTION),
            handlers=None if summary.handlers is None else summary.handlers[:MOST_HANDLERS],
            state=summary.state.value,
            waiting=summary.waiting,
            queue=agent.settings.queue,
            in_flight=summary.in_flight,
            max_workers=agent.settings.workers.max,
            started=agent.started,
            failures=summary.failures,
            failure=None if failure is None else _with_cut_message(failure),
            limit=None if agent.last_limit is None else _with_cut_message(agent.last_limit),
            revision=self._revision_of(agent),
            workers=workers,
        )

    def _revision_of(self, agent: Agent) -> int:
        """Another number when the agent's details are other ones than before."""
        ready = agent.declared.ready
        known = self._details.get(agent.name)
        # Compared by identity: both are never changed, and are kept here while they are compared.
        if known is None or known[0] is not agent.settings or known[1] is not ready:
            self._revision += 1
            known = self._details[agent.name] = (agent.settings, ready, self._revision)
        revision = known[2]
        assert isinstance(revision, int)
        return revision


def _worker(
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
        state=_state(worker),
        started=round(started, 3),
        served=worker.served,
        in_flight=worker.in_flight,
        capacity=worker.capacity,
        memory=used,
    )
    return last if view == last else view


def _state(worker: PoolWorker[Any]) -> str:
    match worker.phase:
        case WorkerPhase.READY:
            return "ready" if worker.idle else "busy"
        case WorkerPhase.SPAWNING | WorkerPhase.STARTING:
            return "starting"
        case WorkerPhase.RETIRING:
            return "retiring"
        case WorkerPhase.STOPPING:
            return "failing" if worker.failed else "stopping"


def _is_same(last: AgentView, view: AgentView) -> bool:
    return all(getattr(last, name) == getattr(view, name) for name in _MEMBERS) and (
        last.workers.keys() == view.workers.keys()
        and all(worker is last.workers[key] for key, worker in view.workers.items())
    )


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else printable(shortened(text, most))


def _with_cut_message(told: Any) -> Any:
    return structs.replace(told, message=_cut(told.message, MOST_MESSAGE))


class SeenAgents:
    """What one reader has been told."""

    def __init__(self, may_call: Callable[[str], bool], *, keys: bool) -> None:
        self._may_call = may_call
        self._keys = keys
        self._told: dict[str, AgentView] = {}

    def news(self, views: Mapping[str, AgentView]) -> dict[str, Any] | None:
        """What has changed, and is told now: `agents` and `removed`; None for nothing."""
        told = {name: view for name, view in views.items() if self._may_call(name)}
        changed = [
            self._change(self._told.get(name), view)
            for name, view in told.items()
            if self._told.get(name) is not view
        ]
        removed = [name for name in self._told if name not in told]
        self._told = told
        if not (changed or removed):
            return None
        return {"agents": changed, "removed": removed}

    def _change(self, last: AgentView | None, view: AgentView) -> dict[str, Any]:
        names = [
            name for name in _MEMBERS if last is None or getattr(last, name) != getattr(view, name)
        ]
        change: dict[str, Any] = {"name": view.name}
        change |= {name: getattr(view, name) for name in names}
        if self._keys and change.get("limit") is not None:
            # It quotes what the agent told the caller that has met the limit.
            change["limit"] = structs.replace(change["limit"], message="")
        before: dict[str, WorkerView] = {} if last is None else last.workers
        workers: dict[str, WorkerView | None] = {
            key: worker for key, worker in view.workers.items() if before.get(key) is not worker
        }
        workers |= {key: None for key in before if key not in view.workers}
        if workers or last is None:
            change["workers"] = workers
        return change
