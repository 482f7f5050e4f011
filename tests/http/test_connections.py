"""Connections, by hand: when they close, what a client may send and how slowly, who waits for whom.

Most of these hold a cure for something that the HTTP stack below does by itself.
"""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
import trio

from gateway.front import connections
from tests.harness import running_gateway
from tests.http.carrier import application, bare_server, with_lifespan
from tests.http.conftest import SCRIPTED, Shared
from tests.http.raw import Connection, connected

INVOKE = "/agent/scripted/invoke"
MANY_BYTES = 16 * 1024 * 1024
"""Of a stream: more than all buffers between a worker and a client that does not read."""

EXCHANGES = {
    "one JSON": ("POST", INVOKE, {"input": 1}, 200),
    "a stream": ("POST", INVOKE, {"input": [["say", "x"], ["end"]], "stream": True}, 200),
    "an error": ("POST", INVOKE, {"input": [["error", -32000, "x"]]}, 500),
    "a bad body": ("POST", INVOKE, {}, 400),
    "an error in a stream": (
        "POST",
        INVOKE,
        {"input": [["say", "x"], ["error", -32000, "x"]], "stream": True},
        200,
    ),
    "no such agent": ("POST", "/agent/nobody/invoke", {"input": 1}, 404),
    "a wrong method": ("GET", INVOKE, None, 405),
    "a route of Quart's": ("GET", "/live", None, 200),
    "an error of Quart's": ("GET", "/nothing", None, 404),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_connection_close_closes_after(shared: Shared, exchange: str) -> None:
    method, path, body, status = EXCHANGES[exchange]
    async with connected(shared.port) as connection:
        await connection.request(path, body, method=method, headers=("Connection: close",))
        answer = await connection.answer()
        assert answer.status == status
        assert await connection.has_ended()


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_http_1_0_closes_after(shared: Shared, exchange: str) -> None:
    method, path, body, status = EXCHANGES[exchange]
    async with connected(shared.port) as connection:
        await connection.request(path, body, method=method, version="1.0")
        answer = await connection.answer()
        assert answer.status == status
        assert await connection.has_ended()


async def test_a_connection_is_used_again_after_everything_that_was_read_whole(
    shared: Shared,
) -> None:
    async with connected(shared.port) as connection:
        for _ in range(2):
            for name, (method, path, body, status) in EXCHANGES.items():
                if name == "no such agent":
                    continue  # is answered before its body is read
                await connection.request(path, body, method=method)
                assert (await connection.answer()).status == status, name


async def test_requests_in_one_packet_are_answered_one_after_the_other(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        requests = b""
        for number in range(5):
            stream = b"true" if number % 2 else b"false"
            body = b'{"input": "no. %d", "stream": %b}' % (number, stream)
            requests += (
                b"POST /agent/scripted/invoke HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            ) % (len(body), body)
        await connection.send(requests)
        answers = [await connection.answer() for _ in range(5)]
    for number, answer in enumerate(answers):
        assert answer.status == 200
        assert f"no. {number}".encode() in answer.body


async def test_others_have_their_turn_between_the_requests_of_one_packet() -> None:
    calls = []
    begun, go_on = trio.Event(), trio.Event()

    async def respond(send) -> None:
        calls.append(send)
        begun.set()
        if not go_on.is_set():
            await go_on.wait()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with bare_server(application(respond)) as port, connected(port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 200)
        await begun.wait()
        go_on.set()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert len(calls) < 100
        for _ in range(200):
            assert (await connection.until(rb"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")


async def test_others_have_their_turn_while_many_chunks_are_read() -> None:
    pieces: list[bytes] = []
    begun, go_on = trio.Event(), trio.Event()

    async def call(_scope, receive, send) -> None:
        begun.set()
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with bare_server(with_lifespan(call)) as port, connected(port) as connection:
        await connection.send(head("/", None) + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
        await begun.wait()
        go_on.set()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert len(pieces) < 5_000
        assert (await connection.until(rb"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
    assert b"".join(pieces) == b"x" * 10_000


async def test_a_silent_connection_is_closed_after_the_keep_alive_time() -> None:
    async with bare_server(keep_alive=0.2) as port:
        for requests in (0, 1, 2):
            async with connected(port) as connection:
                for _ in range(requests):
                    await connection.request("/live", method="GET")
                    assert (await connection.answer()).status == 200
                assert await connection.has_ended()


async def test_half_a_head_does_not_hold_a_connection(monkeypatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    async with bare_server() as port, connected(port) as connection:
        await connection.send(b"GET /live HTTP/1.1\r\nHost:")
        assert await connection.has_ended()


async def test_a_client_that_sends_for_ever_is_cut_off_after_its_answer(monkeypatch) -> None:
    monkeypatch.setattr(connections, "_LINGER_SECONDS", 0.2)
    async with bare_server() as port, connected(port) as connection:
        await connection.send(head("/agent/nobody/invoke", None) + b"1\r\nx\r\n")
        assert (await connection.answer()).status == 404
        assert await connection.has_ended()


# Bodies


async def test_a_body_in_chunks_is_read_whole(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        await connection.send(
            f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for piece in (b'{"in', b'put": "in ', b'pieces"}'):
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await connection.send(b"0\r\n\r\n")
        answer = await connection.answer()
        assert answer.body == b'{"output":"in pieces"}'
        await connection.request("/live", method="GET")
        assert (await connection.answer()).status == 200


async def test_a_client_that_asks_first_is_told_to_go_on(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        await connection.send(head(INVOKE, 12, "Expect: 100-continue"))
        assert (await connection.until(rb"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await connection.send(b'{"input": 1}')
        assert (await connection.answer()).body == b'{"output":1}'


def head(path: str, length: int | None, *headers: str) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        size,
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_a_client_with_half_a_body_holds_nobody_else(shared: Shared, client) -> None:
    async with connected(shared.port) as slow:
        await slow.send(head(INVOKE, 12) + b'{"input"')
        for number in range(3):
            answer = await client.post(INVOKE, json={"input": number})
            assert answer.json() == {"output": number}
        await slow.send(b": 1}")
        assert (await slow.answer()).body == b'{"output":1}'


async def test_a_client_that_leaves_with_half_a_body_leaves_nothing(shared: Shared, client) -> None:
    async with connected(shared.port) as slow:
        await slow.send(head(INVOKE, 12) + b'{"input"')
    answer = await client.post(INVOKE, json={"input": 1})
    assert answer.status_code == 200
    assert (await client.get("/agent/scripted")).json()["in_flight"] == 0


TOO_LARGE = 1024 * 1024 + 1


async def send_until_refused(connection: Connection, *, chunked: bool, most: int) -> None:
    """Go on sending, as many clients do, until the other side ends it."""
    piece = b"x" * 64 * 1024
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for _ in range(most // len(piece)):
            await connection.send(framed)
        if chunked:
            await connection.send(b"0\r\n\r\n")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_too_much_reads_its_413_and_is_closed(shared, chunked) -> None:
    most = 8 * 1024 * 1024
    async with connected(shared.port) as connection, trio.open_nursery() as nursery:
        await connection.send(head(INVOKE, None if chunked else most))
        nursery.start_soon(lambda: send_until_refused(connection, chunked=chunked, most=most))
        answer = await connection.answer()
        assert answer.status == 413
        assert answer.error["type"] == "request_too_large"
        assert answer.headers["connection"] == "close"
        assert await connection.has_ended()
        nursery.cancel_scope.cancel()


async def test_a_length_that_is_too_large_is_refused_before_it_is_sent(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        await connection.send(head(INVOKE, TOO_LARGE))
        assert (await connection.answer()).status == 413


async def test_a_client_that_asks_first_whether_it_may_send_too_much_may_not(shared) -> None:
    async with connected(shared.port) as connection:
        await connection.send(head(INVOKE, TOO_LARGE, "Expect: 100-continue"))
        await connection.until(rb"HTTP/1.1 413 ")


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_a_wrong_method_with_a_body_is_405_and_the_connection_lives_or_ends(
    shared: Shared, method: str
) -> None:
    async with connected(shared.port) as connection:
        for _ in range(3):
            body = b'{"input": "' + b"x" * 300_000 + b'"}'
            request = head(INVOKE, len(body)).replace(b"POST", method.encode(), 1)
            await connection.send(request + body)
            answer = await connection.answer()
            assert answer.status == 405
            if answer.headers.get("connection") == "close":
                assert await connection.has_ended()
                return


@pytest.mark.parametrize("path", ["/live", "/nothing"])
async def test_a_body_where_none_belongs_closes_the_connection_and_says_so(shared, path) -> None:
    async with connected(shared.port) as connection:
        await connection.send(head(path, 12))  # the body itself comes late, or never
        answer = await connection.answer()
        assert answer.status in {404, 405}
        assert answer.headers["connection"] == "close"
        assert await connection.has_ended()


async def test_an_error_before_a_large_body_was_read_is_read_by_its_client(shared) -> None:
    body = b'{"input": "' + b"x" * 900_000 + b'"}'
    async with connected(shared.port) as connection:
        await connection.send(head("/agent/nobody/invoke", len(body)) + body)
        assert (await connection.answer()).status == 404
        assert await connection.has_ended()


@pytest.mark.parametrize(
    "garbage",
    [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"],
)
async def test_what_is_no_http_is_refused_and_closed(shared: Shared, garbage: bytes) -> None:
    async with connected(shared.port) as connection:
        await connection.send(garbage + b"\r\n" * 4)
        answer = await connection.answer()
        assert answer.head.startswith(b"HTTP/1.1 400 ")
        assert answer.error["type"] == "invalid_request"
        assert answer.error["request_id"] == answer.headers["x-request-id"]
        assert await connection.has_ended()


REFUSALS = {
    "another version": ("GET /live HTTP/2.0", (), b"", 505),
    "a transfer coding": ("POST /live HTTP/1.1", ("Transfer-Encoding: gzip",), b"", 501),
    "two lengths": ("POST /live HTTP/1.1", ("Content-Length: 1", "Content-Length: 2"), b"", 400),
    "many fields": ("GET /live HTTP/1.1", ("a: b",) * 20_000, b"", 431),
    "large fields": ("GET /live HTTP/1.1", (f"a: {'x' * 100_000}",), b"", 431),
    "a bad chunk": (f"POST {INVOKE} HTTP/1.1", ("Transfer-Encoding: chunked",), b"x\r\n", 400),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_has_an_error_body_and_is_read_by_its_client(
    shared: Shared, refusal: str
) -> None:
    request, headers, body, status = REFUSALS[refusal]
    lines = [
        request,
        "Host: localhost",
        "Content-Type: application/json",
        "X-Request-Id: r-9",
        *headers,
    ]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    for pieces in (1, 10):
        async with connected(shared.port) as connection:
            with suppress(trio.BrokenResourceError):  # it need not be read to its end
                for index in range(0, len(data), -(-len(data) // pieces)):
                    await connection.send(data[index : index - (-len(data) // pieces)])
            answer = await connection.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert answer.error["request_id"] == answer.headers["x-request-id"]
            assert await connection.has_ended()
    if status != 431 and refusal not in {"a transfer coding", "two lengths"}:
        assert answer.error["request_id"] == "r-9"  # the head could be read


@pytest.mark.parametrize("eof", [False, True])
async def test_a_response_to_a_head_is_not_lost_because_the_body_is_refused(
    shared: Shared, eof: bool
) -> None:
    async with connected(shared.port) as connection:
        await connection.send(head("/agent/nobody/invoke", None) + (b"" if eof else b"x\r\n"))
        if eof:
            await connection.stream.send_eof()
        assert (await connection.answer()).status == 404
        assert await connection.has_ended()


# RFC 9113: the preface, empty SETTINGS, and HEADERS of a GET whose `:path` is `/\xff`.
HTTP_2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\0\0\0\x04\0\0\0\0\0"
    b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x41\x01x\x44\x02/\xff"
)


async def test_http_2_is_refused_and_closed(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        await connection.send(HTTP_2)
        answer = await connection.rest()
    assert answer.startswith(b"HTTP/1.1 4")
    async with connected(shared.port) as connection:
        await connection.request("/live", method="GET")
        assert (await connection.answer()).status == 200


async def test_an_offer_to_go_on_with_http_2_is_not_taken_up(shared: Shared) -> None:
    headers = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    )
    async with connected(shared.port) as connection:
        for _ in range(2):
            await connection.request("/live", method="GET", headers=headers)
            assert (await connection.answer()).status == 200


@pytest.mark.parametrize("path", [INVOKE, "/nothing"])
async def test_a_websocket_is_refused_like_anything_that_is_not_there(shared, path: str) -> None:
    headers = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "X-Request-Id: ws-1",
    )
    async with connected(shared.port) as connection:
        await connection.request(path, method="GET", headers=headers)
        answer = await connection.answer()
    assert answer.status == 404
    assert (answer.error["type"], answer.error["request_id"]) == ("not_found", "ws-1")


# Clients that do not read


async def test_a_client_that_does_not_read_is_freed_by_the_write_clock(tmp_path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"""
        [defaults]
        workers = {{ min = 1, max = 1 }}
        clocks = {{ write = 1 }}
        [agents.scripted]
        command = [{words}]
        concurrency = 1
        [agents.neighbour]
        command = [{words}]
    """
    async with (
        running_gateway(toml=toml, folder=tmp_path) as gateway,
        connected(gateway.port, receive_buffer=4096) as stuck,
    ):
        script = [["say", "word"], ["big", MANY_BYTES], ["end"]]
        await stuck.request(
            INVOKE, {"input": script, "stream": True}, headers=("X-Request-Id: stuck",)
        )
        await gateway.post("/agent/neighbour/invoke", input="meanwhile")
        line = await gateway.logged("504 timeout: waiting for the client to read")
        assert "request=stuck" in line
        # The only worker is free again, or was replaced; either way the next is served.
        answer = await gateway.post(INVOKE, input="next")
        assert answer.json() == {"output": "next"}


async def test_a_client_that_does_not_read_does_not_hold_the_others_of_its_worker() -> None:
    async with (
        running_gateway({"scripted": SCRIPTED}) as gateway,
        connected(gateway.port) as reader,
        connected(gateway.port, receive_buffer=4096) as stuck,
    ):
        script = [["say", "one"], ["wait", "go"], ["say", "two"], ["end"]]
        await reader.request(INVOKE, {"input": script, "stream": True})
        await reader.until(b'"one"')
        script = [["big", MANY_BYTES], ["log", "all of it was taken"], ["open", "go"], ["end"]]
        await stuck.request(INVOKE, {"input": script, "stream": True})
        await gateway.logged("all of it was taken")
        await reader.until(b'"two"')
        await reader.until(rb"\[DONE\]")


async def test_a_slow_reader_gets_everything_and_in_order(shared: Shared) -> None:
    size = 8 * 1024 * 1024
    async with connected(shared.port, receive_buffer=4096) as slow:
        await slow.request(INVOKE, {"input": [["big", size], ["end"]], "stream": True})
        answer = await slow.answer()
    assert answer.body.count(b'data: {"chunk":"') == size // 8192
    assert answer.body.endswith(b"data: [DONE]\n\n")


# The end of the gateway


async def test_sigterm_lets_an_open_stream_end_and_refuses_new_requests() -> None:
    async with running_gateway({"scripted": SCRIPTED}) as gateway:
        async with connected(gateway.port) as stream, connected(gateway.port) as other:
            script = [["say", "before"], ["wait", "cancelled"], ["say", "after"], ["end"]]
            await stream.request(INVOKE, {"input": script, "stream": True})
            await stream.until(b"before")
            await other.request("/live", method="GET")
            assert (await other.answer()).status == 200
            async with connected(gateway.port) as holding:
                await holding.request(INVOKE, {"input": [["say", "x"], ["hold"]], "stream": True})
                await holding.until(b'"x"')
                gateway.process.send_signal(signal.SIGTERM)
                await gateway.logged("draining")
                # What was kept alive is still answered, for the last time; new ones are accepted.
                await other.request("/ready", method="GET")
                answer = await other.answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                assert await other.has_ended()
                async with connected(gateway.port) as new:
                    await new.request(INVOKE, {"input": 1})
                    refused = await new.answer()
                assert (refused.status, refused.error["type"]) == (503, "shutting_down")
                assert int(refused.headers["retry-after"]) >= 1
                assert gateway.process.returncode is None
            # That one was cancelled when its client left, and the agent goes on with the other.
            await stream.until(b"after")
            await stream.until(rb"\[DONE\]\n\n")
        await gateway.process.wait()


async def test_a_stream_that_outlasts_the_drain_ends_with_an_error_event(tmp_path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"[server]\ndrain = 0.1\n[agents.scripted]\ncommand = [{words}]\n"
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        async with connected(gateway.port) as stream:
            script = [["say", "before"], ["hold"]]
            await stream.request(INVOKE, {"input": script, "stream": True})
            await stream.until(b"before")
            gateway.process.send_signal(signal.SIGTERM)
            rest = await stream.rest()
        assert b'event: error\ndata: {"error":{"type":"shutting_down"' in rest
        assert b"[DONE]" not in rest
        await gateway.process.wait()


async def test_a_client_that_does_not_read_does_not_hold_the_shutdown(tmp_path) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"[server]\ndrain = 0.1\n[agents.scripted]\ncommand = [{words}]\n"
    async with (
        running_gateway(toml=toml, folder=tmp_path) as gateway,
        connected(gateway.port, receive_buffer=4096) as stuck,
    ):
        script = [["say", "word"], ["big", MANY_BYTES], ["end"]]
        await stuck.request(INVOKE, {"input": script, "stream": True})
        await stuck.until(b"word")
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.process.wait()


async def test_a_second_signal_ends_at_once() -> None:
    exits = 128 + signal.SIGTERM
    async with (
        running_gateway({"scripted": SCRIPTED}, expect_exit=exits) as gateway,
        connected(gateway.port) as stream,
    ):
        script = [["say", "before"], ["hold"]]
        await stream.request(INVOKE, {"input": script, "stream": True})
        await stream.until(b"before")
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.logged("draining")
        await gateway.insist(signal.SIGTERM)
        assert b"event: error" in await stream.until(b"shutting_down")
        await gateway.process.wait()
