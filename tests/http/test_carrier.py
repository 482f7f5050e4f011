"""What carries the bytes: defects stay in their connection, bytes in their order, clocks right."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from gateway.front import asgi
from gateway.front import connections as http
from tests.http.carrier import application, bare_server, with_lifespan
from tests.http.raw import connected

PART = 300_000
PARTS = 60
"""Together more than the buffers of both sockets hold."""


async def test_a_defect_in_one_connection_closes_that_one_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = asgi.HTTP1Protocol.receive

    async def defective(self: Any, data: bytes) -> None:
        if b"defect" in data:
            raise ValueError("met a defect")
        await receive(self, data)

    monkeypatch.setattr(asgi.HTTP1Protocol, "receive", defective)
    async with bare_server() as port, connected(port) as other:
        async with connected(port) as connection:
            await connection.send(b"defect")
            assert await connection.has_ended()
        await other.request("/live", method="GET")
        assert (await other.answer()).status == 200
    assert "met a defect" in caplog.text


@pytest.mark.parametrize("in_a_group", [False, True])
async def test_a_defect_of_the_application_is_a_500_and_ends_nothing_else(
    in_a_group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @application
    async def app(send: Any) -> None:
        if in_a_group:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("met a defect")
        else:
            raise ValueError("met a defect")

    async with bare_server(app) as port:
        for _ in range(2):
            async with connected(port) as connection:
                await connection.request("/", method="GET")
                assert (await connection.answer()).status == 500
    assert caplog.text.count("met a defect") >= 2


async def test_a_field_that_is_more_than_one_line_is_a_defect_and_never_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @application
    async def app(send: Any) -> None:
        headers = [(b"x-agent-session", b"kept\r\nset-cookie: stolen")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async with bare_server(app) as port, connected(port) as connection:
        for _ in range(2):
            await connection.request("/", method="GET")
            answer = await connection.answer()
            assert answer.status == 500
            assert "set-cookie" not in answer.headers
    assert caplog.text.count("a field holds an end of line") >= 2


async def test_an_application_that_says_nothing_is_a_500_and_ends_its_connection() -> None:
    @application
    async def app(send: Any) -> None:
        pass

    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (500, "close")
        assert await connection.has_ended()


async def test_what_is_sent_after_a_response_is_a_defect_and_never_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @application
    async def app(send: Any) -> None:
        for _ in range(2):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b""})

    async with bare_server(app) as port, connected(port) as connection:
        for _ in range(2):
            await connection.request("/", method="GET", version="1.1")
            assert (await connection.answer()).status == 200
    assert caplog.text.count("expected nothing more") == 2


async def test_an_application_reads_a_body_while_it_comes_and_no_more_than_it_asks_for() -> None:
    """A client that sends more than all buffers hold is stopped, until it is asked for the rest."""
    size, pieces = 4_000_000, 16
    go_on = trio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        length, more = 0, True
        while more:
            message = await receive()
            length, more = length + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"%d" % length})

    async with bare_server(with_lifespan(app)) as port, connected(port) as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (size * pieces)
        )
        all_sent = trio.Event()

        async def send() -> None:
            for _ in range(pieces):
                await connection.send(b"x" * size)
            all_sent.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert not all_sent.is_set()
            go_on.set()
            assert (await connection.answer()).body == b"%d" % (size * pieces)


async def test_an_application_that_still_waits_for_its_client_holds_up_no_next_request() -> None:
    """Nor does it get the beginning of that one."""
    waiting = trio.Event()
    messages = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def wait() -> None:
            waiting.set()
            messages.append(await receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await waiting.wait()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b""})

    async with bare_server(with_lifespan(app)) as port, connected(port) as connection:
        for _ in range(3):
            await connection.request("/", method="GET")
            assert (await connection.answer()).status == 200
    assert {message["type"] for message in messages} == {"http.disconnect"}


class Wire:
    """What the connections of a test have written, one item for each write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[bytes] = []
        write = http.Connection._write

        async def note(connection: Any, parts: list[bytes]) -> None:
            self.written.append(b"".join(parts))
            await write(connection, parts)

        monkeypatch.setattr(http.Connection, "_write", note)


@pytest.mark.parametrize("size", [1, 300_000])
async def test_every_message_is_one_write_and_a_head_leaves_with_the_first_part(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @application
    async def app(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for last in (False, False, True):
            part = {"type": "http.response.body", "body": b"x" * size}
            await send({**part, "more_body": not last})

    wire = Wire(monkeypatch)
    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        answer = await connection.answer()
    assert answer.body == b"x" * size * 3
    part = b"%x\r\n%b\r\n" % (size, b"x" * size)
    head, end = b"".join(wire.written).split(part * 3)
    assert wire.written == [head + part, part, part + end]


async def test_a_short_response_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    async with bare_server() as port, connected(port) as connection:
        for _ in range(3):
            await connection.request("/live", method="GET")
            await connection.answer()
    assert len(wire.written) == 3


async def test_a_head_leaves_with_a_first_part_that_is_empty() -> None:
    @application
    async def app(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await trio.sleep_forever()

    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        assert (await connection.until(rb"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_nothing_is_withheld_when_the_application_ends_in_the_middle() -> None:
    @application
    async def app(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        assert (await connection.rest()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("body", [b"", b"12345"])
async def test_what_was_held_for_an_end_that_does_not_come_is_sent(body: bytes) -> None:
    @application
    async def app(send: Any) -> None:
        head = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        said = await connection.rest()
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\n" + body)


async def test_an_interim_response_is_not_kept_for_what_follows() -> None:
    @application
    async def app(send: Any) -> None:
        await trio.sleep_forever()

    async with bare_server(app) as port, connected(port) as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        )
        assert (await connection.read()).startswith(b"HTTP/1.1 100 ")


async def test_an_invalid_websocket_handshake_is_refused_and_its_connection_closed() -> None:
    handshake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 7")
    async with bare_server() as port, connected(port) as connection:
        await connection.request("/", method="GET", headers=handshake)
        assert (await connection.rest()).startswith(b"HTTP/1.1 404 ")


async def test_what_a_slow_client_is_sent_keeps_its_order() -> None:
    @application
    async def app(send: Any) -> None:
        head = [(b"content-length", b"%d" % (PART * PARTS))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for number in range(PARTS):
            part = {"type": "http.response.body", "body": bytes([65 + number]) * PART}
            await send({**part, "more_body": number < PARTS - 1})

    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET")
        answer = await connection.answer()
    assert answer.body == b"".join(bytes([65 + number]) * PART for number in range(PARTS))
