"""The pool of one agent: which request gets which worker, and when workers start and stop.

# Theory of operation

The pool is plain state and synchronous functions. Each method is told of one thing that happened (a
request came or ended, a worker was spawned, spoke, failed or is gone, a time has come), changes the
state, and returns a `Plan`: which requests to hand to which workers, which workers to start and to
stop, and when to look again. The supervisor carries the plan out and tells the pool what came of
it. Nothing here waits, starts a process, or reads a clock: `now` is passed in.

A request is in one of three places: waiting (`_waiting`), at a worker (`Ticket.worker_id`, and a
count in `PoolWorker.in_flight`), or nowhere, before its admission and after its end.

Every method ends in `_settle`, which looks at the whole state in a fixed order:

1. *retire* workers that have reached `max_age`;
2. *assign* waiting requests to workers with room;
3. *stop* idle workers that are not needed, or whose places others need;
4. *start* workers that are needed, as far as the restart policy lets it;
5. *give up* what waits, if no worker is left and none may be started.

The order matters: a request that can be assigned needs no start, and a worker that was just given a
request is not idle. Three shortcuts skip `_settle` on the hot path, where nothing can follow from
it: a request that is handed over at once, the end of one while none waits and no worker is surplus,
and the end of one whose place the next one takes.

The state has two parts with rules of their own: the requests that wait (`waiting`) and the workers
(`crew`, which counts with `scaling`). To look at it all means to look at every worker, in a few
plain passes, but never at everything that waits: that is sorted by the worker that it waits for,
and an event costs the same however much waits.

Workers that are not gone count against `workers.max`, those being stopped included. Requests are
served first in, first out, but one that waits for the worker of its conversation does not hold up
those behind it. A worker whose output is paused is skipped. While the breaker is not closed, only
idle workers are given a request, so that a broken agent loses no more than one at a time.

Under session "sticky", a request goes to the worker that has its conversation, also if it must wait
for it while others are free: only there is it remembered what was said. It holds up no request of
others, and no worker is started for it, until its own is lost. A new conversation goes, among the
least loaded workers, to the one that has the fewest, since those that have met at one worker stay
together. A worker beyond `workers.min` that has had conversations is kept for `session_timeout`.

Under session "exclusive" a worker belongs to one conversation and is kept for it, idle, for
`session_timeout`. When all workers there may be are kept so, a further conversation takes the place
of the one that has been idle longest, whose conversation is lost. A worker with a request is never
taken, nor one that had any within `RESPITE`, and one that waits takes one place: so conversations
that are in progress do not end each other's workers, and those that pause do so at the rate at
which conversations come.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Generic

from gateway.agents.blame import Blame
from gateway.agents.conversations import Conversations
from gateway.agents.crew import Crew
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
from gateway.agents.waiting import ANY, Waiting

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from gateway.config import AgentSettings

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
        self._waiting: Waiting[T] = Waiting()
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._crew: Crew[T] = Crew(settings, restart, self._waiting, rng)
        self._workers = self._crew.all
        self._conversations = Conversations()
        self.stage = Stage.SERVING

    def __repr__(self) -> str:
        return (
            f"<Pool {list(self._workers.values())}, {len(self._waiting)} waiting, {self._restart}>"
        )

    @property
    def workers(self) -> tuple[PoolWorker[T], ...]:
        return tuple(self._workers.values())

    @property
    def queue(self) -> tuple[T, ...]:
        """The requests that wait, first in first."""
        return tuple(self._waiting)

    def is_waiting(self, ticket: T) -> bool:
        return ticket in self._waiting

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def started(self) -> int:
        """How many workers were ever started."""
        return self._crew.started

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self._workers.values())

    # What happens to requests

    def submit(self, ticket: T, now: float) -> Plan[T]:
        """Admit a request. Raises RefusedError, and then nothing has changed."""
        if self.stage is not Stage.SERVING:
            raise NotServingError(retry_after=1.0)
        breaker = self._restart.breaker(now)
        if breaker is not Breaker.CLOSED:
            # Half open, one request is the probe: more would only be lost with it.
            on_trial = breaker is Breaker.HALF_OPEN
            if (on_trial and self._waiting) or self._hopeless(now):
                raise CircuitOpenError(retry_after=max(self._restart.start_at - now, 1.0))
        if not (self._waiting and self._waiting.conversations(ANY)):
            # What waits for a worker of its own could not be given to one that has room.
            worker = self._free_for(ticket, breaker)
            if worker is not None:
                self._give(ticket, worker)
                # Nothing else can follow, unless the number of workers wanted has changed.
                more = self._settings.workers.spare or worker.phase is WorkerPhase.RETIRING
                plan: Plan[T] = self._settle(now) if more else Plan()
                plan.assign.append((ticket, worker.id))
                return plan
        # Without a worker one request may wait whatever `queue` says: only it starts the first.
        most = self._settings.queue if self._workers else max(self._settings.queue, 1)
        if len(self._waiting) >= most:
            raise QueueFullError(retry_after=1.0)
        key = self._key(ticket)
        self._waiting.add(ticket, key, self._home(key))
        return self._settle(now)

    def finish(self, ticket: T, now: float, *, served: bool) -> Plan[T] | None:
        """End a request, wherever it is. `served`: its worker has answered it.

        A request that is neither waiting nor at a worker has ended before: nothing changes. Returns
        None where nothing can follow, as it is for most requests.
        """
        worker_id = ticket.worker_id
        worker = None if worker_id is None else self._workers.get(worker_id)
        if worker is None:
            self._waiting.remove(ticket)
        else:
            ticket.worker_id = None
            worker.in_flight -= 1
            worker.idle_since = now
            if ticket.session is not None:
                worker.conversed_at = now
            # The first answer after a failure lifts the delay of what is still to be started.
            recovers = served and self._restart.failing
            if served:
                worker.served += 1
                self._restart.succeeded()
            if worker.phase is WorkerPhase.READY and not recovers:
                if self._waiting:
                    return self._hand_on(worker) or self._settle(now)
                if self._crew.at_minimum:
                    return None
        return self._settle(now)

    def _hand_on(self, worker: PoolWorker[T]) -> Plan[T] | None:
        """Give the place that a request has left to the next one; None: look at the whole state.

        Whatever waits could go to no other worker, or it would have gone there before. Nothing else
        can follow: the workers have as many requests as they had.
        """
        limited = worker.quota <= 1 or not worker.can_take
        if limited or self._settings.workers.spare or self._restart.failing:
            return None
        ticket = self._waiting.first((worker.id, ANY) if worker.bound_to is None else (worker.id,))
        if ticket is None:
            return None
        self._waiting.remove(ticket)
        self._give(ticket, worker)
        return Plan(assign=[(ticket, worker.id)])

    # What happens to workers

    def spawned(self, worker_id: int, now: float) -> Plan[T]:
        """A worker's process runs, and can be written to."""
        worker = self._workers[worker_id]
        if worker.phase is WorkerPhase.SPAWNING:  # else it was condemned meanwhile
            worker.phase = WorkerPhase.STARTING
        return self._settle(now)

    def reads_silently(self, worker_id: int, now: float) -> Plan[T]:
        """A worker reads before it speaks: it takes no other request before its first answer."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.reads_silently = True
        return self._settle(now)

    def ready(self, worker_id: int, capacity: int, now: float) -> Plan[T]:
        """A worker's first line has come: it takes `capacity` requests at a time."""
        worker = self._workers[worker_id]
        worker.capacity = min(capacity, self._settings.concurrency)
        self._crew.declared_capacity = worker.capacity
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
            self._crew.end(worker, WorkerPhase.RETIRING)
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
        self._crew.end(worker, WorkerPhase.STOPPING)
        worker.in_flight = 0
        worker.failed = blame is not Blame.NOBODY
        for ticket in lost:
            if ticket.worker_id == worker_id:
                ticket.worker_id = None
        self._put_back(unread)
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
        self._put_back(again)
        return self.retire(worker_id, now)

    def _put_back(self, unread: Sequence[T]) -> None:
        for ticket in reversed(unread):
            key = self._key(ticket)
            self._waiting.put_back(ticket, key, self._home(key))

    def gone(self, worker_id: int, now: float) -> Plan[T]:
        """The process of a worker that was condemned before has been reaped."""
        del self._workers[worker_id]
        return self._settle(now)

    def give_up_waiting(self, now: float) -> tuple[list[T], Plan[T]]:
        """A worker could not be started. The requests that wait, if no worker is alive: the caller
        ends them."""
        if self._crew.alive:
            return [], self._settle(now)
        return self._waiting.clear(), self._settle(now)

    def inherit(self, other: Pool[T]) -> None:
        """Take the place of another pool of the same agent, before any request is submitted."""
        self._conversations.inherit(other._conversations)

    def displace(self, conversation: str, now: float) -> Plan[T]:
        """Forget what a worker knows of a conversation: another process has had it since."""
        worker = self._workers.get(self._conversations.displace(conversation) or ANY)
        if worker is not None and worker.alive and worker.bound_to == conversation:
            self._crew.end(worker, WorkerPhase.RETIRING)
        return self._settle(now)

    def wind_down(self, now: float) -> Plan[T]:
        """Stop every worker as soon as it has no request. Those that come are served still."""
        self._crew.wind_down()
        return self._settle(now)

    def drain(self) -> None:
        """Admit nothing more."""
        if self.stage is Stage.SERVING:
            self.stage = Stage.DRAINING

    def stop(self, now: float) -> Plan[T]:
        """Hand out and start nothing more, and stop every worker once it is idle."""
        self.stage = Stage.STOPPING
        for worker in tuple(self._crew.alive.values()):
            self._crew.end(worker, WorkerPhase.RETIRING)
        return self._settle(now)

    def tick(self, now: float) -> Plan[T]:
        """The time that a plan named has come: look again."""
        return self._settle(now)

    # How the pool decides

    def _settle(self, now: float) -> Plan[T]:
        plan: Plan[T] = Plan()
        self._crew.retire_aged(plan, now)
        if self._waiting:
            self._assign(plan, now)
        self._crew.stop_idle(plan, now)
        if self.stage is not Stage.STOPPING:
            self._crew.start_needed(plan, now)
        if self._waiting and self._hopeless(now):
            plan.unavailable = self._waiting.clear()
        return plan

    def _hopeless(self, now: float) -> bool:
        """Whether waiting would be in vain: no worker is alive, and none may be started."""
        return not self._crew.alive and self._restart.breaker(now) is Breaker.OPEN

    def _assign(self, plan: Plan[T], now: float) -> None:
        breaker = self._restart.breaker(now)
        takers = {worker.id: worker for worker in self._crew.takers(breaker)}
        while takers:
            unbound = [worker for worker in takers.values() if worker.bound_to is None]
            ticket = self._waiting.first((*takers, ANY) if unbound else takers)
            if ticket is None:
                return
            home = self._waiting.home(ticket)
            worker = self._preferred(unbound, ticket) if home == ANY else takers[home]
            self._waiting.remove(ticket)
            self._give(ticket, worker)
            plan.assign.append((ticket, worker.id))
            if not worker.can_take or breaker is not Breaker.CLOSED:
                del takers[worker.id]

    def _give(self, ticket: T, worker: PoolWorker[T]) -> None:
        worker.in_flight += 1
        ticket.worker_id = worker.id
        worker.quota -= 1
        if worker.quota <= 0:
            self._crew.end(worker, WorkerPhase.RETIRING)
        key = self._key(ticket)
        if key is None:
            return
        if self._settings.session == "exclusive":
            worker.bound_to = key
        if ticket.conversation is not None:
            ticket.session = self._conversations.hand_over(key, worker.id)
            if worker.alive and self._waiting:
                self._waiting.bind(key, worker.id)

    def _free_for(self, ticket: T, breaker: Breaker) -> PoolWorker[T] | None:
        """The worker that a request can be given to now, if any, while none waits for any."""
        takers = self._crew.takers(breaker)
        key = self._key(ticket)
        if key is not None:
            home = self._home(key)
            if home != ANY:
                takers = [worker for worker in takers if worker.id == home]
            elif self._settings.session == "exclusive":
                takers = [worker for worker in takers if worker.bound_to is None]
        return self._preferred(takers, ticket) if takers else None

    def _preferred(self, takers: Sequence[PoolWorker[T]], ticket: T) -> PoolWorker[T]:
        """The worker, of those that have room, that is to have a request which may go to any."""
        if len(takers) == 1:
            return takers[0]
        if ticket.conversation is None or self._settings.session == "none":
            return min(takers, key=preference)
        count = self._conversations.count
        return min(takers, key=lambda worker: preference(worker, count(worker.id)))

    def _home(self, key: Hashable) -> int:
        """The worker that has a conversation, if it still takes requests; else `ANY`."""
        worker_id = None if key is None else self._conversations.worker_of(key)
        return worker_id if worker_id in self._crew.alive else ANY

    def _key(self, ticket: T) -> Hashable:
        """What a request shares with those that go where it goes; None if it may go anywhere."""
        if self._settings.session == "exclusive" and ticket.conversation is None:
            return ticket  # a conversation of its own
        return None if self._settings.session == "none" else ticket.conversation
