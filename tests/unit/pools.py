"""A pool with a clock of its own, and what a supervisor would do with its plans."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from gateway.agents.blame import Blame
from gateway.agents.pool import Plan, Pool, PoolWorker
from gateway.agents.restart import RestartPolicy
from gateway.config import AgentSettings, Restart, Workers
from gateway.exchange import Session


@dataclass(eq=False)
class Request:
    """A ticket."""

    number: int
    conversation: str | None = None
    session: Session | None = None
    worker_id: int | None = None

    def __repr__(self) -> str:
        return f"<request {self.number}>"


class Scene:
    """One pool, its time, and the plans that it has made, carried out as far as they go at once."""

    def __init__(
        self,
        *,
        workers: dict[str, int],
        restart: Restart | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.settings = AgentSettings(command="x", workers=Workers(**workers), **settings)
        self.restart = RestartPolicy(restart or Restart(), rng=random.Random(seed))
        self.pool: Pool[Request] = Pool(self.settings, self.restart, rng=random.Random(seed))
        self.now = 1000.0
        self.wake_at = math.inf
        self.requests = 0
        self.made: list[Request] = []
        self.given: dict[Request, int] = {}
        self.last = self.take(self.pool.tick(self.now))

    def take(self, plan: Plan[Request] | None) -> Plan[Request]:
        plan = plan or Plan()
        # As the supervisor does: a plan can only bring the next look nearer.
        self.wake_at = min(self.wake_at, plan.wake_at)
        self.given.update(plan.assign)
        self.last = plan
        return plan

    def submit(self, conversation: str | None = None) -> Request:
        self.requests += 1
        request = Request(self.requests, conversation)
        self.made.append(request)
        self.take(self.pool.submit(request, self.now))
        return request

    def up(self, worker: int, capacity: int = 1) -> None:
        """It was spawned, and its first line has come."""
        self.take(self.pool.spawned(worker, self.now))
        self.take(self.pool.ready(worker, capacity, self.now))

    def finish(self, request: Request, *, served: bool = True) -> Plan[Request]:
        return self.take(self.pool.finish(request, self.now, served=served))

    def crash(self, worker: int, *, unread: tuple[Request, ...] = ()) -> Plan[Request]:
        """It failed, and its process is gone; the plan of the latter."""
        lost = [r for r in self.made if r.worker_id == worker]
        self.take(self.pool.condemn(worker, self.now, blame=Blame.AGENT, lost=lost, unread=unread))
        return self.take(self.pool.gone(worker, self.now))

    def stopped(self, worker: int) -> Plan[Request]:
        """A worker that a plan has stopped is gone."""
        self.take(self.pool.condemn(worker, self.now, blame=Blame.NOBODY))
        return self.take(self.pool.gone(worker, self.now))

    def sleep(self, seconds: float) -> list[Plan[Request]]:
        """Let time pass, with a look at the pool whenever one is due; the plans of the looks."""
        until, plans = self.now + seconds, []
        while self.wake_at <= until:
            self.now, self.wake_at = max(self.now, self.wake_at), math.inf
            plans.append(self.take(self.pool.tick(self.now)))
            assert self.wake_at > self.now, f"it wakes for ever: {self.pool}"
        self.now = until
        return plans

    @property
    def numbers(self) -> list[int]:
        """The workers, in the order in which they were started."""
        return [worker.id for worker in self.pool.workers]

    def load(self, worker: int) -> int:
        """How many requests a worker has."""
        return self.worker(worker).in_flight

    def worker(self, worker: int) -> PoolWorker[Request]:
        return next(w for w in self.pool.workers if w.id == worker)
