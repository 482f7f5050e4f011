"""The values that a pool works with: its view of a worker and of a request, plans and refusals.

A worker's life in the pool:

    SPAWNING ── spawned ──> STARTING ── first line ──> READY ──┐
        └────────┬─────────────┴──────────────┬────────────────┤ retire
                 │                            │                v
                gone <── STOPPING <── no request left ───── RETIRING

A STARTING worker is given one request, because a worker without the handshake says nothing until it
has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.exchange import Session


class WorkerPhase(Enum):
    SPAWNING = "spawning"
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    STOPPING = "stopping"


# Not a set: to look into one, the members are hashed, which an Enum does in Python.
_ALIVE = (WorkerPhase.SPAWNING, WorkerPhase.STARTING, WorkerPhase.READY)
_COMING = (WorkerPhase.SPAWNING, WorkerPhase.STARTING)


class Stage(Enum):
    """Where an agent is between its start and its end. Stages only go forward."""

    SERVING = "serving"
    DRAINING = "draining"
    """Nothing is admitted any more; what was admitted is served."""
    STOPPING = "stopping"
    """Nothing is started or handed out any more; each worker is stopped once it is idle."""


class Ticket(Protocol):
    """A request, as far as the pool is concerned. Compared by identity."""

    @property
    def conversation(self) -> str | None: ...

    session: Session | None
    """Set by the pool when it hands the request out, under a session mode other than "none"."""

    worker_id: int | None
    """The worker that the pool has handed the request to; None while it waits and after its end.
    Only the pool sets it."""

    def __hash__(self) -> int: ...


T = TypeVar("T", bound=Ticket)


@dataclass(slots=True, eq=False)
class PoolWorker(Generic[T]):
    """One worker, as far as the pool is concerned. Times are seconds of the pool's clock."""

    id: int
    started_at: float
    idle_since: float
    quota: float
    """How many more requests the worker may be given; infinity without `max_requests`."""
    expires_at: float
    phase: WorkerPhase = WorkerPhase.SPAWNING
    capacity: int = 1
    in_flight: int = 0
    """How many requests the worker has. Which ones, the requests know (`Ticket.worker_id`)."""
    served: int = 0
    reads_silently: bool = False
    """Whether the worker reads requests and has not spoken: it is one without the handshake."""
    paused: bool = False
    """Whether its output is not being read, because the only client that it works for is slower.
    Meanwhile the worker is given nothing else."""
    bound_to: Hashable | None = None
    """The conversation that owns the worker, under session "exclusive"."""
    failed: bool = False
    """Whether it has ended as somebody's fault, rather than because it was asked to."""
    conversed_at: float = -math.inf
    """When the last request of a conversation ended here, under any session but "none"."""

    @property
    def can_take(self) -> bool:
        """Whether the worker can be given one more request now."""
        return (
            (self.phase is WorkerPhase.READY or self.phase is WorkerPhase.STARTING)
            and self.in_flight < self.capacity
            and not self.paused
        )

    @property
    def idle(self) -> bool:
        return not self.in_flight

    @property
    def alive(self) -> bool:
        """Whether the worker can still be given requests, now or later."""
        return self.phase in _ALIVE

    @property
    def coming(self) -> bool:
        """Whether the worker is not ready yet."""
        return self.phase in _COMING

    def __repr__(self) -> str:
        return f"<worker {self.id} {self.phase.value} {self.in_flight}/{self.capacity}>"


def preference(worker: PoolWorker[T], conversations: int = 0) -> tuple[bool, int, int, bool, float]:
    """The order in which workers are preferred: ready ones first, then the least loaded.

    Of these the one with the fewest `conversations`, where one more is to be placed. Among equals
    the one used last is preferred, so that the others can be stopped for being idle; of those never
    used the oldest, because a worker may say `ready` and go on loading.
    """
    used = worker.served > 0
    starting = worker.phase is WorkerPhase.STARTING
    age = -worker.idle_since if used else worker.started_at
    return (starting, worker.in_flight, conversations, not used, age)


@dataclass(slots=True)
class Plan(Generic[T]):
    """What the pool has decided and its owner is to carry out.

    `assign` pairs requests with the ids of their workers, `start` and `stop` are ids of workers,
    and `wake_at` is when to call `tick` next (infinity: never).
    """

    assign: list[tuple[T, int]] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    unavailable: list[T] = field(default_factory=list)
    """Requests that waited in vain: the circuit breaker has opened and no worker is left."""
    wake_at: float = math.inf


class RefusedError(Exception):
    """A request was not admitted. A retry before `retry_after` seconds have passed is in vain."""

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class QueueFullError(RefusedError):
    """As many requests wait as may wait."""


class CircuitOpenError(RefusedError):
    """Restarts were given up for now, and no worker is alive."""


class NotServingError(RefusedError):
    """The agent drains or stops, and admits nothing more."""
