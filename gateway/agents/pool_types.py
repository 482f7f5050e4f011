"""What a pool writes down: a worker and a request as far as it is concerned, a plan, a refusal.

A worker's life in the pool:

    SPAWNING ── spawned ──> STARTING ── first line ──> READY ──┐
        └────────┬─────────────┴──────────────┬────────────────┤ retire
                 │                            │                v
                gone <── STOPPING <── no request left ───── RETIRING

A STARTING worker is given one request: one without the handshake says nothing until it has one.
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


class Ticket(Protocol):
    """A request, as far as the pool is concerned. Compared by identity."""

    @property
    def conversation(self) -> str | None: ...

    session: Session | None
    """Set when it is assigned, under a session mode other than "none"."""

    def __hash__(self) -> int: ...


T = TypeVar("T", bound=Ticket)


@dataclass(slots=True, eq=False)
class PoolWorker(Generic[T]):
    """One worker, as far as the pool is concerned."""

    id: int
    started_at: float
    idle_since: float
    quota: float
    """How many requests it may be given yet."""
    expires_at: float
    phase: WorkerPhase = WorkerPhase.SPAWNING
    capacity: int = 1
    in_flight: set[T] = field(default_factory=set)
    served: int = 0
    paused: bool = False
    """Its output is held back for a slow client: it is given nothing else meanwhile."""
    bound_to: Hashable | None = None
    """The conversation that owns it, under session "exclusive"."""

    @property
    def can_take(self) -> bool:
        """Whether it can be given one more request now."""
        return (
            (self.phase is WorkerPhase.READY or self.phase is WorkerPhase.STARTING)
            and len(self.in_flight) < self.capacity
            and not self.paused
        )

    @property
    def idle(self) -> bool:
        return not self.in_flight

    @property
    def alive(self) -> bool:
        """Whether it can still be given requests, now or later."""
        return self.phase in _ALIVE

    @property
    def coming(self) -> bool:
        """Whether it is not ready yet."""
        return self.phase in _COMING

    def __repr__(self) -> str:
        return f"<worker {self.id} {self.phase.value} {len(self.in_flight)}/{self.capacity}>"


@dataclass(slots=True)
class Plan(Generic[T]):
    """What is to be done now. `wake_at` is when to call `tick` next; infinity for never."""

    assign: list[tuple[T, int]] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    unavailable: list[T] = field(default_factory=list)
    """These waited, and nothing will come for them: the circuit breaker has opened."""
    wake_at: float = math.inf


class RefusedError(Exception):
    """A request was not admitted; it is retried no sooner than after `retry_after` seconds."""

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class QueueFullError(RefusedError):
    """As many wait as may wait."""


class CircuitOpenError(RefusedError):
    """Restarts were given up for now, and no worker is alive."""
