"""A second dialect, as unlike the native one as client protocols are: the seam fits both.

It speaks JSON-RPC: one path for all agents, errors with status 200 under the request's own id, and
streams whose events are numbered, begin with an event of their own and end with the whole text.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from gateway.call import Call
from gateway.errors import AgentFailed, GatewayError, InvalidRequest
from gateway.exchange import Exchange
from gateway.front.answers import KEEP_ALIVE_SECONDS
from gateway.front.dialect import (
    Headers,
    RequestHead,
    Response,
    Route,
    caller_timeout,
    error_headers,
)
from protocol import Payload
from tests.unit.asgi import DIALECTS, SCOPE, FakeClient, converse, say_nothing

JSON = (b"content-type", b"application/json")


class RpcDialect:
    def match(self, path: str) -> RpcCodec | None:
        return RpcCodec() if self.covers(path) else None

    def match_run(self, path: str) -> None:
        del path

    def covers(self, path: str) -> bool:
        return path == "/rpc"

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        return RpcCodec().encode_error(error, request_id)


class RpcCodec:
    agent = None
    route = Route("rpc", "/rpc", "invoke")

    def __init__(self) -> None:
        self.id: object = None

    def decode(self, head: RequestHead, body: bytes) -> Call | Response:
        request = json.loads(body)
        self.id = request["id"]
        if request["method"] == "ping":
            return Response(200, [JSON], json.dumps({"id": self.id, "result": "pong"}).encode())
        if "agent" not in request:
            raise InvalidRequest("no agent is named")
        return Call(
            agent=request["agent"],
            method="invoke",
            payload=json.dumps(request["params"]).encode(),
            stream=request["method"] == "stream",
            request_id=head.request_id,
            total=caller_timeout(head),
        )

    def encode(self, exchange: Exchange, chunks: list[bytes]) -> Response:
        text = exchange.result if exchange.result is not None else b"".join(chunks)
        result = json.loads(bytes(text))
        return Response(200, [JSON], json.dumps({"id": self.id, "result": result}).encode())

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        told = {"code": error.status, "data": [request_id, output_begun]}
        body = json.dumps({"id": self.id, "error": told}).encode()
        return Response(200, [JSON, *error_headers(error)], body)

    def stream(self, exchange: Exchange) -> RpcStream:
        return RpcStream(self.id, exchange)


class RpcStream:
    headers: Headers = ((b"content-type", b"text/event-stream"), (b"x-dialect", b"rpc"))
    failure = None

    def __init__(self, id_: object, exchange: Exchange) -> None:
        self._id, self._exchange = id_, exchange
        self._text = ""
        self._sequence = 0

    def _event(self, **members: object) -> bytes:
        opening = b"" if self._sequence else self._one(begun=True)
        return opening + self._one(**members)

    def _one(self, **members: object) -> bytes:
        event = {"id": self._id, "sequence": self._sequence, **members}
        self._sequence += 1
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    def chunks(self, chunks: list[bytes]) -> bytes:
        delta = "".join(map(json.loads, chunks))
        self._text += delta
        return self._event(delta=delta)

    def keep_alive(self) -> bytes:
        return self._event(ping=True)

    def end(self, result: Payload | None) -> bytes:
        return self._event(whole=self._text if result is None else json.loads(bytes(result)))

    def error(self, error: GatewayError) -> bytes:
        return self._event(error=error.type, output_begun=self._exchange.output_begun)


async def ask(story: Any, **request: object) -> FakeClient:
    client = FakeClient(json.dumps(request).encode())
    dialects = (*DIALECTS, RpcDialect())
    headers = [*SCOPE["headers"], (b"x-request-id", b"r-1")]
    scope = {**SCOPE, "path": "/rpc", "raw_path": b"/rpc", "headers": headers}
    await converse(client, story, dialects=dialects, scope=scope)
    return client


def events_of(client: FakeClient) -> list[dict[str, Any]]:
    events = [json.loads(each.removeprefix(b"data: ")) for each in client.body.split(b"\n\n")[:-1]]
    assert [event.pop("sequence") for event in events] == list(range(len(events)))
    assert {event.pop("id") for event in events} == {7}
    return events


async def test_one_answer_is_under_the_id_of_its_request() -> None:
    async def answer(exchange: Exchange) -> None:
        assert (exchange.call.agent, exchange.call.payload) == ("b", b'{"x": 1}')
        exchange.end(b"[1]")

    client = await ask(answer, id=7, method="call", agent="b", params={"x": 1})
    assert (client.status, json.loads(client.body)) == (200, {"id": 7, "result": [1]})


async def test_what_is_for_no_agent_is_answered_without_one() -> None:
    client = await ask(say_nothing, id=7, method="ping")
    assert (client.status, json.loads(client.body)) == (200, {"id": 7, "result": "pong"})
    assert b"connection" not in client.headers


async def test_a_stream_is_numbered_from_its_own_first_event_to_its_own_last(
    autojump_clock,
) -> None:
    async def talk(exchange: Exchange) -> None:
        await trio.sleep(KEEP_ALIVE_SECONDS + 1)
        exchange.add_words([b'"one "', b'"two "'], trio.current_time())
        await trio.sleep(1)
        exchange.add_words([b'"three"'], trio.current_time())
        exchange.end()

    client = await ask(talk, id=7, method="stream", agent="b", params=1)
    assert events_of(client) == [
        {"begun": True},
        {"ping": True},
        {"delta": "one two "},
        {"delta": "three"},
        {"whole": "one two three"},
    ]
    assert (b"x-dialect", b"rpc") in client.sent[0][1]["headers"]


async def test_a_stream_that_fails_ends_in_an_event_of_the_dialect(autojump_clock) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.add_words([b'"one"'], trio.current_time())
        await trio.sleep(1)
        exchange.fail(AgentFailed("no"))

    client = await ask(fail, id=7, method="stream", agent="b", params=1)
    assert events_of(client) == [
        {"begun": True},
        {"delta": "one"},
        {"error": "agent_error", "output_begun": True},
    ]


@pytest.mark.parametrize("method", ["call", "stream"])
async def test_an_error_before_the_first_word_has_the_dialects_own_form(method: str) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.fail(AgentFailed("no"))

    client = await ask(fail, id=7, method=method, agent="b", params=1)
    error = {"code": 500, "data": ["r-1", False]}
    assert (client.status, json.loads(client.body)) == (200, {"id": 7, "error": error})


async def test_a_request_for_another_host_is_refused_in_the_dialects_form() -> None:
    client = FakeClient(b"{}")
    headers = [(b"x-request-id", b"r-1"), (b"host", b"evil.example")]
    scope = {**SCOPE, "path": "/rpc", "raw_path": b"/rpc", "headers": headers}
    await converse(client, None, dialects=(*DIALECTS, RpcDialect()), scope=scope)
    assert json.loads(client.body) == {"id": None, "error": {"code": 421, "data": ["r-1", None]}}


async def test_a_request_that_is_refused_has_it_too_under_its_id_if_that_was_read() -> None:
    client = await ask(None, id=7, method="call", params=1)
    assert json.loads(client.body) == {"id": 7, "error": {"code": 400, "data": ["r-1", None]}}
    client = await ask(None, id=7, method="call", params="x" * 1001)
    assert json.loads(client.body) == {"id": None, "error": {"code": 413, "data": ["r-1", None]}}
