"""Status: the bodies of `GET /agents` and `GET /agent/{name}`, as values.

The API, its documentation and the metrics read them; nothing is decided by them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.agents.pool_types import Stage, WorkerPhase
from gateway.agents.restart import Breaker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.agents.declared import Declared
    from gateway.agents.pool import Pool
    from gateway.agents.pool_types import T
    from gateway.agents.restart import RestartPolicy
    from gateway.config import AgentSettings
    from gateway.errors import GatewayError
    from protocol import Ready


class AgentState(StrEnum):
    """What would become of a request that came now."""

    COLD = "cold"
    """It would start the first worker, as a probe if the breaker was open."""
    STARTING = "starting"
    """It would wait for a worker that is starting."""
    READY = "ready"
    BUSY = "busy"
    """It would wait for a worker to have room."""
    BACKOFF = "backoff"
    """It would wait until the next worker may be started."""
    OPEN = "open"
    """It would be refused: the circuit breaker is open."""
    DRAINING = "draining"
    """It would be refused: the gateway is ending."""
    AWAY = "away"
    """It would be refused: no host of the fleet has the agent."""

    @property
    def can_serve(self) -> bool:
        """Whether a request would be admitted and given to a worker now or soon."""
        return self not in _NOT_NOW


_NOT_NOW = frozenset({AgentState.DRAINING, AgentState.OPEN, AgentState.BACKOFF, AgentState.AWAY})


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """One worker. `age` is in seconds, `memory` in resident bytes of its whole process tree."""

    pid: int | None
    state: str
    age: float
    served: int
    in_flight: int
    capacity: int
    memory: int


class Limits(Struct, frozen=True, kw_only=True):
    """How many workers there may be, and how many requests may wait for them."""

    max_workers: int
    queue: int


class LastFailure(Struct, frozen=True, kw_only=True):
    """The last worker that failed; `at` is a Unix time in seconds. Where there are keys, `message`
    quotes nothing of an answer, which may have been for another caller."""

    message: str
    at: float
    pid: int | None
    setting: str | None = None
    """The path of a setting that would help, below the agent's table."""


class LimitMet(Struct, frozen=True, kw_only=True):
    """The last limit of the sandbox that a worker seems to have met, and the setting that moves it.

    `at` is a Unix time in seconds. `message` is what the caller was told: the agent's own words. It
    is empty where there are keys, since it may quote what another caller has sent.
    """

    limit: str
    setting: str
    message: str
    at: float

    @classmethod
    def of(cls, error: GatewayError, at: float) -> LimitMet | None:
        """What an error says of a limit, if anything."""
        details = error.details
        if "limit" not in details:
            return None
        return cls(limit=details["limit"], setting=details["setting"], message=error.message, at=at)


def setting_for(error: GatewayError) -> str | None:
    """The path of the setting whose limit or clock an error tells of, below an agent's table."""
    named = error.details.get("setting")
    clock = error.details.get("clock")
    return named or (None if clock is None else f"clocks.{clock}")


class HostSummary(Struct, frozen=True, kw_only=True):
    """One host of an agent, as the front of a fleet knows it by its beats."""

    name: str
    id: str
    """Of the process: a host that is started again has another."""
    state: AgentState
    draining: bool
    version: str
    """Of agent-gateway: anything that the host has said, of a bounded length."""
    capacity: int
    """Requests that its workers, all that there may be, can have at a time."""
    in_flight: int
    waiting: int
    given: int
    """Of `in_flight` and `waiting`, those of this front."""


class HostStatus(HostSummary, frozen=True, kw_only=True):
    """One host in the status of an agent, for which it is asked."""

    answered: bool
    """Whether it has told of its workers just now."""


class AgentSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent in the list of all. `handlers` is None until a worker has spoken the handshake."""

    name: str
    description: str | None
    handlers: tuple[str, ...] | None
    state: AgentState
    in_flight: int
    waiting: int
    failures: int
    workers: int
    hosts: list[HostSummary] | None = None
    """Where it is; None: in this process alone, or it was not asked for."""
    more_hosts: int = 0
    """How many hosts are left out of `hosts`: the agent's own status has all."""


