"""The door to services: what passes, in which form, and how it ends."""

from __future__ import annotations

import gc
import json
import secrets
import ssl
from functools import partial
from typing import Any

import h11
import pytest
import trio
import trio.testing
import trustme

from gateway.sandbox.network import door
from gateway.sandbox.network.downstream import Downstream
from gateway.sandbox.network.rules import Service
from tests.sandbox.doors import KEY, OK, Upstream, scene


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def message(answer: bytes) -> str:
    said: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return str(said["error"]["message"])


async def test_a_request_gets_the_key_and_nothing_of_the_agents_own() -> None:
    async with scene() as it:
        answer = await it.get(
            "/llm/chat?x=1", "Authorization: Bearer placeholder", "Cookie: a=b", "X-Evil: 1"
        )
        assert answer.endswith(b"\r\n\r\nok")
        seen = it.upstream.seen.decode()
    assert seen.startswith("GET /v1/chat?x=1 HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n" in seen
    assert f"Host: 127.0.0.1:{it.upstream.port}\r\n".lower() in seen.lower()
    assert "placeholder" not in seen
    assert "Evil" not in seen
    assert "Cookie" not in seen


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_sent_as_it_comes(chunked: bool) -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if b"first" not in head:
            await upstream.until(stream, b"first")
        came.set()
        await upstream.until(stream, b"last\r\n0\r\n\r\n" if chunked else b"last")
        await stream.send_all(OK)

    came = trio.Event()
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 9"
    pieces = [b"5\r\nfirst\r\n", b"4\r\nlast\r\n0\r\n\r\n"] if chunked else [b"first", b"last"]
    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(f"POST /llm/x HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        await agent.send_all(pieces[0])
        await came.wait()
        await agent.send_all(pieces[1])
        assert b"200" in await agent.receive_some()
    assert it.records[0].sent == 9


async def test_an_answer_streams_event_by_event() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            event = f"data: {number} {KEY[:9]}\n\n".encode()
            await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
            await read[number].wait()
        await stream.send_all(b"0\r\n\r\n")

    read = [trio.Event() for _ in range(5)]
    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        for number in range(5):
            while f"data: {number} {KEY[:9]}\n\n".encode() not in got:
                got += await agent.receive_some()
            read[number].set()
        while not got.endswith(b"0\r\n\r\n"):
            got += await agent.receive_some()
    assert [got.count(b"data: %d " % number) for number in range(5)] == [1] * 5
    assert it.records[0].verdict == "allowed"


USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(USAGE), USAGE)
NAMED = b"data: %b\n\ndata: [DONE]\n\n" % USAGE
UNENDED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n" % (len(NAMED), NAMED)
)


@pytest.mark.parametrize(
    ("answer", "last"), [(WHOLE, USAGE), (UNENDED, b"[DONE]\n\n")], ids=["whole", "stream"]
)
async def test_whoever_has_been_told_what_an_answer_took_finds_it_counted(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, last: bytes
) -> None:
    """Also where the door is held up right after it has sent that, as any process may be."""
    go_on = trio.Event()
    send = Downstream.send

    async def held_up(self: Downstream, *events: h11.Event) -> None:
        await send(self, *events)
        await go_on.wait()

    monkeypatch.setattr(Downstream, "send", held_up)
    request = b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        scene(answer, tokens_per_day=7) as it,
        await it.connect() as first,
        await it.connect() as second,
    ):
        await first.send_all(request)
        got = b""
        while last not in got:
            got += await first.receive_some()
        await second.send_all(request)
        assert status(await second.receive_some()) == 429
        go_on.set()
    assert sorted((each.verdict, each.charged) for each in it.records) == [
        ("allowed", 7),
        ("refused", 0),
    ]


