"""Calls over ASGI in virtual time: clocks, silence, and clients that leave or do not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from gateway.config import Clocks
from gateway.errors import (
    AgentFailed,
    AgentUnavailable,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    InvalidAgentResponse,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.exchange import Exchange
from gateway.front.answers import KEEP_ALIVE_SECONDS, UNWATCHED_SECONDS
from gateway.front.client import BODY_SECONDS
from gateway.front.native import sse
from tests.unit.asgi import (
    DEFAULT,
    SCOPE,
    FakeClient,
    FakeDispatcher,
    Story,
    converse,
    make_routes,
    say_nothing,
)


async def ask(story: Story, *, stream: bool = True, clocks: Clocks = DEFAULT) -> FakeClient:
    client = FakeClient(json.dumps({"input": 1, "stream": stream}).encode())
    dispatcher = await converse(client, story, clocks=clocks)
    assert len(dispatcher.left) == 1
    return client


async def test_silence_is_filled_with_comments_and_the_first_brings_the_head(
    autojump_clock,
) -> None:
    async def think(exchange: Exchange) -> None:
        await trio.sleep(50)
        exchange.add_words([b'"at last"'], trio.current_time())
        await trio.sleep(20)
        exchange.end()

    client = await ask(think)
    assert client.status == 200
    assert [part for _, part in client.parts] == [
        *[sse.KEEP_ALIVE] * 3,
        b'data: {"chunk":"at last"}\n\n',
        sse.KEEP_ALIVE,
        sse.DONE,
    ]
    every = KEEP_ALIVE_SECONDS
    times = [at for at, _ in client.sent[:1] + client.parts]  # type: ignore[operator]
    expected = [every, every, 2 * every, 3 * every, 50, 50 + every, 70]
    assert times == pytest.approx(expected, abs=2 * UNWATCHED_SECONDS)


async def test_a_word_is_sent_when_it_is_said(autojump_clock) -> None:
    async def talk(exchange: Exchange) -> None:
        for number in range(3):
            await trio.sleep(0.01)
            exchange.add_words([b"%d" % number], trio.current_time())
        await trio.sleep(10)
        exchange.end()

    client = await ask(talk)
    assert [at for at, _ in client.parts] == [0.01, 0.02, 0.03, 10.03]


def test_keep_alives_come_before_a_proxy_gives_up() -> None:
    assert KEEP_ALIVE_SECONDS < 30


async def test_a_failure_before_the_first_comment_has_its_own_status(autojump_clock) -> None:
    async def fail(exchange: Exchange) -> None:
        await trio.sleep(KEEP_ALIVE_SECONDS - 1)
        exchange.fail(AgentFailed("no"))

    client = await ask(fail)
    assert client.status == 500
    assert json.loads(client.body)["error"]["type"] == "agent_error"


async def test_a_failure_after_it_is_an_event(autojump_clock) -> None:
    async def fail(exchange: Exchange) -> None:
        await trio.sleep(KEEP_ALIVE_SECONDS + 1)
        exchange.fail(AgentFailed("no"))

    client = await ask(fail)
    assert client.status == 200
    comment, event = client.body.split(b"\n\n", 1)
    assert comment + b"\n\n" == sse.KEEP_ALIVE
    assert event.startswith(b'event: error\ndata: {"error":{"type":"agent_error"')
    assert b"[DONE]" not in client.body


async def test_no_stream_is_cut_because_it_is_long(autojump_clock) -> None:
    async def talk(exchange: Exchange) -> None:
        for _ in range(600):
            exchange.add_words([b'"x"'], trio.current_time())
            await trio.sleep(1)
        exchange.end()

    client = await ask(talk)
    assert client.body.count(b'{"chunk":"x"}') == 600
    assert client.parts[-1] == (600, sse.DONE)


async def test_one_json_answer_is_waited_for_without_comments(autojump_clock) -> None:
    async def think(exchange: Exchange) -> None:
        await trio.sleep(120)
        exchange.end(b"7")

    client = await ask(think, stream=False)
    assert client.parts == [(120, b'{"output":7}')]


async def test_keep_alives_do_not_move_the_agents_clocks(autojump_clock) -> None:
    client = await ask(say_nothing, clocks=Clocks(first=100))
    assert client.body.count(sse.KEEP_ALIVE) == 6
    assert client.parts[-1][0] == 100
    assert b'"clock":"first"' in client.parts[-1][1]


class HalfABody(FakeClient):
    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": True}
        await trio.sleep_forever()
        raise AssertionError


async def test_half_a_body_is_waited_for_and_no_longer(autojump_clock) -> None:
    client = HalfABody(b'{"input"')
    scope = {**SCOPE, "headers": [*SCOPE["headers"], (b"content-length", b"12")]}
    dispatcher = await converse(client, say_nothing, scope=scope)
    assert client.status == 408
    assert client.sent[0][0] == pytest.approx(BODY_SECONDS)
    assert (b"connection", b"close") in client.sent[0][1]["headers"]
    assert dispatcher.left == []


@pytest.mark.parametrize("seconds", [0, 1])
async def test_half_a_body_is_not_waited_for_once_the_gateway_stops(
    seconds, nursery, autojump_clock
) -> None:
    client = HalfABody(b'{"input"')
    scope = {**SCOPE, "headers": [*SCOPE["headers"], (b"content-length", b"12")]}
    dispatcher = FakeDispatcher(nursery, say_nothing, Clocks())

    async def stop() -> None:
        await trio.sleep(seconds)
        dispatcher.until_stop.stop()

    if seconds:
        nursery.start_soon(stop)
    else:
        await stop()
    await make_routes(dispatcher)(scope, client.receive, client.send)
    assert (client.sent[0][0], client.status) == (seconds, 503)
    assert b'"shutting_down"' in client.body
    assert (b"connection", b"close") in client.sent[0][1]["headers"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_left_at_once_and_told_nothing(
    stream, autojump_clock
) -> None:
    leaves = trio.Event()
    client = FakeClient(json.dumps({"input": 1, "stream": stream}).encode(), leaves=leaves)
    async with trio.open_nursery() as nursery:
        dispatcher = FakeDispatcher(nursery, say_nothing, Clocks())
        routes = make_routes(dispatcher)
        nursery.start_soon(routes, SCOPE, client.receive, client.send)
        await trio.sleep(7)
        assert dispatcher.left == []
        leaves.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(dispatcher.left) == 1
        assert client.sent == []
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_read_is_given_up_when_its_clock_runs_out(
    autojump_clock, caplog
) -> None:
    class Deaf(FakeClient):
        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                with trio.CancelScope(shield=True):  # as Hypercorn's is
                    await trio.sleep(500)

    ended: list[tuple[float, str]] = []

    async def talk(exchange: Exchange) -> None:
        began = trio.current_time()
        while not exchange.ended:
            exchange.add_words([b'"x"'], trio.current_time())
            await trio.sleep(1)
        assert exchange.error is not None
        ended.append((trio.current_time() - began, exchange.error.details["clock"]))

    client = Deaf(b'{"input": 1, "stream": true}')
    with caplog.at_level("INFO", logger="gateway.http"):
        dispatcher = await converse(client, talk, clocks=Clocks(write=30))
    assert len(caplog.records) == 1
    ((at, clock),) = ended
    assert (at, clock) == (pytest.approx(30, abs=1), "write")
    assert len(dispatcher.left) == 2, "when the clock ran out, and again at the end"


async def test_a_clock_that_ran_out_is_logged_with_its_name_and_its_true_time(
    autojump_clock, caplog
) -> None:
    client = FakeClient(b'{"input": 1}')
    with caplog.at_level("INFO", logger="gateway.http"):
        await converse(client, say_nothing, clocks=Clocks(queue=7, start=7, first=7))
    (record,) = [each for each in caplog.records if "504 timeout" in each.message]
    assert record.fields["clock"] in {"queue", "start", "first"}
    assert record.fields["elapsed"] == pytest.approx(7)


# Whether a request may be sent again


def retry_of(client: FakeClient) -> dict[bytes, bytes]:
    names = {b"x-should-retry", b"retry-after"}
    return {name: value for name, value in client.headers.items() if name in names}


FORBIDDEN = {b"x-should-retry": b"false"}

FAILURES = {
    "its handler failed": AgentFailed("no"),
    "it lacks a handler": HandlerNotImplemented("no"),
    "it crashed": WorkerCrashed("died"),
    "it wrote nonsense": InvalidAgentResponse("no"),
    "a clock": ClockRanOut("first", 1, 1),
    "the end of the drain": ShuttingDown("the gateway is shutting down"),
}


async def failed(error: GatewayError, *, hands_over: bool, stream: bool = False) -> FakeClient:
    async def fail(exchange: Exchange) -> None:
        exchange.fail(error)

    client = FakeClient(json.dumps({"input": 1, "stream": stream}).encode())
    await converse(client, fail, hands_over=hands_over)
    assert client.status == error.status
    return client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_request_that_a_worker_may_have_read_is_not_to_be_sent_again(
    failure: str, stream: bool
) -> None:
    client = await failed(FAILURES[failure], hands_over=True, stream=stream)
    assert retry_of(client) == FORBIDDEN


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (WorkerCrashed("could not be started"), b"1"),
        (ClockRanOut("queue", 1, 1), b"1"),
        (ShuttingDown("the gateway is shutting down"), b"1"),
        (AgentUnavailable("open", retry_after=7), b"7"),
    ],
)
async def test_one_that_no_worker_can_have_read_may_be_and_is_told_when(error, after) -> None:
    assert retry_of(await failed(error, hands_over=False)) == {b"retry-after": after}


async def test_one_that_was_taken_back_from_its_worker_unread_may_be() -> None:
    async def take_back(exchange: Exchange) -> None:
        exchange.queued_again(trio.current_time())
        exchange.fail(WorkerCrashed("could not be started"))

    client = FakeClient(b'{"input": 1}')
    await converse(client, take_back)
    assert retry_of(client) == {b"retry-after": b"1"}


async def test_what_the_client_has_caused_says_nothing_of_it() -> None:
    assert retry_of(await failed(InvalidRequest("not a number"), hands_over=True)) == {}
    client = FakeClient(b"{")
    await converse(client, say_nothing)
    assert (client.status, retry_of(client)) == (400, {})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Overloaded("full", retry_after=2), {b"retry-after": b"2"}),
        (ShuttingDown("bye", retry_after=1), {b"retry-after": b"1"}),
        (HandlerNotImplemented("no chat"), FORBIDDEN),  # and would be the same again
        (ZeroDivisionError(), FORBIDDEN),
    ],
)
async def test_a_refusal_says_it_too(monkeypatch, error: Exception, expected, caplog) -> None:
    def refuse(self: FakeDispatcher, call: object) -> Exchange:
        raise error

    monkeypatch.setattr(FakeDispatcher, "submit", refuse)
    client = FakeClient(b'{"input": 1}')
    await converse(client, say_nothing)
    assert retry_of(client) == expected


# What is for this gateway


def scope_of(path: bytes, **more: Any) -> dict[str, Any]:
    return {**SCOPE, "path": path.decode(), "raw_path": path, **more}


async def answer_to(scope: dict[str, Any]) -> FakeClient:
    async def answer(exchange: Exchange) -> None:
        exchange.end(b"7")

    client = FakeClient(b'{"input": 1}')
    await converse(client, answer, scope=scope)
    return client


def with_host(*hosts: bytes) -> list[tuple[bytes, bytes]]:
    return [*SCOPE["headers"], *((b"host", host) for host in hosts)]


@pytest.mark.parametrize(
    ("path", "hosts", "status"),
    [
        (b"/agent/a/invoke", [], 200),
        (b"/agent/a/invoke", [b"localhost:8080"], 200),
        (b"/agent/a/invoke", [b"evil.example"], 421),
        (b"/agent/a/invoke", [b"a..b"], 400),
        (b"/agent/a/invoke", [b"localhost", b"localhost"], 400),
        (b"http://localhost/agent/a/invoke", [b"localhost"], 200),
        (b"http://localhost/agent/a/invoke", [b"evil.example"], 200),  # RFC 9112, 3.2.2
        (b"http://localhost/agent/a/invoke", [b"a..b"], 400),
        (b"http://evil.example/agent/a/invoke", [b"localhost"], 421),
        (b"http://user@localhost/agent/a/invoke", [b"localhost"], 400),
    ],
)
async def test_a_call_is_answered_for_a_host_that_belongs_here(path, hosts, status) -> None:
    client = await answer_to(scope_of(path, headers=with_host(*hosts)))
    assert client.status == status
    if status != 200:
        assert json.loads(client.body)["error"]["request_id"]
        assert client.headers[b"x-request-id"]


async def test_options_of_the_server_as_a_whole_say_what_there_is() -> None:
    client = await answer_to(scope_of(b"*", method="OPTIONS", headers=[]))
    assert client.status == 200
    assert client.headers[b"allow"] == b"GET, HEAD, OPTIONS, POST"
    assert client.headers[b"content-length"] == b"0"
