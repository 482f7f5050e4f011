"""The protocol of one connection, between a transport and an application that are played."""

from __future__ import annotations

import trio

from gateway.front.asgi import REFUSAL_SECONDS, HTTP1Protocol
from gateway.front.http1 import HTTP1Requests


class FakeTransport:
    """What a connection is told, with the time at which it is."""

    def __init__(self) -> None:
        self.written = b""
        self.ended_at: float | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def request_begun(self) -> None:
        raise AssertionError("a request has begun")

    request_ended = request_begun

    async def end(self) -> None:
        self.ended_at = trio.current_time()


async def test_a_refusal_takes_its_time_however_fast_its_client_is(autojump_clock) -> None:
    transport = FakeTransport()
    protocol = HTTP1Protocol(transport, HTTP1Requests(), None, {}, 1)  # type: ignore[arg-type]
    began = trio.current_time()
    await protocol.receive(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000)
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert transport.ended_at == began + REFUSAL_SECONDS
