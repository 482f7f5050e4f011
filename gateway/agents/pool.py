"""Who gets which worker, and how many workers there are: one agent's pool, as plain state.

Every method changes the state and returns a `Plan`: what to hand over, what to start, what to stop
and when to look again. The supervisor carries it out. Nothing here waits, starts a process or reads
a clock: the time is passed in.

All that are not gone count against `workers.max`. Requests wait first in, first out; one that waits
for a worker of its own (a conversation) does not hold up those behind it.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic

from gateway.agents.pool_types import (
    CircuitOpenError,
    Plan,
    PoolWorker,
    QueueFullError,
    RefusedError,
    T,
    Ticket,
    WorkerPhase,
)
from gateway.agents.restart import Breaker, RestartPolicy
from gateway.config import seconds

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from gateway.config import AgentSettings

_REMEMBERED_CONVERSATIONS = 10_000
"""Conversations whose worker is remembered, so that a lost state can be told from a new one: about
1 MiB per agent at the most."""

SPARE_DELAY = 0.05
"""Seconds from the need for a spare worker to its start. What makes the need is a request, or a
crash that the next request follows, and an interpreter that starts at that moment would take the
processor from it."""

_SPREAD = 0.1
"""`max_requests` and `max_age` are shortened by up to this share, so that workers that started
together are not all replaced together."""


__all__ = [
    "CircuitOpenError",
    "Plan",
    "Pool",
    "PoolWorker",
    "QueueFullError",
    "RefusedError",
    "Ticket",
    "WorkerPhase",
]


class Pool(Generic[T]):
    """The workers and the waiting requests of one agent."""

    def __init__(
        self,
        settings: AgentSettings,
        restart: RestartPolicy,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._restart = restart
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._workers: dict[int, PoolWorker[T]] = {}
        self._queue: dict[T, None] = {}
        self._holder: dict[T, PoolWorker[T]] = {}
        self._conversations: OrderedDict[Hashable, int] = OrderedDict()
        self._expected_capacity = 1
        self._spare_due = math.inf
        self._last_id = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Pool {list(self._workers.values())}, {len(self._queue)} waiting, {self._restart}>"

    @property
    def workers(self) -> tuple[PoolWorker[T], ...]:
        return tuple(self._workers.values())

    @property
    def queue(self) -> tuple[T, ...]:
        """What waits, first in first."""
        return tuple(self._queue)

    def is_waiting(self, ticket: T) -> bool:
        return ticket in self._queue

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def started(self) -> int:
        """How many workers were started in all."""
        return self._last_id

    @property
    def in_flight(self) -> int:
        return len(self._holder)

    @property
    def limit(self) -> int:
        """How many processes there may be."""
        return self._settings.workers.max

    # What happens to requests

    def submit(self, ticket: T, now: float) -> Plan[T]:
        """Admit a request. Raises QueueFullError or CircuitOpenError; nothing changed then."""
        # With the breaker half open, one request is the probe: more would only be lost with it.
        on_trial = self._restart.breaker(now) is Breaker.HALF_OPEN
        if (on_trial and self._queue) or self._hopeless(now):
            raise CircuitOpenError(retry_after=max(self._restart.start_at - now, 1.0))
        if not self._queue:
            worker = self._free_for(ticket, now)
            if worker is not None:
                self._give(ticket, worker)
                # Nothing else follows from it, unless it has changed how many are wanted.
                more = self._settings.workers.spare or worker.phase is WorkerPhase.RETIRING
                plan: Plan[T] = self._settle(now) if more else Plan()
                plan.assign.append((ticket, worker.id))
                return plan
        # One may always wait where there is no worker: nothing else would start the first.
        most = self._settings.queue if self._workers else max(self._settings.queue, 1)
        if len(self._queue) >= most:
            raise QueueFullError(retry_after=1.0)
        self._queue[ticket] = None
        return self._settle(now)

    def finish(self, ticket: T, now: float, *, served: bool) -> Plan[T]:
        """A request has ended, wherever it was. `served`: its worker answered it."""
        self._queue.pop(ticket, None)
        worker = self._holder.pop(ticket, None)
        if worker is not None:
            worker.in_flight.discard(ticket)
            worker.idle_since = now
            # The first answer after a failure lifts the delay of what is still to be started.
            recovers = served and self._restart.failing
            if served:
                worker.served += 1
                self._restart.succeeded()
            settled = not self._queue and self._at_minimum and not recovers
            if worker.phase is WorkerPhase.READY and settled:
                return Plan()
        return self._settle(now)

    # What happens to workers

    def spawned(self, worker_id: int, now: float) -> Plan[T]:
        """Its process runs, and can be written to."""
        worker = self._workers[worker_id]
        if worker.phase is WorkerPhase.SPAWNING:  # else it was stopped meanwhile
            worker.phase = WorkerPhase.STARTING
        return self._settle(now)

    def ready(self, worker_id: int, capacity: int, now: float) -> Plan[T]:
        """Its first line has come; it takes `capacity` requests at a time."""
        worker = self._workers[worker_id]
        worker.capacity = min(capacity, self._settings.concurrency)
        self._expected_capacity = worker.capacity
        if worker.phase is WorkerPhase.STARTING:
            worker.phase = WorkerPhase.READY
        return self._settle(now)

    def pause(self, worker_id: int, *, paused: bool, now: float) -> Plan[T]:
        """Its output is held back, or is not any more."""
        self._workers[worker_id].paused = paused
        return self._settle(now)

    def retire(self, worker_id: int, now: float) -> Plan[T]:
        """Give it nothing more, and stop it when it has nothing in flight."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.alive:
            worker.phase = WorkerPhase.RETIRING
        return self._settle(now)

    def condemn(
        self, worker_id: int, now: float, *, failed: bool, unread: Sequence[T] = ()
    ) -> Plan[T]:
        """It is being ended now, whatever it has in flight; the caller ends those requests.

        `failed`: it had not been asked to end, or never ran. `unread`: requests that it cannot have
        read; they are first in the queue again, in their order.
        """
        worker = self._workers[worker_id]
        worker.phase = WorkerPhase.STOPPING
        for ticket in worker.in_flight:
            del self._holder[ticket]
        worker.in_flight.clear()
        if unread:
            self._queue = {**dict.fromkeys(unread), **self._queue}
        if failed:
            self._restart.failed(now, lived=now - worker.started_at)
        return self._settle(now)

    def gone(self, worker_id: int, now: float) -> Plan[T]:
        """Its process has ended and was reaped; it was condemned, or stopped by a plan, before."""
        del self._workers[worker_id]
        return self._settle(now)

    def give_up_waiting(self, now: float) -> tuple[list[T], Plan[T]]:
        """No worker can be started: what waits, if nothing alive will serve it."""
        if any(worker.alive for worker in self._workers.values()):
            return [], self._settle(now)
        given_up = list(self._queue)
        self._queue.clear()
        return given_up, self._settle(now)

    def close(self, now: float) -> Plan[T]:
        """Start nothing more, and stop every worker as it becomes idle."""
        self._closed = True
        for worker in self._workers.values():
            if worker.alive:
                worker.phase = WorkerPhase.RETIRING
        return self._settle(now)

    def tick(self, now: float) -> Plan[T]:
        """The time that a plan named has come."""
        return self._settle(now)

    # How it is decided

    def _settle(self, now: float) -> Plan[T]:
        plan: Plan[T] = Plan()
        self._retire_spent(now)
        self._assign(plan, now)
        self._stop(plan, now)
        self._start(plan, now)
        if self._queue and self._hopeless(now):
            plan.unavailable = list(self._queue)
            self._queue.clear()
        return plan

    def _hopeless(self, now: float) -> bool:
        """Whether waiting would be in vain: no worker is alive, and none may be started."""
        return self._restart.breaker(now) is Breaker.OPEN and not any(
            worker.alive for worker in self._workers.values()
        )

    def _retire_spent(self, now: float) -> None:
        for worker in self._workers.values():
            if worker.alive and (worker.quota <= 0 or now >= worker.expires_at):
                worker.phase = WorkerPhase.RETIRING

    def _assign(self, plan: Plan[T], now: float) -> None:
        in_order = self._settings.session == "none"
        for ticket in list(self._queue):
            worker = self._free_for(ticket, now)
            if worker is not None:
                del self._queue[ticket]
                self._give(ticket, worker)
                plan.assign.append((ticket, worker.id))
            elif in_order:
                return

    def _give(self, ticket: T, worker: PoolWorker[T]) -> None:
        worker.in_flight.add(ticket)
        self._holder[ticket] = worker
        worker.quota -= 1
        if worker.quota <= 0:
            worker.phase = WorkerPhase.RETIRING
        if self._settings.session == "none":
            return
        key = self._key(ticket)
        if self._settings.session == "exclusive":
            worker.bound_to = key
        if ticket.conversation is not None:
            before = self._conversations.pop(key, None)
            self._conversations[key] = worker.id
            if len(self._conversations) > _REMEMBERED_CONVERSATIONS:
                self._conversations.popitem(last=False)
            ticket.session = "new" if before is None else "kept" if before == worker.id else "lost"

    def _free_for(self, ticket: T, now: float) -> PoolWorker[T] | None:
        """The worker that this request can be given to now."""
        candidates: Iterator[PoolWorker[T]] = (w for w in self._workers.values() if w.can_take)
        if self._restart.breaker(now) is not Breaker.CLOSED:
            candidates = (w for w in candidates if w.idle)
        if self._settings.session != "none":
            own = self._own_worker(ticket)
            if own is not None:
                return own if own in tuple(candidates) else None
            if self._settings.session == "exclusive":
                candidates = (w for w in candidates if w.bound_to is None)
        return min(candidates, key=_preference, default=None)

    def _own_worker(self, ticket: T) -> PoolWorker[T] | None:
        worker = self._workers.get(self._conversations.get(self._key(ticket), -1))
        return worker if worker is not None and worker.alive else None

    def _key(self, ticket: T) -> Hashable:
        # Without a conversation, a request is a conversation of its own.
        return ticket if ticket.conversation is None else ticket.conversation

    def _stop(self, plan: Plan[T], now: float) -> None:
        surplus = sum(worker.alive for worker in self._workers.values()) - self._floor()
        for worker in sorted(self._workers.values(), key=lambda w: w.idle_since):
            if worker.in_flight or worker.phase in (WorkerPhase.SPAWNING, WorkerPhase.STOPPING):
                continue
            if worker.alive:
                until = self._idle_until(worker)
                if worker.bound_to is None and surplus <= 0:
                    continue
                if now < until:
                    plan.wake_at = min(plan.wake_at, until)
                    continue
                surplus -= 1
            worker.phase = WorkerPhase.STOPPING
            plan.stop.append(worker.id)
        for worker in self._workers.values():
            if worker.alive and worker.expires_at > now:
                plan.wake_at = min(plan.wake_at, worker.expires_at)

    @property
    def _at_minimum(self) -> bool:
        """Whether there is none that could be stopped for having nothing to do."""
        return len(self._workers) <= self._settings.workers.min

    def _floor(self) -> int:
        """As many are kept though they are idle."""
        busy = sum(w.alive and not w.idle for w in self._workers.values())
        return max(self._settings.workers.min, busy + self._settings.workers.spare)

    def _idle_until(self, worker: PoolWorker[T]) -> float:
        if worker.bound_to is None:
            return worker.idle_since + seconds(self._settings.idle_timeout)
        if not isinstance(worker.bound_to, str):
            return worker.idle_since
        return worker.idle_since + seconds(self._settings.session_timeout)

    def _start(self, plan: Plan[T], now: float) -> None:
        if self._closed:
            return
        needed, spare = self._shortage()
        if spare <= needed:
            self._spare_due = math.inf
        elif self._spare_is_due(plan, now):
            needed = spare
        wanted = min(needed, self.limit - len(self._workers))
        if wanted <= 0:
            return
        if now < self._restart.start_at:
            plan.wake_at = min(plan.wake_at, self._restart.start_at)
            return
        if self._restart.failing:
            # One at a time until one has done well: a broken agent is not tried in parallel.
            on_trial = any(worker.coming for worker in self.workers)
            wanted = 0 if on_trial else 1
        for _ in range(wanted):
            plan.start.append(self._new_worker(now).id)

    def _spare_is_due(self, plan: Plan[T], now: float) -> bool:
        self._spare_due = min(self._spare_due, now + SPARE_DELAY)
        if now < self._spare_due:
            plan.wake_at = min(plan.wake_at, self._spare_due)
        return now >= self._spare_due

    def _shortage(self) -> tuple[int, int]:
        """How many workers more are wanted now, and how many with those that nobody waits for."""
        alive = [worker for worker in self._workers.values() if worker.alive]
        unbound = [worker for worker in alive if worker.bound_to is None]
        spare = sum(worker.idle for worker in unbound)
        if self._settings.session == "exclusive":
            waiting = len({self._key(t) for t in self._queue if self._own_worker(t) is None})
            coming = sum(worker.idle for worker in unbound)
        else:
            waiting = len(self._queue)
            coming = sum(
                max(0, self._expected_capacity - len(worker.in_flight))
                for worker in alive
                if worker.coming
            )
        per_worker = 1 if self._settings.session == "exclusive" else self._expected_capacity
        for_queue = math.ceil(max(0, waiting - coming) / per_worker)
        for_spare = self._settings.workers.spare - max(0, spare - waiting)
        for_min = self._settings.workers.min - len(alive)
        # While nothing waits that another could not take, what is missing can wait like a spare.
        ready = any(worker.phase is WorkerPhase.READY for worker in alive)
        needed = for_queue if ready else max(for_min, for_queue)
        return needed, max(needed, for_min, for_spare)

    def _new_worker(self, now: float) -> PoolWorker[T]:
        self._last_id += 1
        worker: PoolWorker[T] = PoolWorker(
            id=self._last_id,
            started_at=now,
            idle_since=now,
            quota=self._shortened(self._settings.max_requests or math.inf),
            expires_at=now + self._shortened(seconds(self._settings.max_age)),
        )
        self._workers[worker.id] = worker
        return worker

    def _shortened(self, value: float) -> float:
        if math.isinf(value):
            return value
        shorter = value * (1 - self._rng.uniform(0, _SPREAD))
        return max(1.0, math.ceil(shorter)) if value >= 1 else shorter


def _preference(worker: PoolWorker[T]) -> tuple[bool, int, bool, float]:
    """What to give a request to first: a worker that is ready, then the least loaded.

    Among equals the one used last, so that the others can go idle for good; of those never used the
    oldest, because a worker may say `ready` and go on loading.
    """
    used = worker.served > 0
    starting = worker.phase is WorkerPhase.STARTING
    age = -worker.idle_since if used else worker.started_at
    return (starting, len(worker.in_flight), not used, age)
