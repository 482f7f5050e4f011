"""The workers of one pool: which there are, and which to start and to stop.

How many there should be is counted in `scaling`; here it is decided which ones, and when. Part of
the pool, and as pure: the time is passed in, and what is decided goes into a `Plan`.
"""

from __future__ import annotations

import math
import random
from operator import attrgetter
from typing import TYPE_CHECKING, Generic

from msgspec import structs

from gateway.agents import scaling
from gateway.agents.pool_types import Plan, PoolWorker, T, WorkerPhase
from gateway.agents.restart import Breaker, RestartPolicy
from gateway.agents.waiting import ANY, Waiting
from gateway.config import seconds

if TYPE_CHECKING:
    from gateway.config import AgentSettings

SPARE_DELAY = 0.05
"""Seconds from the need for a spare worker to its start. A request or a crash makes that need, and
an interpreter that starts at the same moment would take the processor from the request."""

RESPITE = 1.0
"""Seconds that an exclusive conversation may be silent before its worker can be taken for another
one: a client that goes on at once finds what it left."""

SILENCE = 5.0
"""Seconds after its start when a worker that was given a request and has not spoken is taken for
one without the handshake, which has room for no other, if it was not seen to read before. With the
handshake most have said `ready` by then; without it, those that wait would wait for the first
answer, which may take minutes."""

_SPREAD = 0.1
"""`max_requests` and `max_age` are shortened by up to this share, so that workers that started
together are not replaced together."""

_READY, _STARTING = WorkerPhase.READY, WorkerPhase.STARTING
_RETIRING, _STOPPING = WorkerPhase.RETIRING, WorkerPhase.STOPPING


