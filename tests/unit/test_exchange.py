"""One request's clocks and its one end, in virtual time."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable

import pytest
import trio
from msgspec import structs

from gateway import exchange as exchanges
from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import (
    AgentFailed,
    ClockRanOut,
    GatewayError,
    InvalidAgentResponse,
    InvalidRequest,
    WorkerCrashed,
)
from gateway.exchange import Exchange
from tests.unit.workers import NoCarrier

ALL_OFF = dict.fromkeys(("start", "queue", "first", "idle", "total"), "off")


def make(*, stream: bool = True, callers: float = math.inf, **clocks: float) -> Exchange:
    """An exchange with only these clocks; `callers` is the total that the caller allows."""
    call = Call(
        agent="a", method="invoke", payload=b"1", stream=stream, request_id="r-1", total=callers
    )
    chosen = {
        name: clocks.get(name, "off") for name in ("start", "queue", "first", "idle", "total")
    }
    return Exchange(call, Clocks(**chosen), trio.current_time())  # type: ignore[arg-type]


def give(exchange: Exchange, *, worker_spoke: bool = True) -> None:
    exchange.given(trio.current_time(), NoCarrier(), worker_spoke=worker_spoke)


def chunk(exchange: Exchange, text: bytes = b'"word"') -> None:
    exchange.add_words([text], trio.current_time())


def error_of(exchange: Exchange, kind: type[GatewayError] = ClockRanOut) -> GatewayError:
    """The error that the exchange ended with, which must be of that kind."""
    assert exchange.ended
    assert isinstance(exchange.error, kind)
    return exchange.error


Step = Callable[[Exchange], None]


@pytest.mark.parametrize(
    ("clock", "steps"),
    [
        ("queue", []),
        ("start", [lambda e: give(e, worker_spoke=False)]),
        ("first", [give]),
        ("idle", [give, chunk]),
        ("total", []),
        ("total", [give, chunk]),
    ],
)
async def test_each_clock_ends_what_it_is_named_for_at_its_time(
    clock: str, steps: list[Step], autojump_clock
) -> None:
    exchange = make(**{clock: 10})
    for step in steps:
        step(exchange)
        exchange.take()
    began = trio.current_time()
    assert await exchange.receive() == []
    assert trio.current_time() - began == pytest.approx(10)
    error = error_of(exchange)
    assert error.details["clock"] == clock
    assert error.details["elapsed"] == pytest.approx(10)
    assert exchange.output_begun is (chunk in steps)
    assert exchange.drained


async def test_a_phase_has_its_clock_from_when_it_began(autojump_clock) -> None:
    exchange = make(queue=10, start=20, first=30, idle=40)
    began = trio.current_time()
    elapsed = []
    async with trio.open_nursery() as nursery:

        async def story() -> None:
            await trio.sleep(9)
            give(exchange, worker_spoke=False)
            await trio.sleep(19)
            exchange.worker_started(trio.current_time())
            await trio.sleep(29)
            chunk(exchange)

        nursery.start_soon(story)
        assert await exchange.receive() == [b'"word"']
        elapsed.append(trio.current_time() - began)
        assert await exchange.receive() == []
        assert "'idle'" in error_of(exchange).message
        elapsed.append(trio.current_time() - began)
    assert elapsed == pytest.approx([57, 97])


async def test_a_worker_that_has_read_by_the_end_of_its_start_has_all_of_first(
    autojump_clock,
) -> None:
    exchange = make(start=10, first=3)
    exchange.given(trio.current_time(), NoCarrier(read=True), worker_spoke=False)
    began = trio.current_time()
    assert await exchange.receive() == []
    assert trio.current_time() - began == pytest.approx(13)
    assert "'first' clock of 3 s" in error_of(exchange).message
    assert error_of(exchange).details["elapsed"] == pytest.approx(3)


async def test_steady_words_are_cut_by_total_and_by_nothing_else(autojump_clock) -> None:
    exchange = make(queue=1, start=1, first=1, idle=1, total=1000)
    give(exchange)
    words: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            while not exchange.ended:
                chunk(exchange)
                await trio.sleep(0.9)

        nursery.start_soon(speak)
        while not exchange.drained:
            words.extend(await exchange.receive())
    assert error_of(exchange).details["clock"] == "total"
    assert error_of(exchange).details["elapsed"] == pytest.approx(1000)
    assert len(words) == pytest.approx(1000 / 0.9, abs=2)


async def test_words_of_a_collected_answer_move_its_idle_clock_too(autojump_clock) -> None:
    exchange = make(stream=False, idle=1)
    give(exchange)
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            for _ in range(100):
                chunk(exchange, b'"x"')
                await trio.sleep(0.9)
            exchange.end()

        nursery.start_soon(speak)
        assert await exchange.collect() == [b'"x"'] * 100


async def test_silence_after_steady_words_is_timed_from_the_last_one(autojump_clock) -> None:
    exchange = make(stream=False, idle=10)
    give(exchange)
    chunk(exchange)
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            await trio.sleep(7)  # the waiter's deadline stands at 10 s, and is moved when it comes
            chunk(exchange)

        nursery.start_soon(speak)
        began = trio.current_time()
        assert await exchange.collect() == []
    assert trio.current_time() - began == pytest.approx(17)
    assert error_of(exchange).details["elapsed"] == pytest.approx(10)


@pytest.mark.parametrize(("own", "callers", "counts"), [(10, 3, 3), (10, 30, 10), (0, 3, 3)])
async def test_a_callers_timeout_shortens_total_and_never_lengthens_it(
    own: float, callers: float, counts: float, autojump_clock
) -> None:
    call = make(callers=callers).call
    exchange = Exchange(call, Clocks(total=own, queue="off"), trio.current_time())
    assert await exchange.receive() == []
    assert error_of(exchange).details["elapsed"] == pytest.approx(counts)
    assert f"'total' clock of {counts} s" in error_of(exchange).message


async def test_patience_ends_the_wait_and_not_the_request(autojump_clock) -> None:
    exchange = make(first=100)
    give(exchange)
    began = trio.current_time()
    for _ in range(6):
        assert await exchange.receive(patience=15) == []
        assert not exchange.ended
    assert trio.current_time() - began == pytest.approx(90)
    assert await exchange.receive(patience=15) == []
    assert "'first'" in error_of(exchange).message
    assert trio.current_time() - began == pytest.approx(100)


async def test_with_every_clock_off_nothing_ends_it(autojump_clock) -> None:
    exchange = make()
    assert await exchange.receive(patience=1e6) == []
    assert not exchange.ended


async def test_being_queued_again_runs_the_queue_clock_anew(autojump_clock) -> None:
    exchange = make(queue=10, start=5)
    give(exchange, worker_spoke=False)
    await trio.sleep(4)
    assert exchange.handed_over
    exchange.queued_again(trio.current_time())
    assert not exchange.handed_over
    assert repr(exchange) == "<Exchange r-1 a queue>"
    assert await exchange.receive() == []
    assert "'queue'" in error_of(exchange).message
    assert error_of(exchange).details["elapsed"] == pytest.approx(10)
    assert not exchange.handed_over


@pytest.mark.parametrize("clock", ["first", "total"])
async def test_silence_after_reading_may_be_an_answer_in_a_buffer(
    clock: str, autojump_clock
) -> None:
    for spoke, read in ((False, True), (True, True), (False, False)):
        exchange = make(**{clock: 10})
        carrier = NoCarrier(read=read)
        carrier.spoke = spoke
        exchange.given(trio.current_time(), carrier, worker_spoke=True)
        assert await exchange.receive() == []
        hinted = "buffer" in error_of(exchange).message
        assert hinted == (read and not spoke)


async def test_it_ends_once_and_the_first_end_counts() -> None:
    for first in ("end", "fail"):
        exchange = make()
        give(exchange)
        if first == "end":
            exchange.end(b"1")
        else:
            exchange.fail(AgentFailed("first"))
        exchange.end(b"2")
        exchange.fail(AgentFailed("second"))
        chunk(exchange, b'"late"')
        exchange.worker_started(trio.current_time())
        exchange.given(trio.current_time(), NoCarrier(), worker_spoke=True)
        assert exchange.ended
        assert await exchange.receive() == []
        assert exchange.drained
        if first == "end":
            assert (exchange.result, exchange.error) == (b"1", None)
        else:
            assert exchange.result is None
            assert error_of(exchange, AgentFailed).message == "first"


async def test_chunks_that_came_before_the_end_are_read_before_it() -> None:
    exchange = make()
    give(exchange)
    chunk(exchange, b'"a"')
    chunk(exchange, b'"b"')
    exchange.fail(AgentFailed("then"))
    assert not exchange.drained
    assert await exchange.receive() == [b'"a"', b'"b"']
    assert exchange.drained
    assert await exchange.receive() == []
    assert error_of(exchange, AgentFailed).message == "then"
    assert exchange.output_begun


@pytest.mark.parametrize("speaker", [0, 1, 2])
async def test_requests_that_share_one_error_each_know_whether_their_own_output_had_begun(
    speaker: int,
) -> None:
    crash = WorkerCrashed("the worker exited with status 3", exit_status=3)
    before = dict(vars(crash))
    exchanges = [make(), make(stream=False), make()]
    for exchange in exchanges:
        give(exchange)
    chunk(exchanges[speaker])
    for exchange in exchanges:
        exchange.fail(crash)
    for number, exchange in enumerate(exchanges):
        assert exchange.error is crash
        assert exchange.output_begun is (number == speaker)
        await (exchange.receive() if exchange.call.stream else exchange.collect())
    assert vars(crash) == before
    assert crash.details == {"exit_status": 3}
    assert crash.__traceback__ is None  # which would keep every one of them alive


async def test_chunks_that_come_together_are_taken_together() -> None:
    exchange = make()
    give(exchange)
    got = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await exchange.receive())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for text in (b'"a"', b'"b"', b'"c"'):
            chunk(exchange, text)
    assert got == [[b'"a"', b'"b"', b'"c"']]


async def test_a_client_that_reads_slowly_is_known_and_forgotten_when_it_has_read() -> None:
    exchange = make()
    give(exchange)
    await exchange.wait_for_room()  # there is some
    chunk(exchange, b'"' + b"x" * exchanges.MAX_BUFFERED_BYTES + b'"')
    assert exchange.full
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await exchange.receive()
    assert not exchange.full
    assert exchange.buffered_bytes == 0


async def test_chunks_for_one_answer_are_bounded() -> None:
    exchange = make(stream=False)
    give(exchange)
    piece = b'"' + b"x" * 1024 * 1024 + b'"'
    while not exchange.ended:
        assert exchange.buffered_bytes <= exchanges.MAX_COLLECTED_BYTES
        chunk(exchange, piece)
    assert await exchange.collect() == []
    assert 'ask for them with "stream": true' in error_of(exchange, InvalidAgentResponse).message
    assert not exchange.full  # a worker is held back for a stream only


async def test_a_worker_held_back_for_a_client_that_left_is_read_again() -> None:
    exchange = make()
    give(exchange)
    chunk(exchange, b'"' + b"x" * exchanges.MAX_BUFFERED_BYTES + b'"')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        exchange.fail(AgentFailed("the client has gone"))
    await exchange.wait_for_room()  # an exchange that has ended holds nothing back


# Things, not only bytes

EMPTY = b'""'


def fresh(count: int, text: bytes = EMPTY) -> list[bytes]:
    """Equal chunks, each an object of its own, as a decoder makes them."""
    return [bytes(bytearray(text)) for _ in range(count)]


@pytest.mark.parametrize("stream", [True, False])
def test_empty_chunks_that_wait_take_bounded_memory(stream: bool) -> None:
    async def play() -> None:
        exchange = make(stream=stream)
        give(exchange)
        tracemalloc.start()
        try:
            for _ in range(400):
                if exchange.full:
                    break  # the link stops reading
                exchange.add_words(fresh(4000), trio.current_time())
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1.5 * exchanges.MAX_BUFFERED_BYTES
        assert not exchange.ended

    trio.run(play)


async def test_the_chunks_of_one_answer_are_joined_and_those_of_a_stream_never() -> None:
    texts = [b'"%d\\n\\"\\\\\\ud83d\\ude00"' % number for number in range(5000)]
    streamed, one = make(), make(stream=False)
    for exchange in (streamed, one):
        give(exchange)
        for start in range(0, len(texts), 700):
            exchange.add_words(texts[start : start + 700], trio.current_time())
        exchange.end()
    assert streamed.take() == texts
    joined = await one.collect()
    assert len(joined) < exchanges.MAX_LOOSE_CHUNKS
    assert "".join(map(json.loads, joined)) == "".join(map(json.loads, texts))


async def test_an_answer_of_many_small_words_may_be_almost_as_long_as_any_other() -> None:
    exchange = make(stream=False)
    give(exchange)
    word = b'"a word"'
    words = exchanges.MAX_COLLECTED_BYTES * 9 // 10 // len(word)
    for _ in range(0, words, 1000):
        exchange.add_words([word] * 1000, trio.current_time())
    assert not exchange.ended


# Events among the words

EVENT = b'{"type":"reasoning","text":""}'


def with_events(exchange: Exchange) -> Exchange:
    exchange.call = structs.replace(exchange.call, events=True)
    return exchange


async def test_events_of_a_collected_answer_keep_their_place_while_chunks_are_joined() -> None:
    exchange = with_events(make(stream=False))
    give(exchange)
    for number in range(exchanges.MAX_LOOSE_CHUNKS):
        chunk(exchange, b'"a"')
        chunk(exchange, b'"b"')
        if number % 100 == 0:
            chunk(exchange, EVENT)
    exchange.end()
    words = exchange.take()
    at_events = [at for at, word in enumerate(words) if word == EVENT]
    before = [sum(len(word) - 2 for word in words[:at] if word != EVENT) for at in at_events]
    assert before == [2 * number + 2 for number in range(0, exchanges.MAX_LOOSE_CHUNKS, 100)]
    assert len(words) < 1.5 * exchanges.MAX_LOOSE_CHUNKS
    text = b"".join(word[1:-1] for word in words if word != EVENT)
    assert text == b"ab" * exchanges.MAX_LOOSE_CHUNKS


async def test_events_of_a_collected_answer_are_bounded_with_what_each_of_them_costs() -> None:
    exchange = with_events(make(stream=False))
    give(exchange)
    most = exchanges.MAX_COLLECTED_BYTES // (len(EVENT) + exchanges.CHUNK_COST)
    exchange.add_words([EVENT] * most, trio.current_time())
    assert not exchange.ended
    chunk(exchange, EVENT)
    error_of(exchange, InvalidAgentResponse)
    assert exchange.take() == []


async def test_events_and_the_result_after_them_are_bounded_together() -> None:
    half = b'"%b"' % (b"x" * (exchanges.MAX_COLLECTED_BYTES // 2))
    for size, fits in ((1, True), (exchanges.MAX_COLLECTED_BYTES // 2, False)):
        exchange = with_events(make(stream=False))
        give(exchange)
        chunk(exchange, b'{"type":"x-a","text":%b}' % half)
        exchange.end(b'"%b"' % (b"x" * size))
        assert (exchange.error is None) is fits


async def test_a_request_that_waits_for_a_declaration_in_vain_is_told_which_one(
    autojump_clock,
) -> None:
    """A worker without the handshake says nothing before it is sent something, which it is not."""
    exchange = make(start=10)
    exchange.call = structs.replace(exchange.call, needs=frozenset({"tools"}))
    give(exchange, worker_spoke=False)
    assert await exchange.receive() == []
    error = error_of(exchange, InvalidRequest)
    assert '"tools": true' in error.message
    assert error.details == {"field": "tools"}


async def test_words_can_be_taken_without_the_client_only_where_somebody_keeps_them() -> None:
    exchange = make()
    assert not exchange.spill()
    told: list[bool] = []
    exchange.on_spill = lambda: told.append(True)
    assert exchange.spill()
    assert told == [True]


async def test_an_answer_that_lies_in_the_pipe_when_a_clock_has_run_out_is_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Late(NoCarrier):
        def catch_up(self) -> None:
            exchange.end(b"1")

    exchange = make(stream=False, first=5)
    exchange.given(trio.current_time(), Late(), worker_spoke=True)
    assert await exchange.collect() == []
    assert exchange.error is None
    assert exchange.result == b"1"
