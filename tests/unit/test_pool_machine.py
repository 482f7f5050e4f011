"""The pool under everything that can happen to it, in any order.

A model beside the pool knows which request is where and how each worker stands, from what the plans
said alone. Whatever the order: no request is lost or given out twice, nobody gets more than may be,
nothing waits that could be served, and the pool asks to be looked at again before something is due.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.agents.pool import (
    SPARE_DELAY,
    Plan,
    PoolWorker,
    QueueFullError,
    RefusedError,
    WorkerPhase,
)
from gateway.agents.restart import Breaker
from gateway.config import Restart
from tests.unit.conftest import unhurried
from tests.unit.pools import Request, Scene


@dataclass
class ModelWorker:
    """What the plans and the rules have said of one worker."""

    spawned: bool = False
    spoke: bool = False
    stopped: bool = False
    condemned: bool = False
    requests: list[Request] = field(default_factory=list)
    conversations: set[object] = field(default_factory=set)
    given: int = 0


SETTINGS = st.fixed_dictionaries(
    {
        "workers": st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(0, 3)).map(
            lambda n: {"max": n[0], "min": min(n[:2]), "spare": min(n[0], n[2])}
        ),
        "session": st.sampled_from(["none", "none", "sticky", "exclusive"]),
        "concurrency": st.integers(1, 4),
        "queue": st.integers(0, 8),
        "max_requests": st.sampled_from([0, 0, 1, 2, 3]),
        "max_age": st.sampled_from(["off", 50]),
        "idle_timeout": st.sampled_from(["off", 5]),
        "session_timeout": st.sampled_from(["off", 20]),
        "restart": st.builds(
            Restart,
            backoff=st.sampled_from([0.0, 1.0]),
            failures=st.integers(1, 4),
            cooldown=st.just(15.0),
            stable=st.sampled_from([10.0, 1000.0]),
        ),
        "seed": st.integers(0, 3),
    }
)


class PoolMachine(RuleBasedStateMachine):
    scene: Scene

    @initialize(chosen=SETTINGS)
    def begin(self, chosen: dict[str, Any]) -> None:
        self.workers: dict[int, ModelWorker] = {}
        self.waiting: list[Request] = []
        self.ended: set[Request] = set()
        self.closed = False
        self.refused = 0
        self.scene = Scene(**chosen)
        self.pool = self.scene.pool
        self.carry_out(self.scene.last)

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
            if self.scene.settings.session == "none":
                assert self.waiting[0] is request, "not in the order of arrival"
            self.waiting.remove(request)  # fails if it was not waiting: given out twice, or ended
            worker.requests.append(request)
            worker.given += 1
            worker.conversations.add(request.conversation or request)
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

    @rule(conversation=st.sampled_from([None, None, "a", "b", "c"]))
    def a_request_comes(self, conversation: str | None) -> None:
        if self.closed:
            return  # the supervisor admits nothing then
        scene = self.scene
        scene.requests += 1
        request = Request(scene.requests, conversation)
        before = repr(self.pool)
        self.waiting.append(request)
        refusal: RefusedError | None = None
        try:
            self.do(self.pool.submit(request, scene.now))
        except RefusedError as error:
            refusal = error
        if refusal is not None:
            self.waiting.remove(request)
            self.refused += 1
            assert refusal.retry_after > 0
            assert repr(self.pool) == before
            if isinstance(refusal, QueueFullError):
                assert len(self.waiting) >= scene.settings.queue
            else:
                assert scene.restart.breaker(scene.now) is not Breaker.CLOSED

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 6.0, 16.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        for plan in self.scene.sleep(seconds):
            self.carry_out(plan)

    def of(self, data: st.DataObject, **flags: bool) -> int | None:
        """One of the workers that stand like that."""
        fitting = [
            number
            for number, worker in self.workers.items()
            if all(getattr(worker, name) is value for name, value in flags.items())
        ]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(data=st.data())
    def a_worker_is_spawned(self, data: st.DataObject) -> None:
        number = self.of(data, spawned=False, condemned=False)
        if number is not None:
            self.workers[number].spawned = True
            self.do(self.pool.spawned(number, self.scene.now))

    @rule(data=st.data(), capacity=st.integers(1, 5))
    def a_worker_speaks(self, data: st.DataObject, capacity: int) -> None:
        number = self.of(data, spawned=True, spoke=False, condemned=False)
        if number is not None:
            self.workers[number].spoke = True
            self.do(self.pool.ready(number, capacity, self.scene.now))

    @rule(data=st.data(), served=st.sampled_from([True, True, False]))
    def a_request_ends(self, data: st.DataObject, served: bool) -> None:
        number = self.of(data, spoke=True, condemned=False)
        requests = [] if number is None else self.workers[number].requests
        if requests:
            self.end(data.draw(st.sampled_from(requests)), served=served)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_that_waits_is_given_up(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.waiting)), served=False)

    def end(self, request: Request, *, served: bool) -> None:
        for place in (self.waiting, *(worker.requests for worker in self.workers.values())):
            if request in place:
                place.remove(request)
        self.ended.add(request)
        self.do(self.pool.finish(request, self.scene.now, served=served))

    @rule(data=st.data(), read=st.integers(0, 4))
    def a_worker_fails(self, data: st.DataObject, read: int) -> None:
        number = self.of(data, stopped=False, condemned=False)
        if number is None:
            return
        worker = self.workers[number]
        worker.condemned = True
        lost, worker.requests = worker.requests, []
        unread = lost[read:]
        self.ended.update(lost[:read])
        self.waiting[:0] = unread
        plan = self.pool.condemn(number, self.scene.now, failed=True, lost=lost, unread=unread)
        self.do(plan)
        if not worker.spawned:
            given_up, plan = self.pool.give_up_waiting(self.scene.now)
            for request in given_up:
                self.waiting.remove(request)
                self.ended.add(request)
            self.do(plan)

    @rule(data=st.data())
    def a_worker_that_was_stopped_ends(self, data: st.DataObject) -> None:
        number = self.of(data, stopped=True, condemned=False)
        if number is not None:
            self.workers[number].condemned = True
            self.do(self.pool.condemn(number, self.scene.now, failed=False))

    @rule(data=st.data())
    def a_process_is_reaped(self, data: st.DataObject) -> None:
        number = self.of(data, condemned=True)
        if number is not None:
            del self.workers[number]
            self.do(self.pool.gone(number, self.scene.now))

    @rule(data=st.data(), paused=st.booleans())
    def a_worker_is_held_back_or_goes_on(self, data: st.DataObject, paused: bool) -> None:
        number = self.of(data, spoke=True, stopped=False, condemned=False)
        if number is not None:
            self.do(self.pool.pause(number, paused=paused, now=self.scene.now))

    @rule(data=st.data())
    def a_worker_is_to_be_replaced(self, data: st.DataObject) -> None:
        number = self.of(data, spoke=True)
        if number is not None:
            self.do(self.pool.retire(number, self.scene.now))

    @precondition(lambda self: not self.closed)
    @rule(sure=st.integers(0, 9))
    def the_agent_is_stopped(self, sure: int) -> None:
        if sure == 0:
            self.closed = True
            self.do(self.pool.stop(self.scene.now))

    # What always holds

    @invariant()
    def every_request_is_where_the_plans_have_put_it(self) -> None:
        assert list(self.pool.queue) == self.waiting
        assert {w.id: w.in_flight for w in self.pool.workers} == {
            number: len(worker.requests) for number, worker in self.workers.items()
        }
        for number, worker in self.workers.items():
            assert all(request.worker_id == number for request in worker.requests)
        assert all(request.worker_id is None for request in (*self.waiting, *self.ended))
        assert self.pool.in_flight == sum(len(w.requests) for w in self.workers.values())

    @invariant()
    def nobody_has_more_than_may_be(self) -> None:
        scene = self.scene
        assert len(self.workers) <= scene.settings.workers.max
        for worker in self.pool.workers:
            assert worker.in_flight <= worker.capacity <= scene.settings.concurrency
            if scene.settings.max_requests:
                assert self.workers[worker.id].given <= scene.settings.max_requests

    @invariant()
    def no_exclusive_worker_ever_sees_two_conversations(self) -> None:
        if self.scene.settings.session == "exclusive":
            for worker in self.workers.values():
                assert len(worker.conversations) <= 1

    @invariant()
    def nothing_waits_that_a_worker_could_take(self) -> None:
        for request in self.pool.queue:
            for worker in self.pool.workers:
                assert not self.may_take(worker, request), f"{worker} could take {request}"

    def may_take(self, worker: PoolWorker[Request], request: Request) -> bool:
        careful = self.scene.restart.breaker(self.scene.now) is not Breaker.CLOSED
        if not worker.can_take or (careful and not worker.idle):
            return False
        session = self.scene.settings.session
        if session == "none" or request.conversation is None:
            return session != "exclusive" or worker.bound_to is None
        key = request.conversation
        homes = [
            w for w in self.pool.workers if w.alive and key in self.workers[w.id].conversations
        ]
        # Under "sticky" it is the last that counts, which only the pool knows; one home is clear.
        if session == "sticky":
            return not homes or homes == [worker]
        return worker.bound_to == key or (worker.bound_to is None and not homes)

    @invariant()
    def whatever_waits_waits_for_something(self) -> None:
        if self.waiting and not self.closed:
            assert self.workers or self.scene.wake_at < math.inf

    @invariant()
    def a_worker_that_is_wanted_and_may_be_started_is_started(self) -> None:
        scene, restart = self.scene, self.scene.restart
        room = scene.settings.workers.max - len(self.workers)
        coming = any(
            w.phase in {WorkerPhase.SPAWNING, WorkerPhase.STARTING} for w in self.pool.workers
        )
        if self.closed or room <= 0 or (restart.failing and coming):
            return
        alive = sum(w.alive for w in self.pool.workers)
        unserved = self.waiting and not coming and scene.settings.session == "none"
        ready = any(w.phase is WorkerPhase.READY for w in self.pool.workers)
        if unserved or (alive < scene.settings.workers.min and not ready):
            assert scene.now < restart.start_at
            assert scene.wake_at <= restart.start_at
        elif alive < scene.settings.workers.min:
            assert scene.wake_at <= max(scene.now + SPARE_DELAY, restart.start_at)

    @invariant()
    def what_is_due_is_looked_at_in_time(self) -> None:
        scene = self.scene
        assert scene.wake_at > scene.now
        for worker in self.pool.workers:
            if (
                worker.alive and worker.phase is not WorkerPhase.SPAWNING
            ):  # which is looked at when it is
                assert worker.expires_at > scene.now
                assert scene.wake_at <= worker.expires_at

    @invariant()
    def the_state_of_a_worker_only_goes_forward(self) -> None:
        order = list(WorkerPhase)
        seen: dict[int, WorkerPhase] = getattr(self, "seen", {})
        self.seen = {w.id: w.phase for w in self.pool.workers}
        for number, phase in self.seen.items():
            assert order.index(seen.get(number, phase)) <= order.index(phase)
        assert all(a < b for a, b in pairwise(sorted(self.seen)))

    def teardown(self) -> None:
        """Whatever it was, it can be brought to an end, and then every request has had one."""
        if not hasattr(self, "scene"):
            return
        if not self.closed:
            self.closed = True
            self.do(self.pool.stop(self.scene.now))
        for request in [*self.waiting, *(r for w in self.workers.values() for r in w.requests)]:
            self.end(request, served=False)
        for number, worker in list(self.workers.items()):
            assert worker.stopped or worker.condemned, "idle, closed, and not stopped"
            if not worker.condemned:
                self.do(self.pool.condemn(number, self.scene.now, failed=False))
            self.do(self.pool.gone(number, self.scene.now))
        assert "[], 0 waiting" in repr(self.pool)
        assert len(self.ended) + self.refused == self.scene.requests


TestPool = PoolMachine.TestCase
TestPool.settings = settings(unhurried, max_examples=150, stateful_step_count=40)
