"""One agent's supervisor, with workers that are no processes, in virtual time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.restart import CRASH_BURST, CRASH_RATE
from gateway.agents.status import AgentState
from gateway.agents.supervisor import MAX_FAILED_STARTS
from gateway.errors import (
    AgentUnavailable,
    Cancelled,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from gateway.front.auth import ANONYMOUS, Caller
from gateway.front.status import shown_to
from gateway.workers.events import Reason
from protocol import Ready
from tests.unit.conftest import unhurried
from tests.unit.workers import AgentScene, Crew


@asynccontextmanager
async def running(scene: AgentScene) -> AsyncIterator[AgentScene]:
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.agent.run)
        scene.agent.warm_up()
        await wait_all_tasks_blocked()
        yield scene
        for worker in scene.crew.workers.values():
            worker.reaps.set()
        scene.agent.stop(ShuttingDown("the test has ended"))


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


async def test_the_siblings_of_a_crash_share_its_error_and_nothing_else() -> None:
    for order in (("speak", "hold"), ("hold", "speak")):
        async with running(AgentScene()) as it:
            exchanges = [it.ask(wish) for wish in order]
            it.crew[1].ends(Reason.EXITED)
            assert exchanges[0].error is exchanges[1].error
            assert [e.output_begun for e in exchanges] == [wish == "speak" for wish in order]


# Ends of workers


async def test_a_request_that_a_dying_worker_has_not_read_is_given_to_the_next(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene()) as it:
        read, unread = it.ask("hold"), it.ask("hold")
        it.crew[1].ends(Reason.EXITED, unread=[unread])
        await wait_all_tasks_blocked()
        assert isinstance(read.error, WorkerCrashed)
        assert it.crew[2].given == ["r-2"]
        it.crew[2].answers(unread)
        assert unread.result is not None


async def test_a_request_that_no_worker_can_start_for_is_tried_so_often_and_no_more(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(Crew(ready=None))) as it:
        exchange = it.ask("hold")
        for number in range(1, MAX_FAILED_STARTS + 1):
            await wait_all_tasks_blocked()
            assert it.crew[number].given == ["r-1"]
            it.crew[number].ends(Reason.EXITED, unread=[exchange])
        assert isinstance(exchange.error, WorkerCrashed)


async def test_a_request_that_has_had_a_word_is_given_to_nobody_else() -> None:
    async with running(AgentScene()) as it:
        exchange = it.ask("speak", stream=True)
        it.crew[1].ends(Reason.EXITED, unread=[exchange])
        assert isinstance(exchange.error, WorkerCrashed)


async def test_a_worker_that_cannot_be_started_ends_what_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(Crew(ready=None), workers={"min": 0})) as it:
        exchange = it.ask("hold")
        it.crew[1].ends(Reason.NOT_STARTED, error=WorkerCrashed("no such command"))
        await wait_all_tasks_blocked()
        assert exchange.error is not None
        assert exchange.error.message == "no such command"
        assert it.agent.summary.waiting == 0
        assert (await it.agent.status()).last_failure is not None


@pytest.mark.parametrize("reason", [Reason.NOT_STARTED, Reason.OVER_STATE, Reason.OVER_MEMORY])
async def test_the_last_limit_that_ended_a_worker_is_told(
    reason: Reason, autojump_clock: MockClock
) -> None:
    async with running(AgentScene()) as it:
        assert it.ask("answer").ended
        met = WorkerCrashed("too much", limit="state", setting="state.size")
        it.crew[1].ends(reason, error=met)
        await wait_all_tasks_blocked()
        status = await it.agent.status()
        told = status.last_limit
        assert told is not None
        assert (told.limit, told.setting, told.message) == ("state", "state.size", "too much")
        # Its words may quote a request: where callers are told apart, no other is shown them.
        assert shown_to(ANONYMOUS, status) is status
        shown = shown_to(Caller("bob", None), status).last_limit
        assert shown is not None
        assert (shown.limit, shown.setting, shown.message) == ("state", "state.size", "")


async def test_failures_in_a_row_open_the_breaker_and_refusals_say_why(
    autojump_clock: MockClock,
) -> None:
    restart = {"failures": 3, "backoff": 0}
    async with running(AgentScene(Crew(ready=None), restart=restart)) as it:
        for number in (1, 2, 3):
            await wait_all_tasks_blocked()
            it.crew[number].ends(Reason.EXITED)
        await wait_all_tasks_blocked()
        assert it.agent.state is AgentState.OPEN
        with pytest.raises(AgentUnavailable, match="its last failure: the worker exited") as caught:
            it.ask()
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 1


async def test_a_request_that_crashes_its_worker_never_opens_the_breaker_for_others(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(restart={"failures": 2})) as it:
        for number in range(1, 9):
            assert isinstance((await ended(it.ask("die"))).error, WorkerCrashed)
            await trio.sleep(0.3)
            assert it.agent.state is AgentState.READY, f"after {number}"
            assert it.ask("answer").result is not None
        assert it.agent.summary.failures == 8


async def test_workers_that_requests_crash_are_replaced_at_a_rate(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene()) as it:
        began = trio.current_time()
        for _ in range(CRASH_BURST + 8):
            assert isinstance((await ended(it.ask("die"))).error, WorkerCrashed)
        took = trio.current_time() - began
        assert took == pytest.approx(8 / CRASH_RATE, rel=0.3)
        # Another caller waits for no longer than a moment.
        assert (await ended(it.ask("answer"))).result is not None
        assert trio.current_time() - began - took <= 1 / CRASH_RATE


async def test_after_many_crashes_at_once_somebody_is_served_within_a_moment(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(workers={"min": 0, "max": 50}, concurrency=1)) as it:
        for _ in range(50):
            it.ask("die")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        waiting = [it.ask("hold") for _ in range(20)]
        assert it.agent.state.can_serve, "it is no reason to be taken out of rotation"
        await trio.sleep(1 / CRASH_RATE + 0.01)
        assert sum(e.handed_over for e in waiting) >= 1
        await trio.sleep(1)
        served = sum(e.handed_over for e in waiting)
        assert served <= (trio.current_time() - began) * CRASH_RATE + 1
        await trio.sleep(10)
        assert all(e.handed_over for e in waiting)


async def test_an_agent_whose_breaker_may_be_probed_can_serve(autojump_clock: MockClock) -> None:
    restart = {"failures": 1, "cooldown": 15}
    async with running(AgentScene(Crew(ready=None), workers={"min": 0}, restart=restart)) as it:
        exchange = it.ask("hold")
        it.crew[1].ends(Reason.EXITED, unread=[exchange])
        await wait_all_tasks_blocked()
        assert it.agent.state is AgentState.OPEN
        await trio.sleep(20)
        assert it.agent.state is AgentState.COLD, "a load balancer must send the probe"
        it.ask("hold")


@pytest.mark.parametrize("reads", [True, False])
async def test_a_worker_that_reads_before_it_speaks_is_not_waited_for(
    reads: bool, autojump_clock: MockClock
) -> None:
    async with running(AgentScene(Crew(ready=None), workers={"min": 0, "max": 3})) as it:
        it.crew.options["leaves_unread"] = set() if reads else {"r-1"}
        for _ in range(3):
            it.ask("hold")
        assert it.agent.summary.workers == 1, "it may yet declare room for all"
        await trio.sleep(1)
        assert it.agent.summary.workers == (3 if reads else 1)


async def ended(exchange: Exchange) -> Exchange:
    await exchange.collect()
    return exchange


async def test_a_worker_that_has_served_and_leaves_in_order_has_not_failed(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(restart={"failures": 1})) as it:
        for number in range(1, 20):
            assert it.ask("answer").result is not None
            unread = [it.ask("hold") for _ in range(3)]
            in_order = WorkerCrashed("the worker exited with status 0", exit_status=0)
            it.crew[number].ends(Reason.EXITED, error=in_order, unread=unread)
            await wait_all_tasks_blocked()
            assert it.crew[number + 1].given[:3] == [e.call.request_id for e in unread]
            for exchange in unread:
                it.crew[number + 1].answers(exchange)
        assert it.agent.summary.failures == 0


async def test_a_half_closed_worker_finishes_what_it_has_and_gives_the_rest_back(
    autojump_clock: MockClock,
) -> None:
    async with running(AgentScene(workers={"max": 2})) as it:
        read, unread = it.ask("hold"), it.ask("hold")
        it.crew[1].half_closes([unread])
        await wait_all_tasks_blocked()
        assert it.crew[2].given == ["r-2"]
        it.crew[2].answers(unread)
        assert it.crew[1].reason is None
        it.crew[1].answers(read)
        assert read.result is not None
        assert it.crew[1].reason is Reason.ASKED
        assert it.agent.summary.failures == 0


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
