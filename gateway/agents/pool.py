"""The pool of one agent: which request gets which worker, and when workers start and stop.

# Theory of operation

The pool is plain state and synchronous functions. Each method is told of one thing that happened (a
request came or ended, a worker was spawned, spoke, failed or is gone, a time has come), changes the
state, and returns a `Plan`: which requests to hand to which workers, which workers to start and to
stop, and when to look again. The supervisor carries the plan out and tells the pool what came of
it. Nothing here waits, starts a process, or reads a clock: `now` is passed in.

A request is in one of three places: in the queue (`_queue`), at a worker (`Ticket.worker_id`, and a
count in `PoolWorker.in_flight`), or nowhere, before its admission and after its end.

Every method ends in `_settle`, which looks at the whole state in a fixed order:

1. *retire* workers that have used up `max_requests` or `max_age`;
2. *assign* waiting requests to workers with room;
3. *stop* workers that are idle and not needed (`scaling.floor`);
4. *start* workers that are needed (`scaling.shortage`), as far as the restart policy lets it;
5. *give up* what waits, if no worker is left and none may be started.

The order matters: a request that can be assigned needs no start, and a worker that was just given a
request is not idle. Two shortcuts skip `_settle` on the hot path, where nothing can follow from it:
a request that is handed over at once, and the end of one while none waits and no worker is surplus.

Workers that are not gone count against `workers.max`, those being stopped included. Requests are
served first in, first out, but one that waits for the worker of its conversation does not hold up
those behind it. A worker whose output is paused is skipped. While the breaker is not closed, only
idle workers are given a request, so that a broken agent loses no more than one at a time.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Generic

from gateway.agents import scaling
from gateway.agents.conversations import Conversations
from gateway.agents.pool_types import (
    CircuitOpenError,
    NotServingError,
    Plan,
    PoolWorker,
    QueueFullError,
    RefusedError,
    Stage,
    T,
    Ticket,
    WorkerPhase,
    preference,
)
from gateway.agents.restart import Breaker, RestartPolicy
from gateway.config import seconds

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from gateway.agents.blame import Blame
    from gateway.config import AgentSettings

SPARE_DELAY = 0.05
"""Seconds from the need for a spare worker to its start. A request or a crash makes that need, and
an interpreter that starts at the same moment would take the processor from the request."""

_SPREAD = 0.1
"""`max_requests` and `max_age` are shortened by up to this share, so that workers that started
together are not replaced together."""


__all__ = [
    "CircuitOpenError",
    "NotServingError",
    "Plan",
    "Pool",
    "PoolWorker",
    "QueueFullError",
    "RefusedError",
    "Stage",
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
        self._conversations = Conversations()
        self._expected_capacity = 1
        self._spare_due = math.inf
        self._last_id = 0
        self.stage = Stage.SERVING

    def __repr__(self) -> str:
        return f"<Pool {list(self._workers.values())}, {len(self._queue)} waiting, {self._restart}>"

    @property
    def workers(self) -> tuple[PoolWorker[T], ...]:
        return tuple(self._workers.values())

    @property
    def queue(self) -> tuple[T, ...]:
        """The requests that wait, first in first."""
        return tuple(self._queue)

    def is_waiting(self, ticket: T) -> bool:
        return ticket in self._queue

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def started(self) -> int:
        """How many workers were ever started."""
        return self._last_id

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self._workers.values())

    # What happens to requests

    def submit(self, ticket: T, now: float) -> Plan[T]:
        """Admit a request. Raises RefusedError, and then nothing has changed."""
        if self.stage is not Stage.SERVING:
            raise NotServingError(retry_after=1.0)
        # With the breaker half open, one request is the probe: more would only be lost with it.
        on_trial = self._restart.breaker(now) is Breaker.HALF_OPEN
        if (on_trial and self._queue) or self._hopeless(now):
            raise CircuitOpenError(retry_after=max(self._restart.start_at - now, 1.0))
        if not self._queue:
            worker = self._free_for(ticket, now)
            if worker is not None:
                self._give(ticket, worker)
                # Nothing else can follow, unless the number of workers wanted has changed.
                more = self._settings.workers.spare or worker.phase is WorkerPhase.RETIRING
                plan: Plan[T] = self._settle(now) if more else Plan()
                plan.assign.append((ticket, worker.id))
                return plan
        # Without a worker one request may wait whatever `queue` says: only it starts the first.
        most = self._settings.queue if self._workers else max(self._settings.queue, 1)
        if len(self._queue) >= most:
            raise QueueFullError(retry_after=1.0)
        self._queue[ticket] = None
        return self._settle(now)

    def finish(self, ticket: T, now: float, *, served: bool) -> Plan[T] | None:
        """End a request, wherever it is. `served`: its worker has answered it.

        A request that is neither waiting nor at a worker has ended before: nothing changes. Returns
        None where nothing can follow, as it is for most requests.
        """
        self._queue.pop(ticket, None)
        worker = self._worker_of(ticket)
        if worker is not None:
            ticket.worker_id = None
            worker.in_flight -= 1
            worker.idle_since = now
            # The first answer after a failure lifts the delay of what is still to be started.
            recovers = served and self._restart.failing
            if served:
                worker.served += 1
                self._restart.succeeded()
            settled = not self._queue and self._at_minimum and not recovers
            if worker.phase is WorkerPhase.READY and settled:
                return None
        return self._settle(now)

    def _worker_of(self, ticket: T) -> PoolWorker[T] | None:
        return None if ticket.worker_id is None else self._workers.get(ticket.worker_id)

    # What happens to workers

    def spawned(self, worker_id: int, now: float) -> Plan[T]:
        """A worker's process runs, and can be written to."""
        worker = self._workers[worker_id]
        if worker.phase is WorkerPhase.SPAWNING:  # else it was condemned meanwhile
            worker.phase = WorkerPhase.STARTING
        return self._settle(now)

    def ready(self, worker_id: int, capacity: int, now: float) -> Plan[T]:
        """A worker's first line has come: it takes `capacity` requests at a time."""
        worker = self._workers[worker_id]
        worker.capacity = min(capacity, self._settings.concurrency)
        self._expected_capacity = worker.capacity
        if worker.phase is WorkerPhase.STARTING:
            worker.phase = WorkerPhase.READY
        return self._settle(now)

    def pause(self, worker_id: int, *, paused: bool, now: float) -> Plan[T]:
        """A worker's output is paused, or is read again."""
        self._workers[worker_id].paused = paused
        return self._settle(now)

    def retire(self, worker_id: int, now: float) -> Plan[T]:
        """Give a worker nothing more, and stop it once it is idle. If it is gone: nothing."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.alive:
            worker.phase = WorkerPhase.RETIRING
        return self._settle(now)

    def condemn(
        self,
        worker_id: int,
        now: float,
        *,
        blame: Blame,
        lost: Iterable[T] = (),
        unread: Sequence[T] = (),
    ) -> Plan[T]:
        """Nothing more comes of a worker.

        `blame` says what its end is counted against. `lost` are the requests that it had; the
        caller ends them. `unread` are those of them that it cannot have read: they return to the
        front of the queue, in their order, and are not to be ended.
        """
        worker = self._workers[worker_id]
        worker.phase = WorkerPhase.STOPPING
        worker.in_flight = 0
        for ticket in lost:
            if ticket.worker_id == worker_id:
                ticket.worker_id = None
        if unread:
            self._queue = {**dict.fromkeys(unread), **self._queue}
        self._restart.ended(blame, now, lived=now - worker.started_at)
        return self._settle(now)

    def take_back(
        self, worker_id: int, now: float, *, unread: Sequence[T], again: Sequence[T]
    ) -> Plan[T]:
        """A worker takes no more requests, and has not read some that it was given.

        Those of them in `again` return to the front of the queue. The worker is retired.
        """
        worker = self._workers[worker_id]
        for ticket in unread:
            if ticket.worker_id == worker_id:
                ticket.worker_id = None
                worker.in_flight -= 1
        if again:
            self._queue = {**dict.fromkeys(again), **self._queue}
        return self.retire(worker_id, now)

    def gone(self, worker_id: int, now: float) -> Plan[T]:
        """The process of a worker that was condemned before has been reaped."""
        del self._workers[worker_id]
        return self._settle(now)

    def give_up_waiting(self, now: float) -> tuple[list[T], Plan[T]]:
        """A worker could not be started. The requests that wait, if no worker is alive: the caller
        ends them."""
        if any(worker.alive for worker in self._workers.values()):
            return [], self._settle(now)
        given_up = list(self._queue)
        self._queue.clear()
        return given_up, self._settle(now)

    def drain(self) -> None:
        """Admit nothing more."""
        if self.stage is Stage.SERVING:
            self.stage = Stage.DRAINING

    def stop(self, now: float) -> Plan[T]:
        """Hand out and start nothing more, and stop every worker once it is idle."""
        self.stage = Stage.STOPPING
        for worker in self._workers.values():
            if worker.alive:
                worker.phase = WorkerPhase.RETIRING
        return self._settle(now)

    def tick(self, now: float) -> Plan[T]:
        """The time that a plan named has come: look again."""
        return self._settle(now)

    # How the pool decides

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
        worker.in_flight += 1
        ticket.worker_id = worker.id
        worker.quota -= 1
        if worker.quota <= 0:
            worker.phase = WorkerPhase.RETIRING
        if self._settings.session == "none":
            return
        key = self._key(ticket)
        if self._settings.session == "exclusive":
            worker.bound_to = key
        if ticket.conversation is not None:
            ticket.session = self._conversations.hand_over(key, worker.id)

    def _free_for(self, ticket: T, now: float) -> PoolWorker[T] | None:
        """The worker that a request can be given to now, if any."""
        candidates: Iterator[PoolWorker[T]] = (w for w in self._workers.values() if w.can_take)
        if self._restart.breaker(now) is not Breaker.CLOSED:
            candidates = (w for w in candidates if w.idle)
        if self._settings.session != "none":
            own = self._own_worker(ticket)
            if own is not None:
                return own if own in tuple(candidates) else None
            if self._settings.session == "exclusive":
                candidates = (w for w in candidates if w.bound_to is None)
        return min(candidates, key=preference, default=None)

    def _own_worker(self, ticket: T) -> PoolWorker[T] | None:
        worker_id = self._conversations.worker_of(self._key(ticket))
        worker = None if worker_id is None else self._workers.get(worker_id)
        return worker if worker is not None and worker.alive else None

    def _key(self, ticket: T) -> Hashable:
        # Without a conversation, a request is a conversation of its own.
        return ticket if ticket.conversation is None else ticket.conversation

    def _stop(self, plan: Plan[T], now: float) -> None:
        workers = self._workers.values()
        surplus = sum(w.alive for w in workers) - scaling.floor(workers, self._settings.workers)
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
        """Whether no worker could be stopped for being idle."""
        return len(self._workers) <= self._settings.workers.min

    def _idle_until(self, worker: PoolWorker[T]) -> float:
        if worker.bound_to is None:
            return worker.idle_since + seconds(self._settings.idle_timeout)
        if not isinstance(worker.bound_to, str):
            return worker.idle_since
        return worker.idle_since + seconds(self._settings.session_timeout)

    def _start(self, plan: Plan[T], now: float) -> None:
        if self.stage is Stage.STOPPING:
            return
        shortage = self._shortage()
        wanted = shortage.now
        if shortage.soon <= shortage.now:
            self._spare_due = math.inf
        elif self._spare_is_due(plan, now):
            wanted = shortage.soon
        wanted = min(wanted, self._settings.workers.max - len(self._workers))
        if wanted <= 0:
            return
        if now < self._restart.start_at:
            plan.wake_at = min(plan.wake_at, self._restart.start_at)
            return
        if self._restart.failing:
            # One at a time until one has done well: no use in trying a broken agent in parallel.
            on_trial = any(worker.coming for worker in self.workers)
            wanted = 0 if on_trial else 1
        for _ in range(wanted):
            plan.start.append(self._new_worker(now).id)

    def _spare_is_due(self, plan: Plan[T], now: float) -> bool:
        self._spare_due = min(self._spare_due, now + SPARE_DELAY)
        if now < self._spare_due:
            plan.wake_at = min(plan.wake_at, self._spare_due)
        return now >= self._spare_due

    def _shortage(self) -> scaling.Shortage:
        exclusive = self._settings.session == "exclusive"
        waiting = len(self._queue)
        if exclusive and waiting:
            waiting = len({self._key(t) for t in self._queue if self._own_worker(t) is None})
        return scaling.shortage(
            self._workers.values(),
            self._settings.workers,
            waiting=waiting,
            expected_capacity=self._expected_capacity,
            exclusive=exclusive,
        )

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
