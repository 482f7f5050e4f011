"""The pool under everything that can happen to it, in any order.

A model beside the pool knows where each request is and how each worker stands, from the plans and
the rules alone. Whatever the order: no request is lost or given out twice, no worker gets more than
its capacity, nothing waits that could be served, and the pool asks to be looked at again before
something is due.

A machine that never comes to where the decisions are hard proves nothing there. The situations that
matter have names (`SITUATIONS`), the rules note those that they come into, and the test fails if
one was never reached. The examples are derived from the test itself, not drawn anew in each run, so
that neither verdict depends on chance.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.agents.blame import Blame
from gateway.agents.crew import RESPITE, SPARE_DELAY
from gateway.agents.pool import (
    Plan,
    QueueFullError,
    RefusedError,
    WorkerPhase,
)
from gateway.agents.restart import Breaker
from gateway.config import Restart, seconds
from tests.unit.conftest import unhurried
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


SETTINGS = st.fixed_dictionaries(
    {
        "workers": st.sampled_from(
            [
                {"min": 3, "max": 3},
                {"min": 2, "max": 2},
                {"min": 1, "max": 1},
                {"min": 3, "max": 4},
                {"min": 1, "max": 3},
                {"min": 0, "max": 2},
                {"min": 2, "max": 4, "spare": 1},
                {"min": 0, "max": 4, "spare": 2},
            ]
        ),
        "session": st.sampled_from(["none", "none", "sticky", "exclusive"]),
        "concurrency": st.sampled_from([1, 2, 4, 4]),
        "queue": st.sampled_from([0, 4, 8, 8]),
        "max_requests": st.sampled_from([0, 0, 0, 0, 1, 3]),
        "max_age": st.sampled_from(["off", 50]),
        "idle_timeout": st.sampled_from(["off", 5]),
        "session_timeout": st.sampled_from(["off", 20]),
        "restart": st.builds(
            Restart,
            backoff=st.sampled_from([0.0, 1.0]),
            failures=st.sampled_from([1, 2, 4]),
            cooldown=st.just(15.0),
            stable=st.sampled_from([10.0, 1000.0]),
        ),
        "seed": st.integers(0, 3),
    }
)


CONVERSATIONS = st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=4)


class PoolMachine(RuleBasedStateMachine):
    scene: Scene

    @initialize(chosen=SETTINGS, capacity=st.sampled_from([0, 1, 2, 4]))
    def begin(self, chosen: dict[str, Any], capacity: int) -> None:
        self.workers: dict[int, ModelWorker] = {}
        self.waiting: list[Request] = []
        self.ended: set[Request] = set()
        self.closed = False
        self.refused = 0
        self.scene = Scene(**chosen)
        self.pool = self.scene.pool
        self.carry_out(self.scene.last)
        if capacity:  # else the first workers are still to come up
            for number in list(self.workers):
                self.come_up(number, capacity)

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

    def having(self, predicate: str) -> list[int]:
        """The workers for which a predicate of `ModelWorker` holds."""
        return [number for number, worker in self.workers.items() if getattr(worker, predicate)]

    def phase(self, number: int) -> WorkerPhase:
        return self.scene.worker(number).phase

    @property
    def wants_requests(self) -> bool:
        """Whether more requests would show more: the supervisor admits none to a closed pool, and
        to a full queue one is enough."""
        return not self.closed and len(self.waiting) < 5

    # What can happen

    @precondition(lambda self: self.wants_requests)
    @rule(conversation=st.sampled_from([None, "a", "b", "c"]))
    def a_request_comes(self, conversation: str | None) -> None:
        self.submit(conversation)

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

    @precondition(lambda self: self.wants_requests)
    @rule(
        data=st.data(),
        capacity=st.sampled_from([1, 2, 4]),
        before=CONVERSATIONS,
        trouble=st.sampled_from(["none", "one is paused", "one fails", "all fail but one"]),
        after=CONVERSATIONS,
    )
    def trouble_comes_to_a_busy_pool(
        self,
        data: st.DataObject,
        capacity: int,
        before: list[str | None],
        trouble: str,
        after: list[str | None],
    ) -> None:
        """From single steps alone, a pool is seldom at work for long enough to have something to
        lose."""
        for number in self.having("is_coming"):
            self.come_up(number, capacity)
        self.submit(*before)
        at_work = self.having("streams")
        chosen = data.draw(st.sampled_from(at_work)) if at_work else None
        if chosen and trouble == "one is paused":
            self.pause(chosen, paused=True)
        elif chosen and trouble == "one fails":
            self.fail(chosen, read=0)
        elif chosen and trouble == "all fail but one":
            for number in self.having("may_fail"):
                if number != chosen and self.workers[number].may_fail:
                    self.fail(number, read=4)
        self.submit(*after)
        for _ in range(data.draw(st.integers(0, 4))):
            for number in self.having("serves")[:1]:
                self.answer(number, self.workers[number].requests[0], served=True)
        if chosen and self.workers[chosen].is_held:
            self.pause(chosen, paused=False)

    @rule(time=st.sampled_from([0.5, 2.0, 6.0, 20.0, 20.0, 60.0]))
    def time_passes(self, time: float) -> None:
        for plan in self.scene.sleep(time):
            self.carry_out(plan)
            reached(
                "a conversation that waits takes the place of one that is silent",
                any(map(self.is_taken_for_another, plan.stop)),
            )
            reached("a worker is stopped because it was idle for long", plan.stop)

    def is_taken_for_another(self, number: int) -> bool:
        """Whether a worker that was stopped could have been kept for its conversation."""
        worker, chosen, now = self.scene.worker(number), self.scene.settings, self.scene.now
        silent_for_long = now >= worker.idle_since + seconds(chosen.session_timeout)
        is_exclusive = chosen.session == "exclusive" and bool(self.waiting)
        return is_exclusive and not silent_for_long and now < worker.expires_at

    @precondition(lambda self: self.wants_requests and self.scene.settings.session == "exclusive")
    @rule(time=st.sampled_from([RESPITE / 2, RESPITE]))
    def more_conversations_come_than_there_may_be_workers(self, time: float) -> None:
        for name in "abcde":
            self.submit(name)
            for number in self.having("is_coming"):
                self.come_up(number, 1)
            for number in self.having("serves"):
                self.answer(number, self.workers[number].requests[0], served=True)
        self.time_passes(time)

    @precondition(lambda self: self.having("is_coming"))
    @rule(data=st.data(), capacity=st.integers(1, 5), speaks=st.sampled_from([True, True, False]))
    def a_worker_comes_up(self, data: st.DataObject, capacity: int, speaks: bool) -> None:
        number = data.draw(st.sampled_from(self.having("is_coming")))
        if not self.workers[number].spawned and not speaks:
            self.spawn(number)
        else:
            self.come_up(number, capacity)

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

    @precondition(lambda self: self.having("serves"))
    @rule(data=st.data(), served=st.sampled_from([True, True, False]))
    def a_request_ends(self, data: st.DataObject, served: bool) -> None:
        number = data.draw(st.sampled_from(self.having("serves")))
        request = data.draw(st.sampled_from(self.workers[number].requests))
        self.answer(number, request, served=served)

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

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_that_waits_is_given_up(self, data: st.DataObject) -> None:
        reached("a request ends while it waits")
        self.end(data.draw(st.sampled_from(self.waiting)), served=False)

    def end(self, request: Request, *, served: bool) -> Plan[Request]:
        for place in (self.waiting, *(worker.requests for worker in self.workers.values())):
            if request in place:
                place.remove(request)
        self.ended.add(request)
        return self.do(self.pool.finish(request, self.scene.now, served=served))

    @precondition(lambda self: self.having("may_fail"))
    @rule(data=st.data())
    def a_worker_fails(self, data: st.DataObject) -> None:
        self.fail(data.draw(st.sampled_from(self.having("may_fail"))), read=0)

    @precondition(lambda self: self.having("works"))
    @rule(data=st.data(), read=st.integers(0, 2))
    def a_worker_fails_at_work(self, data: st.DataObject, read: int) -> None:
        self.fail(data.draw(st.sampled_from(self.having("works"))), read)

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

    @precondition(lambda self: self.having("is_ending"))
    @rule(data=st.data(), reaped=st.sampled_from([True, True, False]))
    def a_process_ends(self, data: st.DataObject, reaped: bool) -> None:
        number = data.draw(st.sampled_from(self.having("is_ending")))
        if not self.workers[number].condemned:
            self.workers[number].condemned = True
            self.do(self.pool.condemn(number, self.scene.now, blame=Blame.NOBODY))
        if reaped:
            del self.workers[number]
            self.do(self.pool.gone(number, self.scene.now))

    @precondition(lambda self: self.having("streams"))
    @rule(data=st.data())
    def a_slow_client_pauses_a_worker(self, data: st.DataObject) -> None:
        self.pause(data.draw(st.sampled_from(self.having("streams"))), paused=True)

    @precondition(lambda self: self.having("is_held"))
    @rule(data=st.data())
    def a_paused_worker_goes_on(self, data: st.DataObject) -> None:
        self.pause(data.draw(st.sampled_from(self.having("is_held"))), paused=False)

    def pause(self, number: int, *, paused: bool) -> None:
        self.workers[number].paused = paused
        plan = self.do(self.pool.pause(number, paused=paused, now=self.scene.now))
        reached("a worker that was paused goes on and is given what waited", plan.assign)

    @precondition(lambda self: self.having("may_fail"))
    @rule(data=st.data())
    def a_worker_is_to_be_replaced(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.having("may_fail")))
        self.do(self.pool.retire(number, self.scene.now))
        reached("a worker is replaced while it has requests", self.workers[number].requests)

    @precondition(lambda self: not self.closed and len(self.ended) >= 10)
    @rule()
    def the_agent_is_stopped(self) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        reached("the pool is closed while requests wait", self.waiting)
        reached(
            "the pool is closed while a worker has requests",
            any(worker.requests for worker in self.workers.values()),
        )
        self.do(self.pool.stop(self.scene.now))

    # What always holds

    @invariant()
    def every_request_is_where_the_plans_have_put_it(self) -> None:
        assert list(self.pool.queue) == self.waiting
        assert {number: self.scene.load(number) for number in self.scene.numbers} == {
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
        for worker in self.workers.values():
            assert len(worker.requests) <= worker.capacity <= scene.settings.concurrency
            if scene.settings.max_requests:
                assert worker.given <= scene.settings.max_requests

    @invariant()
    def no_exclusive_worker_ever_sees_two_conversations(self) -> None:
        if self.scene.settings.session == "exclusive":
            for worker in self.workers.values():
                assert len(worker.conversations) <= 1

    @invariant()
    def nothing_waits_that_a_worker_could_take(self) -> None:
        for request in self.waiting:
            for number in self.workers:
                assert not self.may_take(number, request), f"{number} could take {request}"

    def may_take(self, number: int, request: Request) -> bool:
        worker, session = self.workers[number], self.scene.settings.session
        careful = self.scene.restart.breaker(self.scene.now) is not Breaker.CLOSED
        if (
            self.phase(number) not in {WorkerPhase.STARTING, WorkerPhase.READY}
            or worker.paused
            or len(worker.requests) >= (1 if careful else worker.capacity)
        ):
            return False
        if session == "none":
            return True
        key = request.conversation or request
        homes = [
            self.workers[w.id]
            for w in self.pool.workers
            if w.alive and key in self.workers[w.id].conversations
        ]
        # Under "sticky" it is the last that counts, which only the pool knows; one home is clear.
        if session == "sticky":
            return not homes or homes == [worker]
        return worker in homes or not (homes or worker.conversations)

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
        unserved = self.some_wait_for_any and not coming
        ready = any(w.phase is WorkerPhase.READY for w in self.pool.workers)
        if unserved or (alive < scene.settings.workers.min and not ready):
            assert scene.now < restart.start_at
            assert scene.wake_at <= restart.start_at
        elif alive < scene.settings.workers.min:
            assert scene.wake_at <= max(scene.now + SPARE_DELAY, restart.start_at)

    @property
    def some_wait_for_any(self) -> bool:
        """Whether a request waits that no worker was ever better for than another."""
        if self.scene.settings.session != "sticky":
            return bool(self.waiting) and self.scene.settings.session == "none"
        alive = [self.workers[w.id].conversations for w in self.pool.workers if w.alive]
        return any(not any(r.conversation in here for here in alive) for r in self.waiting)

    @invariant()
    def a_conversation_without_a_place_waits_only_for_those_that_are_not_silent(self) -> None:
        scene = self.scene
        if scene.settings.session != "exclusive" or self.closed or scene.restart.failing:
            return
        alive = [w for w in self.pool.workers if w.alive]
        idle = [w for w in alive if not self.workers[w.id].requests]
        bound = [w for w in idle if self.workers[w.id].conversations]
        homes = {key for w in alive for key in self.workers[w.id].conversations}
        lacking = {request.conversation or request for request in self.waiting} - homes
        staying = [n for n, w in self.workers.items() if not (w.stopped or w.condemned)]
        places = scene.settings.workers.max - len(staying) + len(idle) - len(bound)
        if len(lacking) > places:
            for worker in bound:
                assert scene.now < worker.idle_since + RESPITE
                assert scene.wake_at <= worker.idle_since + RESPITE
            reached("a conversation waits because the others were busy a moment ago", bound)

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
            self.close()
        for request in [*self.waiting, *(r for w in self.workers.values() for r in w.requests)]:
            self.end(request, served=False)
        for number, worker in list(self.workers.items()):
            assert worker.stopped or worker.condemned, "idle, closed, and not stopped"
            if not worker.condemned:
                self.do(self.pool.condemn(number, self.scene.now, blame=Blame.NOBODY))
            self.do(self.pool.gone(number, self.scene.now))
        assert "[], 0 waiting" in repr(self.pool)
        assert len(self.ended) + self.refused == self.scene.requests


@pytest.mark.timeout(400)  # a failure is shrunk for up to five minutes, and is worth it
def test_the_pool_whatever_happens_to_it_in_any_order() -> None:
    REACHED.clear()
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(unhurried, derandomize=True, max_examples=400, stateful_step_count=40),
    )
    assert not SITUATIONS - REACHED.keys(), "the machine never came to these"
