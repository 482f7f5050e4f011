"""What carries the bytes: defects stay in their connection, bytes in their order, clocks right."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from gateway.front import connections as http
from tests.http.carrier import bare_server
from tests.http.raw import connected

PART = 300_000
PARTS = 60
"""Together more than the buffers of both sockets hold."""


def application(respond: Any) -> Any:
    """An application of a function that responds, which does nothing at its start and its end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await respond(send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_a_defect_in_one_connection_closes_that_one_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = http._Protocol.handle

    async def defective(self: Any, event: Any) -> None:
        if b"defect" in getattr(event, "data", b""):
            raise ValueError("met a defect")
        await handle(self, event)

    monkeypatch.setattr(http._Protocol, "handle", defective)
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


class Wire:
    """What the connections of a test have written, one item for each write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[bytes] = []
        write = http._Connection._write

        async def note(connection: Any, parts: list[bytes]) -> None:
            self.written.append(b"".join(parts))
            await write(connection, parts)

        monkeypatch.setattr(http._Connection, "_write", note)


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
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    async with bare_server(app) as port, connected(port) as connection:
        await connection.request("/", method="GET", headers=handshake)
        assert (await connection.read()).startswith(b"HTTP/1.1 101 ")


async def test_a_handshake_that_is_none_is_refused_and_its_connection_closed() -> None:
    handshake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 7")
    async with bare_server() as port, connected(port) as connection:
        await connection.request("/", method="GET", headers=handshake)
        assert (await connection.rest()).startswith(b"HTTP/1.1 400 ")


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


async def test_a_request_that_comes_when_the_idle_time_ends_does_not_end_the_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Stream:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    class Protocol:
        async def handle(self, event: object) -> None:
            pass

    # Which of the two tasks comes first is trio's to choose, and it chooses at random.
    for _ in range(50):
        stream: Any = Stream()
        connection = http._Connection(Config(), WorkerContext(None), stream)
        protocol: Any = Protocol()
        connection._protocol = protocol
        connection._set_idle(True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection._watch_idle)
            await trio.sleep_until(connection._idle_until)
            connection._set_idle(False)
            await trio.sleep(1)
            connection._set_idle(True)
        assert stream.closed
