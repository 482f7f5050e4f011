"""One agent's supervisor, with workers that are no processes, in virtual time."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.status import AgentState
from gateway.errors import (
    Cancelled,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from gateway.workers.events import Reason
from protocol import Ready
from tests.unit.conftest import unhurried
from tests.unit.workers import AgentScene, Crew, running


async def test_a_request_is_answered_within_the_step_that_admits_it() -> None:
    async with running(AgentScene()) as it:
        exchange = it.ask("answer")
        assert exchange.result == b'"answer"'
        assert it.agent.summary.in_flight == 0
        assert it.agent.state is AgentState.READY


async def test_what_a_worker_reports_within_a_step_waits_for_its_end() -> None:
    # The only worker takes one request at a time, and each answer, given within `send`, is
    # followed by the next request: were it handled at once, each step would stand in the last.
    most = sys.getrecursionlimit()
    async with running(AgentScene(concurrency=1, queue=most)) as it:
        first = it.ask("hold")
        waiting = [it.ask("answer") for _ in range(most)]
        assert it.agent.summary.waiting == most
        it.crew[1].answers(first)
        assert all(exchange.result == b'"answer"' for exchange in waiting)
        assert it.agent.summary.waiting == it.agent.summary.in_flight == 0


# The faults of a transition that is entered from within itself


async def paused_worker_with_a_request_waiting(it: AgentScene) -> tuple[Exchange, Exchange]:
    """A stream whose client does not read holds back the only worker; another request waits."""
    stream = it.ask("hold", stream=True)
    stream.add_words([b'"' + b"x" * MAX_BUFFERED_BYTES + b'"'], trio.current_time())
    assert stream.full
    worker = it.crew[1]
    worker.pauses()

    async def go_on() -> None:
        await stream.wait_for_room()
        worker.pauses(paused=False)

    trio.lowlevel.spawn_system_task(go_on)
    await wait_all_tasks_blocked()
    return stream, it.ask("answer")


async def test_a_request_that_waits_for_a_paused_worker_survives_its_death(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene()) as it:
        stream, second = await paused_worker_with_a_request_waiting(it)
        it.crew[1].ends(Reason.EXITED)
        await wait_all_tasks_blocked()
        assert isinstance(stream.error, WorkerCrashed)
        with trio.fail_after(1):
            await second.collect()
        assert second.result == b'"answer"'
        assert it.crew[1].given == ["r-1"]
        assert it.crew[2].given == ["r-2"]


async def test_no_request_is_handed_to_an_agent_after_its_caller_was_told_of_the_shutdown() -> None:
    async with running(AgentScene()) as it:
        stream, second = await paused_worker_with_a_request_waiting(it)
        it.agent.stop(ShuttingDown("the gateway is shutting down"))
        await wait_all_tasks_blocked()
        assert isinstance(stream.error, ShuttingDown)
        assert isinstance(second.error, ShuttingDown)
        assert it.crew[1].given == ["r-1"]


# Cancels


async def test_a_request_that_is_left_while_it_waits_is_given_to_nobody() -> None:
    async with running(AgentScene(concurrency=1)) as it:
        first, second, third = it.ask("hold"), it.ask("hold"), it.ask("answer")
        it.agent.leave(second)
        assert isinstance(second.error, Cancelled)
        it.crew[1].answers(first)
        assert third.result is not None
        assert it.crew[1].given == ["r-1", "r-3"]


async def test_a_request_that_is_left_at_its_worker_is_cancelled_there_once() -> None:
    async with running(AgentScene()) as it:
        exchange = it.ask("hold")
        it.agent.leave(exchange)
        it.agent.leave(exchange)
        assert it.crew[1].cancelled == ["r-1"]
        assert it.agent.summary.in_flight == 0


async def test_a_worker_that_ignores_a_cancel_is_replaced_when_it_has_nothing_else(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(Crew(deaf=True), clocks={"cancel": 5})) as it:
        ignored = it.ask("hold")
        it.agent.leave(ignored)
        await trio.sleep(5.1)
        assert it.crew[1].reason is Reason.UNRESPONSIVE
        assert it.agent.summary.failures == 0
        assert it.agent.summary.in_flight == 0
        assert it.ask("answer").call.request_id in it.crew[2].given


async def test_a_worker_that_ignores_a_cancel_finishes_what_else_it_has(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(Crew(deaf=True), clocks={"cancel": 5})) as it:
        ignored, other = it.ask("hold"), it.ask("hold")
        it.agent.leave(ignored)
        await trio.sleep(5.1)
        assert it.crew[1].reason is None
        it.crew[1].answers(other)
        assert other.result is not None
        assert it.crew[1].reason is Reason.ASKED
        # Its late answer to what it was told to drop changes nothing.
        it.crew[1].answers(ignored)
        await wait_all_tasks_blocked()
        assert it.agent.summary.in_flight == 0


# Admission, memory, and the end


async def test_admission_refuses_what_cannot_be_served() -> None:
    async with running(AgentScene(concurrency=1, queue=1)) as it:
        it.ask("hold"), it.ask("hold")
        with pytest.raises(Overloaded, match="1 requests are waiting for agent 'a' already"):
            it.ask()
        call = it.call("hold")
        with pytest.raises(HandlerNotImplemented, match="no chat handler"):
            it.agent.submit(
                type(call)(agent="a", method="chat", payload=b"[]", stream=False, request_id="x")
            )
        it.agent.drain()
        assert it.agent.state is AgentState.DRAINING
        with pytest.raises(ShuttingDown):
            it.ask()
        it.crew[1].answers(it.crew[1].exchanges[0])
        assert it.crew[1].given == ["r-1", "r-2"], "what was admitted is served while it drains"


async def test_stopping_ends_everything_and_run_returns_when_the_last_worker_is_reaped() -> None:
    crew = Crew()
    crew.slow_to_reap = True
    it = AgentScene(crew, workers={"min": 2, "max": 2}, concurrency=1)
    returned = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await it.agent.run(task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        it.agent.warm_up()
        await wait_all_tasks_blocked()
        held, waiting = [it.ask() for _ in range(2)], it.ask()
        it.agent.stop(ShuttingDown("now"))
        assert all(isinstance(e.error, ShuttingDown) for e in (*held, waiting))
        await wait_all_tasks_blocked()
        assert {w.reason for w in crew.workers.values()} == {Reason.ASKED}
        crew[1].reaps.set()
        await wait_all_tasks_blocked()
        assert not returned.is_set()
        crew[2].reaps.set()
        await returned.wait()


async def test_a_worker_over_its_memory_is_replaced_when_it_is_idle(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock must not jump while a thread works.
    async def memory(pids: Any) -> dict[int, int]:
        return dict.fromkeys(pids, 2_000_000)

    monkeypatch.setattr("gateway.agents.growth.measure_all", memory)
    async with running(AgentScene(max_rss="1M")) as it:
        held = it.ask("hold")
        await trio.sleep(5.1)
        assert it.crew[1].reason is None
        it.crew[1].answers(held)
        assert it.crew[1].reason is Reason.ASKED


async def test_the_status_is_a_value_with_what_every_worker_does() -> None:
    async with running(AgentScene(description="Echoes.", workers={"max": 3})) as it:
        it.ask("hold")
        status = await it.agent.status()
        assert (status.name, status.description, status.state) == ("a", "Echoes.", "ready")
        assert status.handlers == ("invoke",)
        assert (status.in_flight, status.waiting, status.started) == (1, 0, 1)
        (worker,) = status.workers
        assert (worker.state, worker.in_flight, worker.capacity) == ("ready, busy", 1, 8)
        assert status.limits.max_workers == 3
        assert (status.sandbox, status.network) == ({"level": "off"}, {"requests": 1})


# Everything else

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "ask", "leave", "answer", "die", "unread", "pause", "misbehave", "wait"]
        ),
        st.integers(0, 5),
    ),
    min_size=20,
    max_size=60,
)
REACHED: set[str] = set()


@given(ACTIONS, st.integers(1, 3), st.sampled_from(["none", "sticky", "exclusive"]))
@settings(unhurried, max_examples=150, derandomize=True)
def test_every_request_ends_once_whatever_the_workers_do(
    actions: list[tuple[str, int]], most: int, session: str
) -> None:
    async def play() -> None:
        options: dict[str, Any] = {"restart": {"failures": 50, "backoff": 0}, "session": session}
        scene = AgentScene(workers={"min": 0, "max": most}, concurrency=2, queue=4, **options)
        exchanges: list[Exchange] = []
        async with running(scene) as it:
            for what, number in actions:
                workers = [w for w in it.crew.workers.values() if w.reason is None and w.spoke]
                worker = workers[number % len(workers)] if workers else None
                mine = [e for e in exchanges if not e.ended]
                if what == "ask":
                    wish = ("hold", "hold", "answer", "die", "speak", "hold")[number]
                    conversation = (None, "c", "d")[number % 3]
                    try:
                        exchanges.append(it.ask(wish, conversation=conversation))
                    except GatewayError as error:
                        REACHED.add(error.type)
                elif what == "leave" and mine:
                    it.agent.leave(mine[number % len(mine)])
                elif what == "wait":
                    await trio.sleep(1)
                elif worker is not None:
                    act(worker, what, number)
                await wait_all_tasks_blocked()
                look(it, exchanges)
        for exchange in exchanges:
            assert exchange.ended
            assert (exchange.result is None) != (exchange.error is None)
        for worker in scene.crew.workers.values():
            assert len(worker.given) == len(set(worker.given))

    trio.run(play, clock=MockClock(autojump_threshold=0))


def act(worker: Any, what: str, number: int) -> None:
    held = worker.exchanges
    if what == "answer" and held:
        worker.answers(held[number % len(held)])
    elif what == "pause":
        worker.pauses(paused=number % 2 == 0)
    elif what == "misbehave":
        worker.misbehaves()
    elif what in {"die", "unread"}:
        REACHED.add(f"{what} with {'some' if held else 'nothing'}")
        worker.ends(Reason.EXITED, unread=held if what == "unread" else ())


def look(it: AgentScene, exchanges: list[Exchange]) -> None:
    """The pool and the workers agree about which request is where."""
    at_workers = [e for worker in it.crew.workers.values() for e in worker.exchanges]
    open_ones = set(it.agent.exchanges)
    assert open_ones >= {e for e in exchanges if not e.ended}
    assert len(at_workers) == len(set(at_workers))
    for worker in it.crew.workers.values():
        for exchange in worker.exchanges:
            assert exchange.worker_id in {worker.id, None}
    if it.agent.summary.waiting and at_workers:
        REACHED.add("waiting while others are served")
    given = [name for worker in it.crew.workers.values() for name in worker.given]
    if len(given) > len(set(given)):
        REACHED.add("a second worker")


def test_the_run_above_reached_what_is_interesting() -> None:
    expected = {
        "die with some",
        "die with nothing",
        "unread with some",
        "overloaded",
        "a second worker",
        "waiting while others are served",
    }
    if not REACHED:
        pytest.skip("the run above was not asked for")
    assert expected <= REACHED


async def test_a_start_clock_that_runs_out_ends_with_the_request(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(Crew(ready=None), clocks={"start": 2})) as it:
        it.crew[1].leaves_unread.add("r-1")
        exchange = it.ask("hold")
        await exchange.collect()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "start"
        it.agent.leave(exchange)
        assert it.crew[1].cancelled == ["r-1"]


async def test_a_worker_that_declares_fewer_handlers_is_believed() -> None:
    ready = Ready(protocol=1, handlers=("chat",), concurrency=1)
    async with running(AgentScene(Crew(ready=None))) as it:
        it.crew[1].speaks(ready)
        with pytest.raises(HandlerNotImplemented, match="no invoke handler"):
            it.ask()
