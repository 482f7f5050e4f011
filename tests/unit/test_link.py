"""What one read of a worker's stdout may hold at once, and what the link makes of it.

The pipes are real and there is no process: the test writes what a worker would.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ClientTooSlow, InvalidRequest
from gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from protocol import Outcome, Ready
from tests.unit.conftest import unhurried
from tests.unit.link_scene import READY, Owner, result, scene


@pytest.fixture(autouse=True, scope="module")
def ids_from_1() -> Iterator[None]:
    """Ids of the wire that a test can write down."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.gateway_side.unguessable_ids", lambda: count(1))
        yield


async def test_a_cancelled_request_that_is_answered_with_the_first_line_is_not_cancelled() -> None:
    async with scene() as it:
        exchange = it.send("r-1")
        answered = it.link.cancel(exchange)
        assert answered is not None
        assert it.link.cancel(exchange) is None, "it was told before"
        it.process.was_told()
        await it.says(READY, result(1))
        assert it.process.was_told() == b""
        assert answered.is_set()
        assert it.owner.told == ["ready", "answered r-1 True"]


async def test_a_cancelled_request_is_cancelled_when_the_worker_turns_out_to_know_how() -> None:
    async with scene() as it:
        exchange = it.send("r-1")
        it.link.cancel(exchange)
        it.process.was_told()
        await it.says(READY)
        assert b'"method":"cancel","params":{"id":1}' in it.process.was_told()


@pytest.mark.parametrize("before", [READY, result(1), READY + result(1)])
async def test_a_worker_that_breaks_the_protocol_is_given_nothing_in_the_same_breath(
    before,
) -> None:
    async with scene() as it:
        first = it.send("r-1")
        it.owner.waiting = [it.request("r-2")]
        it.process.was_told()
        await it.says(before, b"Segmentation fault\n")
        assert it.owner.told[0] == "violation not_json fatal=True placed=False"
        assert it.process.was_told() == b""
        assert len(it.owner.waiting) == 1
        # What it had answered before counts.
        assert first.result == (b"1" if b"result" in before else None)


async def test_nothing_is_read_after_a_violation_that_was_found_while_catching_up() -> None:
    async with scene() as it:
        it.send("r-1")
        await trio.testing.wait_all_tasks_blocked()  # `run` waits for the pipe
        it.process.says(b"Segmentation fault\n")
        it.link.catch_up()
        await it.says(b"core dumped\n")
        assert it.owner.told == ["violation not_json fatal=True placed=False"]


async def test_the_beginning_of_a_large_answer_is_held_beside_no_payload_that_was_read() -> None:
    async with scene() as it:
        read = it.send("r-1")
        await it.says(READY)
        it.process.was_told()
        unread = it.send("r-2")
        await it.says(b'{"id":1,"result":{"output":"', b"x" * 1000)
        assert read.call.payload == b"1", "what is small is not looked at each time"
        await it.says(b"x" * 64 * 1024)
        assert read.call.payload == b""
        assert unread.call.payload == b"1", "another worker may yet be given it"
        assert it.link.unread() == (unread,)
        await it.says(b'"}}\n')
        assert read.result is not None
        assert len(read.result) > 64 * 1024


async def test_chunks_and_their_end_in_one_read_stay_in_order() -> None:
    async with scene() as it:
        one, two = it.send("r-1", stream=True), None
        await it.says(READY)
        two = it.send("r-2", stream=True)
        await it.says(
            b'{"method":"chunk","params":{"id":2,"chunk":"a"}}\n',
            b'{"method":"chunk","params":{"id":1,"chunk":"b"}}\n',
            b'{"id":2,"result":{}}\n',
            b'{"id":1,"error":{"code":-32000,"message":"no"}}\n',
        )
        assert one.take() == [b'"b"']
        assert two.take() == [b'"a"']
        assert two.drained
        assert one.error is not None
        assert it.owner.told[1:] == ["answered r-2 True", "answered r-1 True"]


def chunk_of(number: int, size: int) -> bytes:
    params = b'{"id":%d,"chunk":"%b"}' % (number, b"x" * size)
    return b'{"method":"chunk","params":%b}\n' % params


PIECE = 32 * 1024
"""Of a chunk; two of them fit into a pipe."""


async def test_a_worker_that_is_ahead_of_its_only_client_is_not_read_until_that_has_read() -> None:
    async with scene() as it:
        await it.says(READY)
        exchange = it.send("r-1", stream=True)
        sent = 0
        while not exchange.full:
            await it.says(chunk_of(1, PIECE))
            sent += 1
        assert it.owner.told == ["ready", "paused=True"]
        before = exchange.buffered_bytes
        await it.says(chunk_of(1, PIECE))  # stays in the pipe
        assert exchange.buffered_bytes == before
        assert len(exchange.take()) == sent
        await trio.testing.wait_all_tasks_blocked()
        assert it.owner.told == ["ready", "paused=True", "paused=False"]
        assert len(exchange.take()) == 1


