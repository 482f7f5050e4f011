"""The clocks of one worker over a process that is none, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import clock
from gateway.errors import ClockRanOut
from gateway.workers.events import (
    Answered,
    CancelIgnored,
    ReadsSilently,
    Reason,
    Retires,
    Spawned,
)
from tests.unit.worker_scene import READY, result, scene


@pytest.mark.parametrize("reads_at", [0, 0.05, 0.15, 1, 7, 29])
async def test_a_worker_that_reads_and_says_nothing_has_started(
    reads_at: float, autojump_clock: MockClock
) -> None:
    async with scene() as it:
        exchange = it.send(start=60, first=1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.receive)
            await trio.sleep(reads_at)
            assert it.ids
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "first"
        assert exchange.error.details["elapsed"] == pytest.approx(1)
        # From the look that found it; a look comes twice as late as the one before.
        assert reads_at + 1 <= trio.current_time() - began <= max(2 * reads_at, 0.1) + 1.001
        assert it.events == [Spawned(), ReadsSilently()]


async def test_a_worker_that_does_not_read_has_until_the_end_of_its_start(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=60, first=1)
        await exchange.receive()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "start"
        assert exchange.error.details["elapsed"] == pytest.approx(60)
        assert it.events == [Spawned()]


async def test_a_worker_that_reads_is_not_late_by_what_the_gateway_stood_still(
    mock_clock: MockClock,
) -> None:
    async with scene() as it, trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        exchange = it.send(start=60, first=1)
        (number,) = it.ids
        await wait_all_tasks_blocked()
        nursery.start_soon(exchange.receive)
        mock_clock.jump(1000)  # over the look and both clocks
        await wait_all_tasks_blocked()
        assert not exchange.ended
        await it.says(result(number))
        assert exchange.result == b"1"
        nursery.cancel_scope.cancel()


async def test_a_late_line_is_reported_once_and_the_worker_serves_what_it_has() -> None:
    async with scene() as it:
        await it.says(READY)
        it.send()
        (number,) = it.ids
        await it.says(result(number), result(number), result(number))
        assert it.events[2:] == [Answered(it.events[2].exchange, True), Retires()]  # type: ignore[union-attr]


async def test_a_cancel_that_is_obeyed_in_time_has_no_consequence(
    autojump_clock: MockClock,
) -> None:
    async with scene(cancel=5) as it:
        await it.says(READY)
        exchange = it.send()
        (number,) = it.ids
        it.worker.cancel(exchange)
        it.worker.cancel(exchange)
        assert [m["method"] for m in it.process.was_told()] == ["cancel"]
        await trio.sleep(4.9)
        await it.says(result(number))
        await trio.sleep(10)
        assert not any(isinstance(event, CancelIgnored) for event in it.events)


async def test_a_cancel_that_is_ignored_is_reported_when_its_clock_has_run_out(
    autojump_clock: MockClock,
) -> None:
    async with scene(cancel=5) as it:
        await it.says(READY)
        exchange = it.send()
        it.worker.cancel(exchange)
        await trio.sleep(4.9)
        assert CancelIgnored(exchange) not in it.events
        await trio.sleep(0.2)
        assert it.events[-1] == CancelIgnored(exchange)


async def test_a_worker_that_used_up_its_start_clock_ends_with_the_request(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=2)
        await exchange.collect()
        it.worker.cancel(exchange)
        await wait_all_tasks_blocked()
        assert it.end.reason is Reason.START_TIMEOUT


async def test_an_answer_that_lay_in_the_pipe_while_the_gateway_stood_still_is_in_time(
    mock_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        async with scene() as it:
            await it.says(READY)
            exchange = it.send(first=3)
            (number,) = it.ids
            nursery.start_soon(exchange.collect)
            await wait_all_tasks_blocked()
            it.process.says(result(number))
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
            assert exchange.result == b"1"
        nursery.cancel_scope.cancel()


async def test_time_in_which_the_gateway_stood_still_is_nobodys(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        async with scene(cancel=5) as it:
            await it.says(READY)
            cancelled, exchange = it.send(), it.send(first=3)
            it.worker.cancel(cancelled)
            nursery.start_soon(exchange.collect)
            await wait_all_tasks_blocked()
            for _ in range(3):
                mock_clock.jump(100)
                await wait_all_tasks_blocked()
            assert not exchange.ended
            assert not any(isinstance(event, CancelIgnored) for event in it.events)
            for _ in range(6):
                mock_clock.jump(1)
                await wait_all_tasks_blocked()
            assert isinstance(exchange.error, ClockRanOut)
            assert exchange.error.clock == "first"
            assert it.events[-1] == CancelIgnored(cancelled)
        nursery.cancel_scope.cancel()


async def test_a_bare_worker_that_has_taken_its_request_has_started(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=2, first=10)
        assert it.ids, "it reads the request"
        with trio.move_on_after(3):
            await exchange.collect()
        assert not exchange.ended
        await exchange.collect()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "first"
        assert exchange.error.details["elapsed"] == pytest.approx(10)
