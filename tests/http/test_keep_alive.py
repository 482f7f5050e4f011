"""Connections between two requests: how long they are kept, what they say of it, and the end."""

from __future__ import annotations

import os
import socket
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import clock
from gateway.front import connections
from tests.conftest import need
from tests.http.carrier import application, bare_server, with_lifespan
from tests.http.conftest import Shared
from tests.http.proxies import command, configuration, free_ports
from tests.http.raw import Connection, becomes, connected
from tests.programs import find_program

INVOKE = "/agent/scripted/invoke"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEEP_ALIVE_GRACE_SECONDS", 0)


async def live(connection: Connection) -> None:
    await connection.request("/live", method="GET")
    assert (await connection.answer()).status == 200


async def test_responses_say_how_long_a_connection_is_kept(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        for method, path, body in (("GET", "/live", None), ("POST", INVOKE, {"input": 1})):
            await connection.request(path, body, method=method)
            headers = (await connection.answer()).headers
            assert (headers["connection"], headers["keep-alive"]) == ("keep-alive", "timeout=75")


@pytest.mark.parametrize(
    "headers", [("Connection: close",), ("Transfer-Encoding: chunked", "Content-Length: 3")]
)
async def test_the_last_response_says_that_it_is(shared: Shared, headers: tuple[str, ...]) -> None:
    async with connected(shared.port) as connection:
        await connection.send(
            "\r\n".join(["GET /live HTTP/1.1", "Host: localhost", *headers, ""]).encode()
        )
        await connection.send(b"\r\n0\r\n\r\n" if len(headers) > 1 else b"\r\n")
        answer = await connection.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert "keep-alive" not in answer.headers
        assert await connection.has_ended()


@pytest.mark.parametrize(
    "more", [b"\r\n", b"\r\n\r\n", b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
async def test_what_follows_the_last_request_does_not_cost_its_answer(
    shared: Shared, more: bytes
) -> None:
    body = b'{"input": 1}'
    head = (
        f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for pieces in ([head + body + more], [head + body, more], [head, body + more]):
        async with connected(shared.port) as connection:
            for piece in pieces:
                await connection.send(piece)
            answer = await connection.answer()
            assert (answer.status, answer.body) == (200, b'{"output":1}')
            assert await connection.has_ended()


async def test_empty_lines_between_requests_are_ignored(shared: Shared) -> None:
    async with connected(shared.port) as connection:
        for _ in range(3):
            await connection.send(b"\r\n")
            await connection.request(INVOKE, b'{"input": 1}\r\n'.rstrip())
            await connection.send(b"\r\n")
            assert (await connection.answer()).body == b'{"output":1}'


async def test_requests_that_aim_at_the_end_of_a_connection_are_all_answered() -> None:
    """As a client aims that believes `Keep-Alive: timeout=1`, from 10 ms before to 10 ms after."""
    answered = 0

    async def aim(port: int, milliseconds: float) -> None:
        nonlocal answered
        async with connected(port) as connection:
            await live(connection)
            at = trio.current_time() + 1 + milliseconds / 1000
            with trio.CancelScope(deadline=at):
                assert await connection.has_ended(), "it ended before the time that it had said"
            if trio.current_time() < at + connections._KEEP_ALIVE_GRACE_SECONDS / 2:
                await live(connection)
                answered += 1
            # Else this process stood still, and nobody has aimed.

    async with bare_server(keep_alive=1) as port:
        while answered < 150:
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(aim, port, (number - 150) / 15)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_requests_that_aim_at_the_end_of_a_proxys_connections_are_all_answered(
    name: str, tmp_path: Path
) -> None:
    """The proxy keeps idle connections for 1 s and the gateways for 2: in the ratio in which
    `gateway/deploy/` has 60 s, or 30, and 75."""
    need(find_program(name), f"{name} is not installed")
    (port,) = free_ports(1)
    ran: Counter[str] = Counter()

    @with_lifespan
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        ran[scope["path"]] += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def post(path: str) -> None:
        async with connected(port) as connection:  # clients come anew, gateways' connections stay
            await connection.request(path, {"input": 1})
            answer = await connection.answer()
            assert (answer.status, answer.body) == (200, b"done")

    async def aim(path: str, milliseconds: float) -> None:
        await post(f"{path}/before")
        await trio.sleep(1 + milliseconds / 1000)
        await post(f"{path}/at-the-end")

    async with bare_server(app, keep_alive=2) as one, bare_server(app, keep_alive=2) as two:
        path = configuration(name, tmp_path, port, (one, two), idle_seconds=1)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.run_process, command(name, path), check=False))
            await becomes(partial(listens, port))
            async with trio.open_nursery() as clients:
                for number in range(300):
                    clients.start_soon(aim, f"/agent/a{number}", (number - 150) / 15)
            nursery.cancel_scope.cancel()
    del ran["/ready"]  # what the proxy itself asks
    when = ("before", "at-the-end")
    once = {f"/agent/a{number}/{each}": 1 for number in range(300) for each in when}
    assert ran == once


async def test_a_gateway_that_is_late_to_answer_a_check_goes_on_getting_requests(
    tmp_path: Path,
) -> None:
    """HAProxy checks every second, and one check that fails takes a gateway out."""
    need(find_program("haproxy"), "haproxy is not installed")
    (port,) = free_ports(1)
    given_up = trio.Semaphore(0)

    @with_lifespan
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ready":
            while (await receive())["type"] != "http.disconnect":
                pass
            given_up.release()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with bare_server(app) as one, bare_server(app) as two:
        path = configuration("haproxy", tmp_path, port, (one, two))
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command("haproxy", path), check=False)
            await nursery.start(run)
            await becomes(partial(listens, port))
            with trio.move_on_after(2.5):  # the second gateway's first check is half a second late
                await given_up.acquire()
                await given_up.acquire()
            async with connected(port) as connection:
                await connection.request("/", {"input": 1})
                assert (await connection.answer()).status == 200
            nursery.cancel_scope.cancel()


async def listens(port: int) -> bool:
    try:
        async with connected(port):
            return True
    except OSError:
        return False


async def test_a_request_that_has_arrived_at_the_deadline_is_served(
    no_grace: None, mock_clock: trio.testing.MockClock
) -> None:
    # Which of the two tasks comes first is trio's to choose, and it chooses at random.
    async with bare_server() as port:
        for _ in range(30):
            async with connected(port) as connection:
                await live(connection)
                os.write(
                    connection.stream.socket.fileno(),
                    b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n",
                )
                mock_clock.jump(75)
                assert (await connection.answer()).status == 200
                mock_clock.jump(75)
                assert await connection.has_ended()


async def test_the_rest_of_a_head_that_came_while_the_gateway_stood_still_is_in_time(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        async with bare_server() as port:
            for _ in range(10):  # which task comes first is trio's to choose
                async with connected(port) as connection:
                    await connection.send(LIVE[:20])
                    await arrived()
                    os.write(connection.stream.socket.fileno(), LIVE[20:])
                    mock_clock.jump(1000)
                    assert (await connection.answer()).status == 200
        nursery.cancel_scope.cancel()


async def arrived() -> None:
    """Let the gateway, which is in this process, read what was sent to it."""
    for _ in range(20):
        await trio.lowlevel.checkpoint()


LARGE = b"x" * 24_000_000
"""More than the buffers of both sockets hold."""


@pytest.fixture
def large() -> Any:
    """An application with a large answer, which counts the requests."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        app.requests += 1  # type: ignore[attr-defined]
        headers = [(b"content-length", b"%d" % len(LARGE))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": LARGE})

    app.requests = 0  # type: ignore[attr-defined]
    return app


async def test_a_client_that_reads_slowly_is_not_silent(no_grace: None, large: Any) -> None:
    async with (
        bare_server(with_lifespan(large), keep_alive=0.05) as port,
        connected(port) as slow,
    ):
        await slow.request("/", method="GET")
        async with connected(port) as other:  # which is closed after the time is over
            assert await other.has_ended()
        assert (await slow.answer()).body == LARGE


async def test_a_client_that_does_not_read_its_answers_is_served_no_further(large: Any) -> None:
    get = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with bare_server(with_lifespan(large)) as port, connected(port) as greedy:
        await greedy.send(get * 20)
        await greedy.send(get * 20)
        async with connected(port) as other:
            await other.request("/", method="GET")
            await other.answer()
        assert large.requests == 2
        assert (await greedy.answer()).status == 200


# Draining


async def test_a_connection_without_a_request_is_closed_when_the_gateway_drains() -> None:
    drain = trio.Event()
    async with (
        bare_server(drain=drain) as port,
        connected(port) as used,
        connected(port) as new,
        connected(port) as half,
    ):
        await live(used)
        await half.send(b"GET /live HTTP/1.1\r\n")
        await live(used)
        drain.set()
        assert await used.has_ended()
        assert await new.has_ended()
        await half.send(b"Host: localhost\r\n\r\n")
        assert (await half.answer()).headers["connection"] == "close"
        assert await half.has_ended()


async def test_a_request_on_a_kept_connection_is_answered_while_the_gateway_drains() -> None:
    drain = trio.Event()
    async with bare_server(drain=drain) as port, connected(port) as kept:
        await live(kept)
        drain.set()
        await kept.request("/live", method="GET")
        answer = await kept.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await kept.has_ended()
        async with connected(port) as new:
            await new.request("/live", method="GET")
            assert (await new.answer()).headers["connection"] == "close"


async def test_a_response_that_began_before_the_drain_keeps_its_promise_of_a_further_request() -> (
    None
):
    drain, go_on = trio.Event(), trio.Event()

    async def respond(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with bare_server(application(respond), drain=drain) as port, connected(port) as kept:
        await kept.request("/", method="GET")
        assert b"connection: keep-alive" in await kept.until(b"one\r\n")
        drain.set()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await kept.until(b"two\r\n0\r\n\r\n")
        await kept.request("/", method="GET")
        answer = await kept.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await kept.has_ended()


async def test_connections_that_wait_to_be_accepted_are_served_when_listening_ends() -> None:
    stop = trio.Event()
    async with bare_server(stop=stop) as port:
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
        for sock in waiting:
            sock.sendall(LIVE)
        stop.set()  # the kernel has established them all, and nobody has accepted one
        for sock in waiting:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                assert (await Connection(stream).answer()).status == 200
