"""Two things that happen to one request in the same moment."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from gateway.config import Clocks
from gateway.exchange import Call, Exchange


def make_exchange() -> Exchange:
    call = Call(agent="x", kind="invoke", payload=b"1", stream=False, request_id="r")
    exchange = Exchange(call, Clocks(first=1), trio.current_time())
    exchange.given(trio.current_time(), pid=1, worker_spoke=True)
    return exchange


async def test_an_answer_in_the_moment_in_which_the_clock_runs_out_is_the_end(
    autojump_clock: MockClock,
) -> None:
    # Trio wakes tasks of one moment in random order: often enough for both.
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
