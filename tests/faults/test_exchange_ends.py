"""The end of an exchange: two ends at the same moment, and what an error keeps alive."""

from __future__ import annotations

import sys

import trio
from trio.testing import MockClock

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse
from gateway.exchange import MAX_COLLECTED_BYTES, Exchange
from tests.unit.workers import NoCarrier


def make_exchange() -> Exchange:
    call = Call(agent="x", method="invoke", payload=b"1", stream=False, request_id="r")
    exchange = Exchange(call, Clocks(first=1), trio.current_time())
    exchange.given(trio.current_time(), NoCarrier(), worker_spoke=True)
    return exchange


async def test_an_answer_in_the_moment_in_which_the_clock_runs_out_is_the_end(
    autojump_clock: MockClock,
) -> None:
    # Trio wakes tasks that are due at one moment in random order: 50 times see both orders.
    for _ in range(50):
        exchange = make_exchange()

        async def answer(exchange: Exchange = exchange) -> None:
            await trio.sleep(1)
            exchange.end(b"2")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.move_on_after(2):
                assert await exchange.ends_within(1) or exchange.ended
        assert exchange.ended
        assert exchange.result == b"2" or exchange.error is not None


async def test_a_failed_answer_is_not_kept_by_the_error_that_ended_it() -> None:
    exchange = make_exchange()
    chunk = b'"%s"' % (b"x" * 1000)
    before = sys.getrefcount(chunk)
    exchange.add_words([chunk] * (MAX_COLLECTED_BYTES // len(chunk) + 1), trio.current_time())
    assert await exchange.collect() == []
    kept = exchange.error
    assert isinstance(kept, InvalidAgentResponse)
    assert str(MAX_COLLECTED_BYTES) in kept.message
    assert sys.getrefcount(chunk) == before
