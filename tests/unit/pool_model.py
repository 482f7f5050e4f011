"""A model of the pool: where each request is and how each worker stands, from the plans alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from gateway.agents.blame import Blame
from gateway.agents.pool import (
    Plan,
    QueueFullError,
    RefusedError,
    WorkerPhase,
)
from gateway.agents.restart import Breaker
from tests.unit.pools import Request, Scene

SITUATIONS = {
    "a request comes: it is given to a worker at once",
    "a request comes: it waits",
    "a request comes: the queue is full",
    "a request comes: the breaker is open",
    "a request comes: it is the probe of a half-open breaker",
    "a request ends at a ready worker while another waits",
    "a request ends at a ready worker while another waits, and no worker is above the minimum",
    "a request ends at a ready worker, and the one that waited longest takes its place",
    "a request ends at a paused worker while another waits",
    "a request ends that was the last of a retiring worker",
    "a request ends while it waits",
    "a worker comes up and is given what waited for it",
    "a worker fails: its unread requests go before those that wait",
    "a worker fails: another is given what it had not read",
    "a worker fails: it was paused, and requests wait",
    "a worker fails: it was never spawned, and those that wait are given up",
    "a worker fails: the breaker opens, and those that wait are refused",
    "a worker that was paused goes on and is given what waited",
    "a worker that was stopped comes up all the same",
    "a worker is stopped because it was idle for long",
    "a worker is replaced while it has requests",
    "a conversation stays with its worker",
    "a conversation has lost its worker",
    "a conversation that waits takes the place of one that is silent",
    "a conversation waits because the others were busy a moment ago",
    "a conversation is served before a request that has waited longer",
    "the pool is closed while requests wait",
    "the pool is closed while a worker has requests",
}
"""What a run of the machine must come to, as the rules name it."""

REACHED: Counter[str] = Counter()


def reached(situation: str, holds: object = True) -> None:
    """Note that the machine has come to a situation, if `holds`."""
    assert situation in SITUATIONS
    if holds:
        REACHED[situation] += 1


@dataclass
class ModelWorker:
    """What the plans and the rules have said of one worker."""

    spawned: bool = False
    spoke: bool = False
    paused: bool = False
    stopped: bool = False
    condemned: bool = False
    capacity: int = 1
    """How many requests it takes at a time: one until its first line has come."""
    requests: list[Request] = field(default_factory=list)
    conversations: set[object] = field(default_factory=set)
    """All that it was ever given a request of; a request without one is one of its own."""
    given: int = 0

    @property
    def is_coming(self) -> bool:
        return not self.spoke and not self.condemned

    @property
    def serves(self) -> bool:
        return self.spoke and not self.condemned and bool(self.requests)

    @property
    def may_fail(self) -> bool:
        return not self.stopped and not self.condemned

    @property
    def works(self) -> bool:
        return self.may_fail and bool(self.requests)

    @property
    def streams(self) -> bool:
        return self.spoke and self.works and not self.paused

    @property
    def is_held(self) -> bool:
        return self.paused and self.may_fail

    @property
    def is_ending(self) -> bool:
        return self.stopped or self.condemned


class PoolModel(RuleBasedStateMachine):
    """A pool, and the model beside it: every step is taken by both."""

    scene: Scene

    def prepare(self, chosen: dict[str, Any]) -> None:
        """A pool with these settings, which nothing has come to yet."""
        self.workers: dict[int, ModelWorker] = {}
        self.waiting: list[Request] = []
        self.ended: set[Request] = set()
        self.closed = False
        self.refused = 0
        self.scene = Scene(**chosen)
        self.pool = self.scene.pool
        self.carry_out(self.scene.last)

    def having(self, predicate: str) -> list[int]:
        """The workers for which a predicate of `ModelWorker` holds."""
        return [number for number, worker in self.workers.items() if getattr(worker, predicate)]

    def phase(self, number: int) -> WorkerPhase:
        return self.scene.worker(number).phase

    # What a plan says

    def do(self, plan: Plan[Request] | None) -> Plan[Request]:
        plan = self.scene.take(plan)
        self.carry_out(plan)
        return plan

    def carry_out(self, plan: Plan[Request]) -> None:
        for request, number in plan.assign:
            worker = self.workers[number]
            assert worker.spawned
            assert not worker.stopped
            assert not worker.condemned
            if self.scene.restart.breaker(self.scene.now) is not Breaker.CLOSED:
                assert not worker.requests, "more than one request on trial"
            if self.scene.settings.session == "none":
                assert self.waiting[0] is request, "not in the order of arrival"
            longest = self.waiting[0] is request
            reached("a conversation is served before a request that has waited longer", not longest)
            reached("a conversation stays with its worker", request.session == "kept")
            reached("a conversation has lost its worker", request.session == "lost")
            self.waiting.remove(request)  # fails if it was not waiting: given out twice, or ended
            worker.requests.append(request)
            worker.given += 1
            worker.conversations.add(request.conversation or request)
        if self.scene.settings.session == "sticky" and not self.scene.settings.workers.spare:
            alive = sum(w.alive and w.id not in plan.start for w in self.pool.workers)
            lacking = max(0, self.scene.settings.workers.min - alive)
            # One for each conversation, and for each request without one.
            apart = {request.conversation or request for request in self.waiting}
            assert len(plan.start) <= max(lacking, len(apart)), "started in vain"
        for number in plan.start:
            assert number not in self.workers
            assert not self.closed
            self.workers[number] = ModelWorker()
        for number in plan.stop:
            worker = self.workers[number]
            assert not worker.requests, "stopped with requests in flight"
            assert not worker.stopped
            assert not worker.condemned
            worker.stopped = True
        for request in plan.unavailable:
            self.waiting.remove(request)
            self.ended.add(request)

    # What can happen

    def submit(self, *conversations: str | None) -> None:
        for conversation in conversations:
            self.submit_one(conversation)

    def submit_one(self, conversation: str | None) -> None:
        scene = self.scene
        scene.requests += 1
        request = Request(scene.requests, conversation)
        breaker = scene.restart.breaker(scene.now)
        before = repr(self.pool)
        self.waiting.append(request)
        refusal: RefusedError | None = None
        try:
            plan = self.do(self.pool.submit(request, scene.now))
        except RefusedError as error:
            refusal = error
        if refusal is None:
            at_once = any(given is request for given, _ in plan.assign)
            reached("a request comes: it is given to a worker at once", at_once)
            reached("a request comes: it waits", request in self.waiting)
            reached(
                "a request comes: it is the probe of a half-open breaker",
                breaker is Breaker.HALF_OPEN,
            )
            return
        self.waiting.remove(request)
        self.refused += 1
        assert refusal.retry_after > 0
        assert repr(self.pool) == before
        if isinstance(refusal, QueueFullError):
            reached("a request comes: the queue is full")
            assert len(self.waiting) >= scene.settings.queue
        else:
            reached("a request comes: the breaker is open")
            assert breaker is not Breaker.CLOSED

    def come_up(self, number: int, capacity: int) -> None:
        worker, waiting = self.workers[number], tuple(self.waiting)
        reached("a worker that was stopped comes up all the same", worker.stopped)
        if not worker.spawned:
            self.spawn(number)
        self.speak(number, capacity)
        reached(
            "a worker comes up and is given what waited for it",
            any(request in waiting for request in worker.requests),
        )

    def spawn(self, number: int) -> None:
        self.workers[number].spawned = True
        self.do(self.pool.spawned(number, self.scene.now))

    def speak(self, number: int, capacity: int) -> None:
        worker = self.workers[number]
        worker.spoke = True
        worker.capacity = min(capacity, self.scene.settings.concurrency)
        self.do(self.pool.ready(number, capacity, self.scene.now))

    def answer(self, number: int, request: Request, *, served: bool) -> None:
        worker, phase, waiting = self.workers[number], self.phase(number), tuple(self.waiting)
        at_minimum = len(self.workers) <= self.scene.settings.workers.min
        plan = self.end(request, served=served)
        if waiting:
            while_ready = phase is WorkerPhase.READY and not worker.paused
            reached("a request ends at a ready worker while another waits", while_ready)
            reached(
                "a request ends at a ready worker while another waits, "
                "and no worker is above the minimum",
                while_ready and at_minimum,
            )
            reached(
                "a request ends at a ready worker, and the one that waited longest takes its place",
                while_ready and (waiting[0], number) in plan.assign,
            )
            reached("a request ends at a paused worker while another waits", worker.paused)
        if worker.is_held and not worker.requests:  # there is no client left that could be slow
            self.pause(number, paused=False)
        reached(
            "a request ends that was the last of a retiring worker",
            phase is WorkerPhase.RETIRING and number in plan.stop,
        )

    def end(self, request: Request, *, served: bool) -> Plan[Request]:
        for place in (self.waiting, *(worker.requests for worker in self.workers.values())):
            if request in place:
                place.remove(request)
        self.ended.add(request)
        return self.do(self.pool.finish(request, self.scene.now, served=served))

    def fail(self, number: int, read: int) -> None:
        worker = self.workers[number]
        worker.condemned = True
        lost, worker.requests = worker.requests, []
        unread = lost[read:]
        reached(
            "a worker fails: its unread requests go before those that wait", unread and self.waiting
        )
        reached("a worker fails: it was paused, and requests wait", worker.paused and self.waiting)
        self.ended.update(lost[:read])
        self.waiting[:0] = unread
        plan = self.do(
            self.pool.condemn(number, self.scene.now, blame=Blame.AGENT, lost=lost, unread=unread)
        )
        reached(
            "a worker fails: another is given what it had not read",
            any(request in unread for request, _ in plan.assign),
        )
        reached(
            "a worker fails: the breaker opens, and those that wait are refused", plan.unavailable
        )
        if not worker.spawned:
            given_up, plan = self.pool.give_up_waiting(self.scene.now)
            for request in given_up:
                self.waiting.remove(request)
                self.ended.add(request)
            self.do(plan)
            reached(
                "a worker fails: it was never spawned, and those that wait are given up", given_up
            )

    def pause(self, number: int, *, paused: bool) -> None:
        self.workers[number].paused = paused
        plan = self.do(self.pool.pause(number, paused=paused, now=self.scene.now))
        reached("a worker that was paused goes on and is given what waited", plan.assign)

    def close(self) -> None:
        self.closed = True
        reached("the pool is closed while requests wait", self.waiting)
        reached(
            "the pool is closed while a worker has requests",
            any(worker.requests for worker in self.workers.values()),
        )
        self.do(self.pool.stop(self.scene.now))
