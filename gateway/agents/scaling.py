"""How many workers one agent should have: plain functions over the pool's state.

Three wishes are added up. The *queue* wants a worker for every request that no worker, running or
starting, will have room for. The *minimum* wants `workers.min` alive. The *spares* want
`workers.spare` idle ahead of need. The first cannot wait; the other two can, while some worker is
ready: a new interpreter would take the processor from the request that is being answered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from gateway.agents.pool_types import PoolWorker, T, WorkerPhase

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config import Workers


class Shortage(NamedTuple):
    """How many workers to start: `now`, and `soon` with those that nobody waits for (>= now)."""

    now: int
    soon: int


def shortage(
    workers: Collection[PoolWorker[T]],
    wanted: Workers,
    *,
    waiting: int,
    expected_capacity: int,
    exclusive: bool,
) -> Shortage:
    """Compare what is alive with what is wanted.

    `waiting` counts requests, or under session "exclusive" (`exclusive`) the conversations among
    them that have no worker yet. `expected_capacity` is how many requests at a time a worker that
    has not said so yet is thought to take.
    """
    alive = [worker for worker in workers if worker.alive]
    unbound_idle = sum(worker.idle for worker in alive if worker.bound_to is None)
    if exclusive:
        expected_capacity = 1
        room = unbound_idle
    else:
        room = sum(
            max(0, expected_capacity - worker.in_flight) for worker in alive if worker.coming
        )
    for_queue = math.ceil(max(0, waiting - room) / expected_capacity)
    for_min = wanted.min - len(alive)
    for_spare = wanted.spare - max(0, unbound_idle - waiting)
    ready = any(worker.phase is WorkerPhase.READY for worker in alive)
    now = for_queue if ready else max(for_min, for_queue)
    return Shortage(now, max(now, for_min, for_spare))


def floor(workers: Collection[PoolWorker[T]], wanted: Workers) -> int:
    """How many workers are kept although some of them are idle."""
    busy = sum(worker.alive and not worker.idle for worker in workers)
    return max(wanted.min, busy + wanted.spare)