async def test_a_worker_with_other_clients_goes_on_and_the_one_that_is_behind_is_ended() -> None:
    async with scene() as it:
        await it.says(READY)
        slow, quick = it.send("r-1", stream=True), it.send("r-2", stream=True)
        while not slow.ended:
            await it.says(chunk_of(1, PIECE))
        assert it.owner.told == ["ready", "too far ahead r-1"]
        await it.says(chunk_of(1, PIECE), chunk_of(2, 1), result_end(2))
        assert quick.take() == [b'"x"']
        assert quick.drained
        slow.take()
        assert slow.drained
        assert isinstance(slow.error, ClientTooSlow)


async def test_a_client_is_not_too_slow_for_what_is_read_at_once_to_judge_a_clock() -> None:
    """It had no time to take any of it."""
    async with scene() as it:
        await it.says(READY)
        quick, _ = it.send("r-1", stream=True), it.send("r-2", stream=True)
        fcntl.fcntl(it.process.their_stdout, fcntl.F_SETPIPE_SZ, 1024 * 1024)
        it.process.says(chunk_of(1, 0) * 20_000)
        it.link.catch_up()
        assert quick.full
        assert len(quick.take()) == 20_000
        assert not quick.ended


def result_end(number: int) -> bytes:
    return b'{"id":%d,"result":{}}\n' % number


async def test_the_names_of_requests_are_known_for_a_while_after_their_answers() -> None:
    async with scene() as it:
        await it.says(READY)
        for number in range(1, 101):
            it.send(f"r-{number}")
            assert it.link.name_of(number) == (f"r-{number}", None)
            await it.says(result(number))
        assert it.link.name_of(100) == ("r-100", None)
        assert it.link.name_of(1) is None
        assert it.link.name_of(101) is None


async def test_what_was_answered_is_known_for_a_moment(autojump_clock: object) -> None:
    async with scene() as it:
        await it.says(READY)
        assert it.link.just_answered() is None
        for name in ("r-1", "r-2"):
            it.send(name)
        await it.says(result(1) + result(2))
        assert it.link.just_answered() == ("r-2", None)
        await trio.sleep(1)
        assert it.link.just_answered() is None


async def test_a_line_in_pieces_is_one_line() -> None:
    async with scene() as it:
        exchange = it.send("r-1")
        for byte in result(1)[:-1]:
            await it.says(bytes([byte]))
        assert not exchange.ended
        await it.says(b"\n")
        assert exchange.result == b"1"


# Whatever a worker says
REQUESTS = 6
TEMPLATES = (
    READY,
    b'{"method":"chunk","params":{"id":%d,"chunk":"x"}}\n',
    b'{"id":%d,"result":{"output":1}}\n',
    b'{"id":%d,"result":{}}\n',
    b'{"id":%d,"result":{"message":1}}\n',
    b'{"id":%d,"error":{"code":-32000,"message":"no"}}\n',
    b'{"id":%d,"error":3}\n',
    b'{"method":"chunk","params":{"id":%d}}\n',
    b'{"method":"ready","params":{"protocol":9,"handlers":[]}}\n',
    b"garbage\n",
    b"\xff\n",
    b"\n",
    b'{"half":',
)
LINES = st.builds(
    lambda template, number: template % number if b"%d" in template else template,
    st.sampled_from(TEMPLATES),
    st.integers(0, REQUESTS + 1),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("says"), st.lists(LINES, min_size=1, max_size=6)),
        st.tuples(st.just("cancel"), st.integers(0, REQUESTS - 1)),
        st.tuples(st.just("take"), st.integers(0, REQUESTS - 1)),
        st.tuples(st.just("ask"), st.none()),
    ),
    max_size=12,
)


class CarefulOwner(Owner):
    """Gives the worker no more than it may have, as a pool does."""

    capacity = 1

    def give(self) -> None:
        while self.waiting and self.usable and len(self.link.exchanges) < self.capacity:
            self.link.send(self.waiting.pop(0))

    def on_first_line(self, ready: Ready | None) -> None:
        self.capacity = 1 if ready is None else ready.concurrency
        super().on_first_line(ready)

    def on_violation(self, *, placed: bool) -> None:
        self.usable = self.usable and placed