@pytest.mark.parametrize("target", ["/llm/x", "/nobody/x", "/llm/y"])
async def test_whoever_has_an_answer_finds_its_record(
    monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Passed on, refused, or failed; the door may be held up right after it has answered."""

    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream
        await stream.send_all(WHOLE if b"/x " in head else b"HTTP/1.1 nonsense\r\n\r\n")

    go_on = trio.Event()
    send = Downstream.send

    async def held_up(self: Downstream, *events: h11.Event) -> None:
        await send(self, *events)
        await go_on.wait()

    monkeypatch.setattr(Downstream, "send", held_up)
    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status_of_answer = status(await agent.receive_some())
        assert [each.status for each in it.records] == [status_of_answer]
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
    assert [each.status for each in it.records] == [status_of_answer]


async def test_the_agents_leaving_ends_the_request_at_once() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del head
        asked.set()
        await upstream.until(stream, b"never")

    asked = trio.Event()
    async with scene(answer) as it:
        async with await it.connect() as agent:
            await agent.send_all(b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
        await it.upstream.left.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert it.records[0].why == "the agent has left"


async def test_the_agents_leaving_ends_a_stream_at_once() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del head
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun\n")
        await upstream.until(stream, b"never")

    async with scene(answer) as it:
        async with await it.connect() as agent:
            await agent.send_all(b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            while b"begun" not in got:
                got += await agent.receive_some()
        await it.upstream.left.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert it.records[0].why == "the agent has left"


async def test_connections_are_kept_on_both_sides() -> None:
    async with scene() as it, await it.connect() as agent:
        for _ in range(3):
            await agent.send_all(b"POST /llm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            got = b""
            while not got.endswith(b"\r\n\r\nok"):
                got += await agent.receive_some()
        assert it.upstream.connections == 1


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with scene() as it:
        one = b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n"
        got = await it.ask(
            one + one + b"GET /llm/y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
    assert got.count(b" 200 ") == 3
    assert [record.path for record in it.records] == ["/x", "/x", "/y"]


async def test_a_connection_that_the_service_has_closed_is_not_used_again() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(OK)
        await stream.aclose()

    async with scene(answer) as it:
        for _ in range(3):
            assert status(await it.get("/llm/x")) == 200
    assert it.upstream.connections == 3


async def test_an_early_answer_is_passed_on_while_the_body_is_still_sent() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await stream.aclose()

    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(b"POST /llm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        got = b""
        async for more in agent:
            got += more
    assert status(got) == 413
    assert got.endswith(b"big")


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if b"body" not in head:
            await upstream.until(stream, b"body")
        await stream.send_all(OK)

    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(
            b"POST /llm/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert (await agent.receive_some()).startswith(b"HTTP/1.1 100 ")
        await agent.send_all(b"body")
        assert b" 200 " in await agent.receive_some()
    assert b"expect" not in it.upstream.seen.lower()


async def test_a_head_request_and_an_answer_without_a_body_pass() -> None:
    async with scene(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") as it:
        answer = await it.get("/llm/x", method="HEAD")
        assert status(answer) == 200
        assert b"content-length: 5" in answer.lower()
    async with scene(b"HTTP/1.1 204 No Content\r\n\r\n") as it:
        assert status(await it.get("/llm/x", method="DELETE")) == 204


async def test_what_is_not_allowed_is_told_with_the_setting() -> None:
    async with scene(allow=["POST /chat"]) as it:
        answer = await it.get("/llm/models")
        assert status(answer) == 403
        assert message(answer).endswith("services.llm.allow does not have GET /models")
        assert b"x-should-retry: false" in answer
        answer = await it.get("/other/models")
        assert status(answer) == 404
        assert "agents.NAME.services" in message(answer)
        assert it.upstream.connections == 0
    assert [(each.verdict, each.name, each.rule) for each in it.records] == [
        ("refused", "llm", "services.llm.allow"),
        ("refused", "", "services"),
    ]


async def test_a_record_says_what_became_of_a_request() -> None:
    async with scene(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as it:
        await it.get("/llm/x?secret=1", method="POST", body="12345")
    [record] = it.records
    assert (record.verdict, record.rule, record.status, record.worker) == ("allowed", "*", 200, 7)
    assert (record.method, record.path, record.sent, record.received) == ("POST", "/x", 5, 2)


@pytest.mark.parametrize(
    ("clock", "answer", "words"),
    [
        ("first", b"", "llm has not begun to answer within 0.05 s (services.llm.clocks.first)"),
        ("idle", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None),
    ],
)
async def test_a_slow_service_meets_a_clock_with_a_name(
    clock: str, answer: bytes, words: str | None
) -> None:
    clocks = {"connect": 5.0, "first": 20.0, "idle": 20.0} | {clock: 0.05}
    async with scene(answer, clocks=clocks) as it:
        got = await it.get("/llm/x")
        if words is not None:
            assert status(got) == 504
            assert message(got) == f"agent-gateway: {words}"
        else:
            assert got.endswith(b"\r\n\r\n")  # and no more: it is cut
    assert (it.records[0].verdict, it.records[0].rule) == ("failed", f"services.llm.clocks.{clock}")


async def test_a_service_that_is_not_there_is_told() -> None:
    async with scene() as it:
        it.change(port=1)
        answer = await it.get("/llm/x")
    assert status(answer) == 502
    assert (
        message(answer) == "agent-gateway: llm: 127.0.0.1:1 cannot be reached: Connection refused"
    )


async def test_a_changed_key_is_used_for_the_next_request_on_the_same_connection() -> None:
    async with scene() as it:
        await it.get("/llm/x")
        it.change(headers={"Authorization": "Bearer other-key-1234"}, secrets=["other-key-1234"])
        await it.get("/llm/x")
        assert it.upstream.connections == 1
        assert b"Bearer other-key-1234" in it.upstream.seen


async def test_a_key_that_was_replaced_is_kept_nowhere() -> None:
    old = f"sk-old-{secrets.token_hex(10)}"
    async with scene(headers={"Authorization": f"Bearer {old}"}, secrets=[old]) as it:
        await it.get("/llm/x")
        assert services_with(old)  # the control
        it.change(headers={"Authorization": "Bearer other-key-1234"}, secrets=["other-key-1234"])
        await it.get("/llm/x")
        assert it.upstream.connections == 1
        assert not services_with(old)


def services_with(key: str) -> list[Service]:
    gc.collect()
    services = [each for each in gc.get_objects() if isinstance(each, Service)]
    return [each for each in services if key in str(each.headers)]


async def test_a_request_that_is_not_allowed_any_more_is_cut() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del head
        asked.set()
        await upstream.until(stream, b"never")

    asked = trio.Event()
    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        it.change(allow=["POST /y"])
        assert b"the settings were changed meanwhile" in await agent.receive_some()
        await it.upstream.left.wait()


@pytest.mark.parametrize(
    ("trusted", "name", "words"),
    [
        (True, "127.0.0.1", None),
        (False, "127.0.0.1", "its certificate is not trusted"),
        (True, "other.example", "its certificate is not trusted"),
    ],
)
async def test_a_service_has_to_show_a_certificate_for_its_name(
    trusted: bool, name: str, words: str | None
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    other = authority if trusted else trustme.CA()
    async with scene() as it, trio.open_nursery() as nursery:
        [secure] = await nursery.start(
            partial(trio.serve_ssl_over_tcp, it.upstream.serve, 0, context, host="127.0.0.1")
        )
        port = secure.transport_listener.socket.getsockname()[1]
        it.change(scheme="https", port=port, ca=other.cert_pem.bytes().decode())
        answers = [await it.get("/llm/x") for _ in range(2)]
        nursery.cancel_scope.cancel()
    for answer in answers:
        if words is None:
            assert answer.endswith(b"ok")
        else:
            assert status(answer) == 502
            assert words in message(answer)
    assert it.upstream.connections == (1 if words is None else 0)
    assert (KEY.encode() in it.upstream.seen) == (words is None)


async def test_connections_are_not_kept_where_many_are_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "MANY_CLIENTS", 1)
    plain = b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n"
    async with scene() as it, await it.connect() as first:
        await first.send_all(plain)
        kept = await first.receive_some()
        assert b"close" not in kept.lower()  # the control
        assert (await it.ask(plain)).lower().count(b"connection: close") == 1


async def test_a_cut_does_not_look_whole_to_a_client_of_http_1_0() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await seen.wait()
        await stream.aclose()

    seen = trio.Event()
    async with scene(answer, secrets=[]) as it, await it.connect() as agent:
        await agent.send_all(b"GET /llm/x HTTP/1.0\r\n\r\n")
        got = b""
        while not got.endswith(b"x"):
            got += await agent.receive_some()
        seen.set()
        with pytest.raises(trio.BrokenResourceError):
            await agent.receive_some()


async def test_a_body_that_does_not_come_meets_a_clock() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del head
        await upstream.until(stream, b"never")

    clocks = {"connect": 5.0, "first": 20.0, "idle": 0.05}
    async with scene(answer, clocks=clocks) as it:
        assert await it.get("/llm/x", "Content-Length: 5", method="POST") == b""
        await it.upstream.left.wait()
    assert it.records[0].why == (
        "the agent has sent nothing of its body for 0.05 s (services.llm.clocks.idle)"
    )