class Crew(Generic[T]):
    """The workers, and the decisions about their number."""

    def __init__(
        self,
        settings: AgentSettings,
        restart: RestartPolicy,
        waiting: Waiting[T],
        rng: random.Random,
    ) -> None:
        self.all: dict[int, PoolWorker[T]] = {}
        """By id, from a worker's start until its process is gone."""
        self.alive: dict[int, PoolWorker[T]] = {}
        """Those that can still be given requests, now or later (`PoolWorker.alive`)."""
        self.declared_capacity: int | None = None
        """How many requests at a time the last worker takes that has spoken its first line."""
        self.started = 0
        """How many there ever were."""
        self._settings = settings
        self._wanted = settings.workers
        self._restart = restart
        self._waiting = waiting
        self._rng = rng
        self._spare_due = math.inf
        self._idle_timeout = seconds(settings.idle_timeout)
        self._session_timeout = seconds(settings.session_timeout)

    @property
    def at_minimum(self) -> bool:
        """Whether no worker could be stopped for being idle."""
        return len(self.all) <= self._wanted.min

    def takers(self, breaker: Breaker) -> list[PoolWorker[T]]:
        """The workers that can be given one more request now."""
        alive = self.alive.values()
        if breaker is not Breaker.CLOSED:
            return [worker for worker in alive if not worker.in_flight and worker.can_take]
        # Most workers of a busy agent are full: that is asked first, and without a call.
        return [
            worker for worker in alive if worker.in_flight < worker.capacity and worker.can_take
        ]

    def end(self, worker: PoolWorker[T], phase: WorkerPhase) -> None:
        """A worker takes nothing any more: what waited for it waits for any."""
        worker.phase = phase
        if self.alive.pop(worker.id, None) is not None:
            self._waiting.release(worker.id)

    def retire_aged(self, plan: Plan[T], now: float) -> None:
        """Retire every worker that has reached `max_age`."""
        aged = []
        for worker in self.alive.values():
            if now >= worker.expires_at:
                aged.append(worker)
            elif worker.expires_at < plan.wake_at:
                plan.wake_at = worker.expires_at
        for worker in aged:
            self.end(worker, _RETIRING)

    def wind_down(self) -> None:
        """From now on keep no worker that has no request, and start none but for what waits."""
        self._wanted = structs.replace(self._wanted, min=0, spare=0)
        self._idle_timeout = self._session_timeout = 0.0

    # Stopping

    def stop_idle(self, plan: Plan[T], now: float) -> None:
        """Stop idle workers that are not needed, or whose places others need."""
        if len(self.alive) < len(self.all):
            for worker in self.all.values():
                if worker.phase is _RETIRING and not worker.in_flight:
                    self._stop(worker, plan)
        idle = [worker for worker in self.alive.values() if not worker.in_flight]
        if not idle:
            return
        idle.sort(key=attrgetter("idle_since"))
        surplus = scaling.surplus(len(self.alive), len(idle), self._wanted)
        for worker in idle:
            if worker.phase is WorkerPhase.SPAWNING:
                continue  # there is no process yet that could be stopped
            if worker.bound_to is None and surplus <= 0:
                continue
            until = self._kept_until(worker)
            if now < until:
                plan.wake_at = min(plan.wake_at, until)
                continue
            surplus -= 1
            self._stop(worker, plan)
        if self._settings.session == "exclusive" and self._waiting.conversations(ANY):
            self._make_room(plan, now, idle)

    def _stop(self, worker: PoolWorker[T], plan: Plan[T]) -> None:
        self.end(worker, _STOPPING)
        plan.stop.append(worker.id)

    def _kept_until(self, worker: PoolWorker[T]) -> float:
        """Until when a worker may be idle that nobody needs."""
        if worker.bound_to is None:
            # Longer if it has conversations: they would be lost with it.
            return max(
                worker.idle_since + self._idle_timeout,
                worker.conversed_at + self._session_timeout,
            )
        if not isinstance(worker.bound_to, str):
            return worker.idle_since  # it belonged to one request, without a conversation
        return worker.idle_since + self._session_timeout

    def _make_room(self, plan: Plan[T], now: float, idle: list[PoolWorker[T]]) -> None:
        """Stop idle workers of other conversations, one for each that waits and finds no place.

        `idle` are the workers without requests, the one that has been so for longest first.
        """
        # Those that are being stopped leave their places soon; one that retires may take long.
        staying = sum([worker.phase is not _STOPPING for worker in self.all.values()])
        wanted = self._startable(plan, self._shortage(plan, now).now, now)
        lacking = wanted - (self._settings.workers.max - staying)
        for worker in idle:
            if lacking <= 0:
                return
            if worker.bound_to is None or worker.phase is _STOPPING:
                continue
            until = worker.idle_since + RESPITE
            if now < until:
                plan.wake_at = min(plan.wake_at, until)
                return  # and the others were busy later
            self._stop(worker, plan)
            lacking -= 1

    # Starting

    def start_needed(self, plan: Plan[T], now: float) -> None:
        """Start the workers that are needed, as far as the restart policy lets it."""
        shortage = self._shortage(plan, now)
        wanted = shortage.now
        if shortage.soon <= shortage.now:
            self._spare_due = math.inf
        elif self._spare_is_due(plan, now):
            wanted = shortage.soon
        wanted = min(wanted, self._settings.workers.max - len(self.all))
        startable = self._startable(plan, wanted, now)
        for _ in range(startable):
            plan.start.append(self._new_worker(now).id)
            self._restart.started(now)
        if startable < wanted and now < self._restart.start_at:
            plan.wake_at = min(plan.wake_at, self._restart.start_at)

    def _startable(self, plan: Plan[T], wanted: int, now: float) -> int:
        """How many of the workers that are wanted may be started now."""
        if wanted <= 0:
            return 0
        if now < self._restart.start_at:
            plan.wake_at = min(plan.wake_at, self._restart.start_at)
            return 0
        if self._restart.failing:
            # One at a time until one has done well: no use in trying a broken agent in parallel.
            return 0 if any(worker.coming for worker in self.alive.values()) else 1
        return min(wanted, 1) if self._restart.paced(now) else wanted

    def _spare_is_due(self, plan: Plan[T], now: float) -> bool:
        self._spare_due = min(self._spare_due, now + SPARE_DELAY)
        if now < self._spare_due:
            plan.wake_at = min(plan.wake_at, self._spare_due)
        return now >= self._spare_due

    def _shortage(self, plan: Plan[T], now: float) -> scaling.Shortage:
        # What waits for the worker of its conversation is not served sooner by another one.
        waiting = self._waiting.independent
        return scaling.shortage(
            self.alive.values(),
            self._wanted,
            waiting=waiting,
            expected_capacity=self._expected_capacity(plan, now) if waiting else 1,
            exclusive=self._settings.session == "exclusive",
        )

    def _expected_capacity(self, plan: Plan[T], now: float) -> int:
        """How many requests at a time a worker that has not said so yet is thought to take.

        That is what the last one has declared; before any has, what is configured. Under session
        "exclusive" it is one conversation.
        """
        if self._settings.session == "exclusive":
            return 1
        if self.declared_capacity is not None:
            return self.declared_capacity
        for worker in self.alive.values():
            if worker.in_flight and worker.phase is _STARTING:
                until = worker.started_at + SILENCE
                if worker.reads_silently or now >= until:
                    return 1
                plan.wake_at = min(plan.wake_at, until)
        return self._settings.concurrency

    def _new_worker(self, now: float) -> PoolWorker[T]:
        self.started += 1
        worker: PoolWorker[T] = PoolWorker(
            id=self.started,
            started_at=now,
            idle_since=now,
            quota=self._shortened(self._settings.max_requests or math.inf),
            expires_at=now + self._shortened(seconds(self._settings.max_age)),
        )
        self.all[worker.id] = self.alive[worker.id] = worker
        return worker

    def _shortened(self, value: float) -> float:
        if math.isinf(value):
            return value
        shorter = value * (1 - self._rng.uniform(0, _SPREAD))
        return max(1.0, math.ceil(shorter)) if value >= 1 else shorter