@given(STEPS)
@settings(unhurried, max_examples=300)
def test_nothing_that_a_worker_says_is_an_error_of_ours(steps: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        async with scene(CarefulOwner()) as it:
            exchanges: list[Exchange] = []
            for what, value in steps:
                if what == "says":
                    await it.says(*value)
                elif what == "ask" and len(exchanges) < REQUESTS:
                    exchanges.append(it.request(f"r-{len(exchanges)}"))
                    it.owner.waiting.append(exchanges[-1])
                    it.owner.give()
                elif what == "cancel" and value < len(exchanges):
                    it.link.cancel(exchanges[value])
                elif what == "take" and value < len(exchanges):
                    exchanges[value].take()
            answered = [told for told in it.owner.told if told.startswith("answered")]
            assert len(answered) == len({told.split()[1] for told in answered})
            in_flight = set(it.link.exchanges)
            for exchange in exchanges:
                waits = exchange in it.owner.waiting
                assert exchange.ended == (exchange not in in_flight and not waits)

    trio.run(play)


# Events, and requests that not every worker can be given
READY_WITH_TOOLS = (
    b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":4,'
    b'"tools":true}}\n'
)


def event(number: int, text: bytes = b"") -> bytes:
    return b'{"method":"event","params":{"id":%d,"event":{"type":"reasoning","text":"%b"}}}\n' % (
        number,
        text,
    )


async def test_events_are_words_of_the_answer_where_they_were_asked_for() -> None:
    async with scene() as s:
        await s.says(READY)
        asked = s.send("asked", stream=True, events=True)
        unasked = s.send("unasked", stream=True)
        await s.says(
            event(1),
            chunk_of(1, 2),
            event(2),
            chunk_of(2, 2),
            b'{"id":2,"result":{"finish":"stop"}}\n',
        )
        assert [word[:1] for word in asked.take()] == [b"{", b'"']
        assert unasked.take() == [b'"xx"']
        assert unasked.outcome is None
        await s.says(b'{"id":1,"result":{"finish":"stop","usage":{"input_tokens":1}}}\n')
        assert asked.outcome == Outcome("stop", b'{"input_tokens":1}')


async def test_a_million_empty_events_for_a_client_that_does_not_read_hold_the_worker_back() -> (
    None
):
    async with scene() as s:
        await s.says(READY)
        exchange = s.send("a", stream=True, events=True)
        os.set_blocking(s.process.their_stdout, False)
        flood = event(1) * 500
        for _ in range(1_000_000 // 500):
            if os.write(s.process.their_stdout, flood) < len(flood):
                break  # the pipe is full
            await trio.testing.wait_all_tasks_blocked()
        assert s.owner.told[-1] == "paused=True"
        assert exchange.full
        assert exchange.buffered_bytes < 2 * MAX_BUFFERED_BYTES
        exchange.take()
        await trio.testing.wait_all_tasks_blocked()
        assert not exchange.ended


async def test_a_million_events_that_nobody_asked_for_are_held_by_nobody() -> None:
    async with scene() as s:
        await s.says(READY)
        exchange = s.send("a", stream=True)
        for _ in range(100):
            await s.says(event(1) * 500)
        assert (exchange.take(), exchange.output_begun, exchange.buffered_bytes) == ([], False, 0)


async def test_a_request_with_needs_waits_for_the_workers_declaration() -> None:
    async with scene() as s:
        exchange = s.send("a", needs=frozenset({"tools"}))
        assert s.process.was_told() == b""
        assert s.link.exchanges == s.link.unread() == (exchange,)
        await s.says(READY_WITH_TOOLS)
        assert b'"request_id":"a"' in s.process.was_told()
        await s.says(result(1))
        assert s.owner.told == ["ready", "answered a True"]


async def test_a_worker_that_turns_out_to_lack_what_is_needed_never_sees_the_request() -> None:
    async with scene() as s:
        early = s.send("early", needs=frozenset({"tools"}))
        await s.says(READY)
        late = s.send("late", needs=frozenset({"image"}))
        assert s.process.was_told() == b""
        assert [type(each.error) for each in (early, late)] == [InvalidRequest] * 2
        assert s.owner.told == ["ready", "answered early False", "answered late False"]
        assert s.link.exchanges == ()


async def test_a_worker_that_declares_nothing_in_time_is_given_up() -> None:
    async with scene() as s:
        exchange = s.send("a", needs=frozenset({"tools"}))
        exchange.fail(InvalidRequest("it has not declared it"))  # as at the end of its clock
        assert s.link.cancel(exchange) is None
        assert s.owner.told == ["ignored a"]
        assert s.link.exchanges == ()


async def test_a_request_that_waits_for_a_declaration_can_be_left() -> None:
    async with scene() as s:
        exchange = s.send("a", needs=frozenset({"tools"}))
        assert s.link.cancel(exchange) is None
        assert s.owner.told == ["answered a False"]
        await s.says(READY_WITH_TOOLS)
        assert s.process.was_told() == b""
