"""Clients that leave, in every way there is, and clients that only shut down their side.

Whoever leaves is noticed, whatever was sent before, and holds nothing: no worker, no task, no
descriptor. Whoever has shut down one side only gets what it asked for.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.front import connections
from tests.harness import RunningGateway, running_gateway
from tests.http.carrier import bare_server, with_lifespan
from tests.http.conftest import SCRIPTED, Shared
from tests.http.leaving import WAYS, handshake
from tests.http.raw import becomes, connected

INVOKE = "/agent/scripted/invoke"
STREAM = {"input": [["say", "x"], ["hold"]], "stream": True}
"""Of an agent that says one word, and then nothing until it is cancelled."""
SILENT = {"input": [["log", "asked"], ["hold"]]}

FRAME = b"\x81\x85\x00\x00\x00\x00hello"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"""
        [agents.scripted]
        command = [{words}]
        workers = {{ min = 4, max = 4 }}  # their descriptors do not come and go
    """
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        await becomes(lambda: all_ready(gateway))
        yield gateway


async def all_ready(gateway: RunningGateway) -> bool:
    workers = (await gateway.state("scripted"))["workers"]
    return [worker["state"] for worker in workers] == ["ready"] * 4


async def is_free(gateway: RunningGateway, descriptors: int) -> None:
    """Wait until no request is being answered, and no more descriptors are open than before."""

    async def free() -> bool:
        in_flight = (await gateway.state("scripted"))["in_flight"]
        return not in_flight and gateway.descriptors() <= descriptors

    await becomes(free)
    assert not [line for line in gateway.log if "Traceback" in line]


async def test_clients_that_leave_before_any_word_are_noticed(gateway: RunningGateway) -> None:
    descriptors = gateway.descriptors()
    for headers, leave in WAYS.values():
        async with connected(gateway.port) as connection:
            await connection.request(INVOKE, SILENT, headers=headers)
            await gateway.logged("asked")
            gateway.log.clear()
            await leave(connection)
    await is_free(gateway, descriptors)


async def test_200_clients_that_leave_in_every_way_leave_nothing(gateway: RunningGateway) -> None:
    descriptors = gateway.descriptors()

    async def one(number: int) -> None:
        headers, leave = list(WAYS.values())[number % len(WAYS)]
        async with connected(gateway.port) as connection:
            await connection.request(INVOKE, STREAM, headers=headers)
            await connection.until(b'"x"')
            await leave(connection)

    async def half_a_handshake(number: int) -> None:
        async with connected(gateway.port) as connection:
            await connection.send(handshake("/")[: 40 + number])

    async with trio.open_nursery() as nursery:
        for number in range(175):
            nursery.start_soon(one, number)
        for number in range(25):
            nursery.start_soon(half_a_handshake, number)
    await is_free(gateway, descriptors)


# Half-closed clients


@pytest.mark.parametrize("stream", [False, True])
async def test_a_half_closed_client_gets_its_answer(shared: Shared, stream: bool) -> None:
    async with connected(shared.port) as connection:
        script: list[Any] = [["say", "one"], ["say", "two"], ["end"]]
        # With the last byte: an EOF that comes after the first word says that the client leaves.
        connection.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        await connection.request(INVOKE, {"input": script if stream else 1, "stream": stream})
        await connection.stream.send_eof()
        answer = await connection.answer()
        assert answer.status == 200
        assert answer.body.endswith(b"[DONE]\n\n" if stream else b'{"output":1}')
        assert await connection.has_ended()


async def test_a_half_closed_client_gets_all_of_its_answers(shared: Shared) -> None:
    body = b'{"input": 1}'
    request = (
        f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    async with connected(shared.port) as connection:
        await connection.send(request * 3 + b"\r\n")
        await connection.stream.send_eof()
        for _ in range(3):
            assert (await connection.answer()).body == b'{"output":1}'
        assert await connection.has_ended()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_half_closed_client_of_a_slow_agent_is_asked_whether_it_is_there(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PROBE_SECONDS", 0.01)
    go_on = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        disconnected = trio.Event()

        async def watch() -> None:
            assert (await receive())["type"] == "http.disconnect"
            disconnected.set()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await go_on.wait()
            nursery.cancel_scope.cancel()
        if not disconnected.is_set():
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late"})

    async with bare_server(with_lifespan(app)) as port, connected(port) as connection:
        await connection.request("/", method="GET", version=version)
        await connection.stream.send_eof()
        if version == "1.0":  # whose clients need not understand an interim response
            assert await connection.has_ended()
            return
        for _ in range(3):
            assert await connection.until(rb"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        go_on.set()
        await connection.until(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1" not in await connection.until(b"late")


async def test_a_slow_reader_that_is_half_closed_gets_a_large_answer_whole(
    shared: Shared,
) -> None:
    text = "x" * 900_000
    async with connected(shared.port, receive_buffer=4096) as connection:
        await connection.request(INVOKE, {"input": text})
        await connection.stream.send_eof()
        answer = await connection.answer()
    assert answer.body == b'{"output":"%b"}' % text.encode()


# WebSockets, of which there are none


AFTER_HANDSHAKE = [
    b"\r\n",
    b"\r\n" + FRAME,
    b"\r\n" + FRAME * 1000,
    b"\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"Content-Length: 5\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
]


async def test_a_websocket_handshake_is_refused_whatever_follows_it(
    gateway: RunningGateway,
) -> None:
    descriptors = gateway.descriptors()
    for more in AFTER_HANDSHAKE:
        async with connected(gateway.port) as connection:
            await connection.send(handshake(INVOKE) + more)
            answer = await connection.answer()
            assert (answer.status, answer.error["type"]) == (404, "not_found")
            assert await connection.has_ended()
    await is_free(gateway, descriptors)