class AgentStatus(Struct, frozen=True, kw_only=True):
    """Everything about an agent; `started` counts the workers that were ever started.

    What a worker declares (`protocol.Ready`) is empty until one has spoken the handshake.
    """

    name: str
    description: str | None
    metadata: msgspec.Raw
    handlers: tuple[str, ...] | None
    input: msgspec.Raw | None
    output: msgspec.Raw | None
    input_unchecked: str | None
    """Why inputs are not checked against `input`, where that cannot be used."""
    modes: tuple[str, ...]
    tools: bool
    asks: bool
    state: AgentState
    workers: list[WorkerStatus]
    limits: Limits
    waiting: int
    in_flight: int
    started: int
    failures: int
    last_failure: LastFailure | None
    last_limit: LimitMet | None
    sandbox: dict[str, Any]
    services: dict[str, Any] = {}
    """For each service, by name, what was decided of the requests to it: counts, bytes, tokens."""
    network: dict[str, Any] = {}
    """What was decided of the connections to the hosts of `sandbox.network`."""


def agent_state(pool: Pool[T], restart: RestartPolicy, now: float) -> AgentState:
    """The state that follows from the pool's and the breaker's."""
    if pool.stage is not Stage.SERVING:
        return AgentState.DRAINING
    alive = [worker for worker in pool.workers if worker.alive]
    if not alive:
        if restart.breaker(now) is Breaker.OPEN:
            return AgentState.OPEN
        # After a crash a start may have to wait for a moment, too, but a request is served.
        waits = restart.failing and now < restart.start_at
        return AgentState.BACKOFF if waits else AgentState.COLD
    if any(worker.can_take and worker.phase is WorkerPhase.READY for worker in alive):
        return AgentState.READY
    starting = all(worker.idle and worker.phase is not WorkerPhase.READY for worker in alive)
    return AgentState.STARTING if starting else AgentState.BUSY


def worker_statuses(
    pool: Pool[T], pids: Mapping[int, int | None], memory: Mapping[int, int], now: float
) -> list[WorkerStatus]:
    """The workers' entries in the status of their agent. `pids` and `memory` are by their ids."""
    return [
        WorkerStatus(
            pid=pids[worker.id],
            state=worker.phase.value if worker.idle else f"{worker.phase.value}, busy",
            age=round(now - worker.started_at, 3),
            served=worker.served,
            in_flight=worker.in_flight,
            capacity=worker.capacity,
            memory=memory.get(worker.id, 0),
        )
        for worker in pool.workers
    ]


def summarize(
    name: str,
    settings: AgentSettings,
    ready: Ready | None,
    *,
    pool: Pool[T],
    restart: RestartPolicy,
    now: float,
) -> AgentSummary:
    """The summary of an agent; `ready` is what its last worker has declared, if any did."""
    return AgentSummary(
        name=name,
        description=settings.description or (None if ready is None else ready.description),
        handlers=None if ready is None else ready.handlers,
        state=agent_state(pool, restart, now),
        in_flight=pool.in_flight,
        waiting=pool.waiting,
        failures=restart.total_failures,
        workers=len(pool.workers),
    )


def describe(
    summary: AgentSummary,
    settings: AgentSettings,
    declared: Declared,
    *,
    workers: list[WorkerStatus],
    started: int,
    last_failure: LastFailure | None,
    last_limit: LimitMet | None,
    sandbox: dict[str, Any],
    traffic: dict[str, Any],
) -> AgentStatus:
    """The status of an agent, from its summary and what that leaves out.

    `sandbox` and `traffic` are as its launcher tells them.
    """
    ready = declared.ready
    return AgentStatus(
        name=summary.name,
        description=summary.description,
        metadata=msgspec.Raw(b"{}" if ready is None else ready.metadata),
        handlers=summary.handlers,
        input=None if ready is None or ready.input is None else msgspec.Raw(ready.input),
        output=None if ready is None or ready.output is None else msgspec.Raw(ready.output),
        input_unchecked=None if declared.inputs is None else declared.inputs.unusable,
        modes=() if ready is None else ready.modes,
        tools=ready is not None and ready.tools,
        asks=ready is not None and ready.asks,
        state=summary.state,
        workers=workers,
        limits=Limits(max_workers=settings.workers.max, queue=settings.queue),
        waiting=summary.waiting,
        in_flight=summary.in_flight,
        started=started,
        failures=summary.failures,
        last_failure=last_failure,
        last_limit=last_limit,
        sandbox=sandbox,
        services=traffic.get("services", {}),
        network=traffic.get("network", {}),
    )
