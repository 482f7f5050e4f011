"""What a host does with the requests of one front: fake workers, a wire that keeps what is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway import clock
from gateway.errors import ClockRanOut
from gateway.exchange import CHUNK_COST
from gateway.fleet.host import request
from gateway.fleet.host.request import WINDOW_BYTES
from gateway.fleet.messages import (
    Ask,
    Cancel,
    Failed,
    Given,
    Lines,
    Refused,
    Told,
    Took,
)
from gateway.fleet.pipe import Ended, Why
from tests.fleet.host_scene import Scene, a_front, lines_of, words


async def test_an_answer_goes_back_with_the_worker_that_gave_it(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(7)
        given, answer = await scene.said()
        assert given == Given(7, None, None, 0.0)
        assert answer == Lines(b'{"jsonrpc":"2.0","id":7,"result":{"output":"answer"}}\n')
        assert not scene.front.requests
        assert not scene.dispatcher.open


async def test_what_workers_say_in_one_turn_leaves_together(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        before = scene.wire.turns
        for request_id in range(1, 6):
            scene.submit(request_id)
        said = await scene.said()
        assert scene.wire.turns == before + 1
        assert [type(each) for each in said] == [Given] * 5 + [Lines]
        assert [line["id"] for line in lines_of(said)] == [1, 2, 3, 4, 5]


async def test_a_stream_s_words_go_back_as_they_come(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "speak", stream=True, events=True)
        said = await scene.said()
        assert isinstance(said[0], Given)
        assert [line["params"] for line in lines_of(said)] == [{"id": 1, "chunk": "word"}]
        scene.exchange(1).add_words([b'"a"', b'{"type":"status"}', b'"b"', b'"c"'], clock.now())
        scene.worker.answers(scene.exchange(1))
        said = await scene.said()
        assert not [each for each in said if isinstance(each, Given)]
        *told, end = lines_of(said)
        assert [line["method"] for line in told] == ["chunk", "event", "chunk", "chunk"]
        assert end == {"jsonrpc": "2.0", "id": 1, "result": {"output": "answer"}}


async def test_who_waits_is_told_which_worker_has_the_request(autojump_clock: MockClock) -> None:
    async with a_front(concurrency=1) as scene:
        scene.submit(1, "hold")
        scene.submit(2, "hold")
        assert await scene.said() == []
        await trio.sleep(0.25)
        scene.front.tell_given()
        scene.front.tell_given()
        assert await scene.said() == [Given(1, None, None, 0.0)]
        scene.worker.answers(scene.exchange(1))
        scene.front.tell_given()
        await scene.said()
        scene.worker.answers(scene.exchange(2))
        assert [each for each in await scene.said() if isinstance(each, Given)] == []


async def test_a_stream_is_at_most_a_window_ahead_of_its_client(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", stream=True)
        exchange = scene.exchange(1)
        cost = CHUNK_COST + 8
        exchange.add_words(words(WINDOW_BYTES // cost + 10), clock.now())
        sent = len(lines_of(await scene.said()))
        assert sent == WINDOW_BYTES // cost
        assert exchange.buffered_bytes == 10 * cost
        scene.front.receive([Took(1, 3 * cost)])
        assert len(lines_of(await scene.said())) == 3
        scene.worker.answers(exchange)
        assert lines_of(await scene.said()) == []
        scene.front.receive([Took(1, WINDOW_BYTES)])
        *_, end = lines_of(await scene.said())
        assert "result" in end


async def test_a_word_larger_than_the_window_waits_until_the_client_has_taken_all(
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", stream=True)
        exchange = scene.exchange(1)
        exchange.add_words([b'"first"', *words(2, WINDOW_BYTES)], clock.now())
        assert [line["params"]["chunk"] for line in lines_of(await scene.said())] == ["first"]
        scene.front.receive([Took(1, CHUNK_COST + 7)])
        assert len(lines_of(await scene.said())) == 1
        scene.front.receive([Took(1, CHUNK_COST + WINDOW_BYTES)])
        assert len(lines_of(await scene.said())) == 1
        assert exchange.buffered_bytes == 0


async def test_a_worker_far_ahead_goes_on_when_the_client_has_taken_enough(
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", stream=True)
        exchange = scene.exchange(1)
        await scene.said()
        exchange.add_words(words(40, 40_000), clock.now())
        await scene.said()
        assert exchange.full
        went_on = trio.Event()

        async def wait() -> None:
            await exchange.wait_for_room()
            went_on.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            while not went_on.is_set():
                assert exchange.full
                scene.front.receive([Took(1, CHUNK_COST + 40_000)])
                await scene.said()
        assert not exchange.full


async def test_an_answer_that_is_no_stream_has_no_window(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold")
        exchange = scene.exchange(1)
        exchange.add_words([b'"first"'], clock.now())
        assert len(lines_of(await scene.said())) == 1
        exchange.add_words(words(4, WINDOW_BYTES), clock.now())
        assert lines_of(await scene.said()) == []
        scene.worker.answers(exchange)
        assert len(lines_of(await scene.said())) == 4 + 1


async def test_nothing_is_taken_from_the_workers_while_the_wire_is_full(
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        scene.wire.has_room = trio.Event()
        scene.submit(1, "speak", stream=True)
        assert await scene.said() == []
        assert scene.exchange(1).buffered_bytes
        scene.wire.has_room.set()
        assert len(lines_of(await scene.said())) == 1


@pytest.mark.parametrize(
    ("prepare", "options", "type_", "elsewhere"),
    [
        (lambda scene: scene.dispatcher.agents.clear(), {}, "agent_not_found", True),
        (lambda scene: scene.agents.agent.drain(), {}, "shutting_down", True),
        (lambda _: None, {"method": "chat"}, "handler_not_implemented", False),
        (lambda _: None, {"needs": ["image"]}, "invalid_request", False),
    ],
)
async def test_what_is_not_admitted_is_refused_and_goes_elsewhere_where_that_may_help(
    prepare: Callable[[Scene], object],
    options: dict[str, Any],
    type_: str,
    elsewhere: bool,
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        prepare(scene)
        scene.submit(1, **options)
        (refused,) = await scene.said()
        assert isinstance(refused, Refused)
        assert (refused.error.type, refused.elsewhere) == (type_, elsewhere)
        assert not scene.front.requests


async def test_a_full_queue_sends_the_request_elsewhere(autojump_clock: MockClock) -> None:
    async with a_front(concurrency=1, queue=1) as scene:
        for request_id in (1, 2, 3):
            scene.submit(request_id, "hold")
        (refused,) = await scene.said()
        assert isinstance(refused, Refused)
        assert refused.id == 3
        assert refused.elsewhere
        assert refused.error.type == "overloaded"
        assert refused.error.retry_after == 1.0


async def test_a_request_that_no_worker_got_may_be_given_to_another_host(
    autojump_clock: MockClock,
) -> None:
    async with a_front(concurrency=1) as scene:
        scene.submit(1, "hold")
        scene.submit(2, "hold")
        await scene.dispatcher.stop(0)
        given, *ends = await scene.said()
        assert isinstance(given, Given)
        waiting, at_worker = sorted(ends, key=lambda end: isinstance(end, Failed))
        assert isinstance(waiting, Refused)
        assert (waiting.id, waiting.elsewhere) == (2, True)
        assert isinstance(at_worker, Failed)
        assert (at_worker.id, at_worker.handed_over) == (1, True)


async def test_a_crash_is_told_with_what_is_known_of_it(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "die")
        *_, failed = await scene.said()
        assert isinstance(failed, Failed)
        assert failed.handed_over
        assert failed.error.type == "worker_crashed"
        assert failed.error.details == {"exit_status": 3}


async def test_a_cancel_ends_a_request_although_its_words_wait(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", stream=True)
        scene.exchange(1).add_words(words(10, WINDOW_BYTES // 4), clock.now())
        await scene.said()
        scene.front.receive([Cancel(1), Cancel(1), Cancel(99)])
        (failed,) = await scene.said()
        assert isinstance(failed, Failed)
        assert failed.error.type == "cancelled"
        assert scene.worker.cancelled == ["r-1"]
        assert not scene.dispatcher.open


async def test_requests_of_a_front_that_is_gone_are_cancelled(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold")
        scene.submit(2, "hold", stream=True)
        await scene.said()
        scene.front.ended(Ended(1, Why.GIVEN_UP, "it is silent", 0))
        assert await scene.said() == []
        assert scene.worker.cancelled == ["r-1", "r-2"]
        assert not scene.dispatcher.open
        scene.submit(1)  # the next epoch has ids of its own
        assert len(lines_of(await scene.said())) == 1


@pytest.mark.parametrize(
    ("ran_out", "wish", "stream"),
    [("first", "hold", False), ("idle", "speak", True), ("total", "speak", True)],
)
async def test_the_clocks_of_a_request_run_at_its_host(
    ran_out: str, wish: str, stream: bool, autojump_clock: MockClock
) -> None:
    async with a_front(clocks={ran_out: 2}) as scene:
        scene.submit(1, wish, stream=stream)
        await trio.sleep(1.9)
        assert not any(isinstance(each, Failed) for each in await scene.said())
        await trio.sleep(0.2)
        *_, failed = await scene.said()
        assert isinstance(failed, Failed)
        assert failed.error.details["clock"] == ran_out


async def test_the_queue_s_clock_runs_for_who_waits(autojump_clock: MockClock) -> None:
    async with a_front(concurrency=1, clocks={"queue": 1}) as scene:
        scene.submit(1, "hold")
        await trio.sleep(0.5)
        scene.submit(2, "hold")
        await trio.sleep(1.1)
        (failed,) = await scene.said()
        assert isinstance(failed, Failed)
        assert failed.id == 2
        assert not failed.handed_over
        assert failed.error.details["clock"] == "queue"


async def test_what_the_caller_allows_ends_the_request(
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", total=0.5)
        await trio.sleep(0.6)
        *_, failed = await scene.said()
        assert isinstance(failed, Failed)
        assert failed.error.details["clock"] == "total"


async def test_a_question_is_answered(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.front.receive([Ask(5, "describe", "a")])
        assert await scene.said() == [Told(5, b"describe of a")]


async def test_a_front_that_nats_does_not_find_has_time_to_come_back(
    autojump_clock: MockClock,
) -> None:
    async with a_front() as scene:
        front, wire = scene.front, scene.wire
        await trio.sleep(1)
        front.unheard()
        assert not front.is_gone(10)
        await trio.sleep(1.5)
        wire.heard_at = clock.now()
        await trio.sleep(1)
        assert not front.is_gone(10)
        front.unheard()
        await trio.sleep(1)
        front.unheard()
        await trio.sleep(1)
        assert front.is_gone(10)


async def test_a_front_that_is_silent_for_the_grace_is_gone(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        await trio.sleep(9.9)
        assert not scene.front.is_gone(10)
        await trio.sleep(0.2)
        assert scene.front.is_gone(10)


async def test_a_front_that_says_an_id_twice_has_to_begin_anew(autojump_clock: MockClock) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold")
        scene.submit(1, "hold")
        assert scene.wire.given_up == ["request 1 came twice"]


async def test_a_defect_ends_one_request_and_not_its_host(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_front() as scene:
        scene.submit(1, "hold", stream=True)
        await scene.said()

        def broken(*_: object) -> bytes:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(request, "encode_words", broken)
            scene.exchange(1).add_words([b'"word"'], clock.now())
            scene.submit(2)
            said = await scene.said()
        assert [line["id"] for line in lines_of(said)] == [2]
        (failed,) = (each for each in said if isinstance(each, Failed))
        assert (failed.id, failed.error.type, failed.handed_over) == (1, "internal_error", True)
        assert scene.worker.cancelled == ["r-1"]
        assert not scene.dispatcher.open
        assert "ZeroDivisionError" in caplog.text


async def test_clocks_are_looked_at_while_an_answer_that_has_ended_waits_to_be_told(
    autojump_clock: MockClock,
) -> None:
    async with a_front(clocks={"first": 1}) as scene:
        scene.wire.has_room = trio.Event()
        scene.submit(1)
        scene.submit(2, "hold")
        await trio.sleep(2)
        assert scene.exchange(1).ended
        assert scene.exchange(1).deadline == math.inf
        assert isinstance(scene.exchange(2).error, ClockRanOut)


async def test_questions_are_answered_as_far_as_the_front_takes_the_answers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.host.front.MOST_ASKED", 100)
    async with a_front() as scene:
        scene.wire.has_room = trio.Event()
        scene.front.receive([Ask(number, "describe", "a") for number in range(100)])
        assert await scene.said() == []
        assert scene.wire.given_up == []
        scene.front.receive([Ask(100, "describe", "a")])
        assert scene.wire.given_up == ["100 questions wait for their answers"]
        scene.wire.has_room.set()
        assert len(await scene.said()) == 100
        scene.front.receive([Ask(number, "describe", "a") for number in range(100)])
        assert len(await scene.said()) == 100
        assert len(scene.wire.given_up) == 1
