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
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.agents.blame import Blame
from gateway.agents.crew import RESPITE, SPARE_DELAY
from gateway.agents.pool import WorkerPhase
from gateway.agents.restart import Breaker
from gateway.config import Restart, seconds
from tests.unit.conftest import unhurried
from tests.unit.pool_model import REACHED, SITUATIONS, PoolModel, reached
from tests.unit.pools import Request

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


class PoolMachine(PoolModel):
    @initialize(chosen=SETTINGS, capacity=st.sampled_from([0, 1, 2, 4]))
    def begin(self, chosen: dict[str, Any], capacity: int) -> None:
        self.prepare(chosen)
        if capacity:  # else the first workers are still to come up
            for number in list(self.workers):
                self.come_up(number, capacity)

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

    @precondition(lambda self: self.having("serves"))
    @rule(data=st.data(), served=st.sampled_from([True, True, False]))
    def a_request_ends(self, data: st.DataObject, served: bool) -> None:
        number = data.draw(st.sampled_from(self.having("serves")))
        request = data.draw(st.sampled_from(self.workers[number].requests))
        self.answer(number, request, served=served)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_that_waits_is_given_up(self, data: st.DataObject) -> None:
        reached("a request ends while it waits")
        self.end(data.draw(st.sampled_from(self.waiting)), served=False)

    @precondition(lambda self: self.having("may_fail"))
    @rule(data=st.data())
    def a_worker_fails(self, data: st.DataObject) -> None:
        self.fail(data.draw(st.sampled_from(self.having("may_fail"))), read=0)

    @precondition(lambda self: self.having("works"))
    @rule(data=st.data(), read=st.integers(0, 2))
    def a_worker_fails_at_work(self, data: st.DataObject, read: int) -> None:
        self.fail(data.draw(st.sampled_from(self.having("works"))), read)

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
