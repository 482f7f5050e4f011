"""Which runs are kept and which are forgotten: in examples, and in any order of events."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import Overloaded
from gateway.front.runs.registry import Registry

TTL = 100.0


class FakeRun:
    """What a registry knows of a run. `least` is what it does not give away while it is read."""

    def __init__(
        self, number: int, agent: str = "a", key: bytes | None = None, owner: str = ""
    ) -> None:
        self.token = str(number)
        self.agent = agent
        self.owner = owner
        self.key = key
        self.keys = [] if key is None else [key]
        self.ended_at = math.inf
        self.attached = False
        self.was_read = False
        self.cost = 0
        self.gone = False
        self.whole = False
        """Whether its answer is one response, which is not taken away while it is being sent."""

    def __repr__(self) -> str:
        return f"<FakeRun {self.token} {self.agent} {self.cost}>"

    def shed(self, cost: int) -> None:
        assert cost > 0
        if self.ended_at == math.inf:
            self.cost -= min(cost, self.cost)
        elif not (self.whole and self.attached):
            self.forget()

    def forget(self) -> None:
        self.gone = True
        self.cost = 0


def registry(**bounds: Any) -> Registry[FakeRun]:
    return Registry(**{"most_runs": 10, "most_bytes": 1000, "ttl": TTL, **bounds})


def started(it: Registry[FakeRun], *runs: FakeRun, now: float = 0.0) -> None:
    for run in runs:
        it.make_place(now, has_key=run.key is not None)
        it.add(run)


def ended(it: Registry[FakeRun], run: FakeRun, now: float, cost: int = 0) -> None:
    run.ended_at = now
    run.cost = cost
    it.ended(run)


# Time


def test_a_run_is_kept_for_its_time_after_its_end_and_no_longer() -> None:
    it = registry()
    first, second = FakeRun(1), FakeRun(2, key=b"k")
    started(it, first, second)
    assert it.next_expiry == math.inf
    it.expire(1e9)
    ended(it, second, 5)
    ended(it, first, 10)
    assert it.next_expiry == 5 + TTL
    it.expire(4.9 + TTL)
    assert len(it) == 2
    it.expire(5 + TTL)
    assert list(it) == [first]
    assert it.find_by_key(b"k") is None
    assert second.gone
    it.expire(10 + TTL)
    assert len(it) == 0


def test_one_that_is_read_when_its_time_is_over_is_read_to_its_end() -> None:
    it = registry()
    run = FakeRun(1)
    started(it, run)
    run.attached = True
    ended(it, run, 0, cost=10)
    it.expire(TTL)
    assert it.find("1") is None
    assert not run.gone
    assert it.size == 10, "it counts for as long as it is there"
    run.attached = False
    it.note_left(run)
    assert run.gone
    assert it.size == 0


# Number


def test_a_new_run_takes_the_place_of_one_that_was_read_then_of_the_oldest() -> None:
    it = registry(most_runs=3)
    runs = [FakeRun(number) for number in range(6)]
    started(it, *runs[:3])
    for now, run in enumerate(runs[:3]):
        ended(it, run, now)
    runs[1].was_read = True
    it.note_read(runs[1])
    started(it, runs[3])
    assert list(it) == [runs[0], runs[2], runs[3]]
    started(it, runs[4])
    assert list(it) == [runs[2], runs[3], runs[4]]


def test_whoever_starts_many_runs_displaces_their_own() -> None:
    it = registry(most_runs=10)
    few = [FakeRun(number, owner="few") for number in range(3)]
    started(it, *few)
    for run in few:
        ended(it, run, 0)
    for number in range(10, 100):
        run = FakeRun(number, owner="many")
        started(it, run, now=1)
        ended(it, run, 1)
        run.was_read = number % 2 == 0
        it.note_read(run)
    assert [it.find(run.token) for run in few] == few
    assert len(it) == 10


def test_a_key_is_not_forgotten_for_the_sake_of_another_run() -> None:
    it = registry(most_runs=2)
    keyed, going = FakeRun(1, key=b"k"), FakeRun(2)
    started(it, keyed, going)
    ended(it, keyed, 0)
    with pytest.raises(Overloaded, match=r"2 runs .* \[server.runs\] max .* ttl") as caught:
        it.make_place(40, has_key=False)
    assert caught.value.retry_after == TTL - 40
    assert it.find_by_key(b"k") is keyed
    it.make_place(TTL, has_key=False)
    assert it.find_by_key(b"k") is None


def test_keys_leave_room_for_runs_without_one() -> None:
    it = registry(most_runs=8)
    keyed = [FakeRun(number, key=b"%d" % number) for number in range(7)]
    started(it, *keyed[:6])
    for now, run in enumerate(keyed[:6]):
        ended(it, run, now)
    with pytest.raises(
        Overloaded, match=r"6 runs are kept for their .* \[server.runs\] max"
    ) as caught:
        started(it, keyed[6], now=10)
    assert caught.value.retry_after == TTL - 10
    for number in range(10, 20):
        run = FakeRun(number)
        started(it, run, now=10)
        ended(it, run, 10)
    assert len(it) == 8
    started(it, keyed[6], now=TTL)


def test_a_place_is_held_for_a_run_that_does_not_begin_at_once() -> None:
    it = registry(most_runs=4)
    with it.place(0, has_key=True), it.place(0, has_key=True):
        started(it, FakeRun(1, key=b"1"))
        with pytest.raises(Overloaded, match="3 runs are kept for their Idempotency-Keys"):
            it.make_place(0, has_key=True)
        started(it, FakeRun(2))
        with pytest.raises(Overloaded, match="4 runs go on"):
            it.make_place(0, has_key=False)
    started(it, FakeRun(3, key=b"3"), FakeRun(4))  # neither has begun


def test_where_all_go_on_it_is_said_when_to_come_back() -> None:
    it = registry(most_runs=1)
    started(it, FakeRun(1))
    with pytest.raises(Overloaded) as caught:
        it.make_place(0, has_key=False)
    assert caught.value.retry_after == 1


def test_the_keys_of_a_run_are_those_of_the_one_that_takes_its_place() -> None:
    it = registry()
    first, second = FakeRun(1, key=b"1"), FakeRun(1, key=b"2")
    started(it, first)
    ended(it, first, 1.0)
    second.keys = [*it.keys_of(first), b"2"]
    it.replace(first)
    it.add(second)
    assert it.find_by_key(b"1") is it.find_by_key(b"2") is it.find("1") is second
    ended(it, second, 2.0)
    it.forget_key(second)
    assert (it.find_by_key(b"1"), it.find_by_key(b"2")) == (second, None)
    it.expire(2.0 + TTL)
    assert (it.find_by_key(b"1"), len(it)) == (None, 0)


def test_a_key_of_a_request_that_never_began_may_be_used_again() -> None:
    it = registry(most_runs=1)
    run = FakeRun(1, key=b"k")
    started(it, run)
    it.forget_key(run)
    ended(it, run, 0)
    assert it.find_by_key(b"k") is None
    assert it.find("1") is run
    started(it, FakeRun(2, key=b"k"))
    assert it.find("1") is None, "it keeps its place for nobody"


# Memory


def test_what_was_read_goes_first_then_the_oldest_and_what_somebody_reads_last() -> None:
    it = registry()
    old, young, read, going, attached = runs = [FakeRun(number) for number in range(5)]
    started(it, *runs)
    attached.attached = True
    going.cost = 200
    it.note_cost(going)
    for now, run in enumerate((old, young, read)):
        ended(it, run, now, 200)
    read.was_read = True
    it.note_read(read)

    def after_more(cost: int) -> list[int]:
        attached.cost += cost
        it.note_cost(attached)
        assert it.size <= 1000
        return [run.cost for run in runs]

    assert after_more(201) == [200, 200, 0, 200, 201]
    assert after_more(200) == [0, 200, 0, 200, 401]
    assert after_more(201) == [0, 0, 0, 200, 602]
    assert after_more(250) == [0, 0, 0, 23, 852]
    assert after_more(500) == [0, 0, 0, 0, 875]


def test_an_agent_that_floods_takes_nothing_from_one_that_holds_less_than_its_share() -> None:
    it = registry(most_runs=100)
    modest = FakeRun(0, "modest")
    started(it, modest)
    ended(it, modest, 0, 400)
    floods = [FakeRun(number, "flood") for number in range(1, 50)]
    started(it, *floods)
    for run in floods:
        run.cost = 300
        it.note_cost(run)
        assert it.size <= 1000
    assert modest.cost == 400


def test_a_caller_that_floods_an_agent_takes_nothing_from_one_that_holds_less_there() -> None:
    it = registry(most_runs=100)
    modest = FakeRun(0, owner="modest")
    started(it, modest)
    ended(it, modest, 0, 400)
    floods = [FakeRun(number, owner="flood") for number in range(1, 50)]
    started(it, *floods)
    for run in floods:
        run.cost = 300
        it.note_cost(run)
        assert it.size <= 1000
    assert modest.cost == 400


def test_one_answer_that_is_being_sent_stays_whole() -> None:
    it = registry()
    run = FakeRun(1)
    run.whole = run.attached = True
    started(it, run)
    ended(it, run, 0, 5000)
    assert not run.gone
    run.attached = False
    other = FakeRun(2)
    started(it, other)
    ended(it, other, 1, 10)
    assert run.gone
    assert list(it) == [other]


def test_one_answer_that_exceeds_the_memory_is_freed_when_it_was_sent() -> None:
    it = registry()
    sent, other = FakeRun(1, "a"), FakeRun(2, "b")
    started(it, sent, other)
    sent.whole = sent.attached = True
    ended(it, sent, 0, 800)
    ended(it, other, 1, 300)
    assert it.size == 1100
    sent.attached = False
    it.note_left(sent)
    assert sent.gone
    assert other.cost == 300


def test_the_record_of_a_key_stays_when_its_answer_is_freed() -> None:
    it = registry()
    run = FakeRun(1, key=b"k")
    started(it, run)
    ended(it, run, 0, 1001)
    assert run.gone
    assert it.find_by_key(b"k") is run
    assert it.find("1") is run


class Machine(RuleBasedStateMachine):
    """Any order of what can happen; afterwards the bounds hold, and nobody was wronged."""

    def __init__(self) -> None:
        super().__init__()
        self.it = registry(most_runs=6)
        self.now = 0.0
        self.runs: list[FakeRun] = []
        self.keys: dict[bytes, FakeRun] = {}
        """Every key with the run that must still answer to it."""

    def some(self, data: st.DataObject, *, going: bool | None = None) -> FakeRun | None:
        fitting = [run for run in self.runs if going is None or (run.ended_at == math.inf) is going]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(
        agent=st.sampled_from("abc"),
        key=st.none() | st.sampled_from([b"k", b"l", b"m"]),
        owner=st.sampled_from(["", "x", "y"]),
    )
    def begin(self, agent: str, key: bytes | None, owner: str) -> None:
        if key is not None and self.it.find_by_key(key) is not None:
            return
        run = FakeRun(len(self.runs), agent, key, owner)
        try:
            self.it.make_place(self.now, has_key=key is not None)
        except Overloaded:
            assert (key is not None and len(self.keys) >= 5) or all(
                each.ended_at == math.inf or self.keys.get(each.key or b"") is each
                for each in self.it
            )
            return
        self.forget_expired()
        self.it.add(run)
        self.runs.append(run)
        if key is not None:
            assert key not in self.keys, "the agent would run twice"
            self.keys[key] = run

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), cost=st.integers(0, 700))
    def say(self, data: st.DataObject, cost: int) -> None:
        run = self.some(data, going=True)
        if run is not None:
            run.cost += cost
            self.it.note_cost(run)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), whole=st.booleans(), begun=st.booleans())
    def end(self, data: st.DataObject, whole: bool, begun: bool) -> None:
        run = self.some(data, going=True)
        if run is not None:
            run.whole = whole
            run.ended_at = self.now
            if not begun:
                self.it.forget_key(run)
                if run.key is not None and self.keys.get(run.key) is run:
                    del self.keys[run.key]
            self.it.ended(run)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        run = self.some(data)
        if run is not None and self.it.find(run.token) is run and not run.gone:
            run.attached = True

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), read=st.booleans())
    def leave(self, data: st.DataObject, read: bool) -> None:
        run = self.some(data)
        if run is not None and run.attached:
            run.attached = False
            if read and run.ended_at < math.inf:
                run.was_read = True
                self.it.note_read(run)
            self.it.note_left(run)

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, TTL]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.it.expire(self.now)
        self.forget_expired()

    def forget_expired(self) -> None:
        self.keys = {key: run for key, run in self.keys.items() if self.now < run.ended_at + TTL}

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.it) <= 6
        kept = [run for run in self.runs if run.cost]
        assert self.it.size == sum(run.cost for run in kept)
        # Only what is being sent whole may exceed the memory.
        held = sum(run.cost for run in kept if run.whole and run.attached)
        assert self.it.size - held <= 1000

    @invariant()
    def no_run_that_goes_on_is_forgotten_and_no_key_before_its_time(self) -> None:
        for run in self.runs:
            if run.ended_at == math.inf:
                assert self.it.find(run.token) is run
                assert not run.gone
        for key, run in self.keys.items():
            assert self.it.find_by_key(key) is run

    @invariant()
    def what_is_forgotten_and_unread_keeps_nothing(self) -> None:
        for run in self.runs:
            if self.it.find(run.token) is None and not run.attached:
                assert run.cost == 0


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
