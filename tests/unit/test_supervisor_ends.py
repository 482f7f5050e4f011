"""A supervised agent whose workers end: what becomes of their requests, and of the next workers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.restart import CRASH_BURST, CRASH_RATE
from gateway.agents.status import AgentState
from gateway.agents.supervisor import MAX_FAILED_STARTS
from gateway.errors import (
    AgentUnavailable,
    WorkerCrashed,
)
from gateway.exchange import Exchange
from gateway.front.auth import ANONYMOUS, Caller
from gateway.front.status import shown_to
from gateway.workers.events import Reason
from tests.unit.workers import AgentScene, Crew, running


async def test_the_siblings_of_a_crash_share_its_error_and_nothing_else() -> None:
    for order in (("speak", "hold"), ("hold", "speak")):
        async with running(AgentScene()) as it:
            exchanges = [it.ask(wish) for wish in order]
            it.crew[1].ends(Reason.EXITED)
            assert exchanges[0].error is exchanges[1].error
            assert [e.output_begun for e in exchanges] == [wish == "speak" for wish in order]


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
