"""How many workers one agent should have: plain functions over the pool's state.

Three wishes are added up. The *queue* wants a worker for everything that could be given to one and
that no worker, running or starting, will have room for: a request that waits for the worker of its
conversation is not counted, and of a conversation that has none yet one request is. The *minimum*
wants `workers.min` alive. The *spares* want `workers.spare` idle ahead of need. The first cannot
wait; the other two can, while some worker is ready: a new interpreter would take the processor from
the request that is being answered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from gateway.agents.pool_types import PoolWorker, T, WorkerPhase

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config import Workers


_READY = WorkerPhase.READY


class Shortage(NamedTuple):
    """How many workers to start: `now`, and `soon` with those that nobody waits for (>= now)."""

    now: int
    soon: int


def shortage(
    alive: Collection[PoolWorker[T]],
    wanted: Workers,
    *,
    waiting: int,
    expected_capacity: int,
    exclusive: bool,
) -> Shortage:
    """Compare what is alive with what is wanted.

    `alive` are the workers that are. `waiting` counts what waits for any worker
    (`Waiting.independent`). `expected_capacity` is how many of these a worker that has not said so
    yet is thought to take at a time. `exclusive` is the session mode: there, only a worker without
    a conversation has room.
    """
    idle = coming = room = 0
    for worker in alive:
        if not worker.in_flight and worker.bound_to is None:
            idle += 1
        if worker.phase is not _READY:
            coming += 1
            room += max(0, expected_capacity - worker.in_flight)
    if exclusive:
        room = idle
    for_queue = math.ceil(max(0, waiting - room) / expected_capacity)
    for_min = wanted.min - len(alive)
    for_spare = wanted.spare - max(0, idle - waiting)
    now = max(for_min, for_queue) if coming == len(alive) else for_queue
    return Shortage(now, max(now, for_min, for_spare))


def surplus(alive: int, idle: int, wanted: Workers) -> int:
    """How many of the idle workers are not needed, for the minimum or as spares."""
    return min(alive - wanted.min, idle - wanted.spare)
