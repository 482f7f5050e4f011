"""Connections for which there is no room: told so one by one, logged as a count, and no end of
anything else."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from gateway.composition.http import DESCRIPTORS_PER_WORKER, SPARE_DESCRIPTORS, _max_connections
from gateway.config import AgentSettings, Settings
from gateway.front import listen
from gateway.front.refusals import REPORT_SECONDS, Refusals
from gateway.readiness import register
from tests.harness import python_agent, running_gateway
from tests.http.carrier import bare_server
from tests.http.raw import Connection, becomes, connected
from tests.unit.exhausted import no_watches_left


async def status(connection: Connection) -> int:
    await connection.request("/live", method="GET")
    return (await connection.answer()).status


async def answers(port: int) -> bool:
    async with connected(port) as connection:
        return await status(connection) == 200


async def test_a_connection_beyond_the_most_is_told_so_and_closed() -> None:
    async with bare_server(max_connections=2) as port, AsyncExitStack() as opened:
        one, two = [await opened.enter_async_context(connected(port)) for _ in range(2)]
        assert [await status(one), await status(two)] == [200, 200]
        async with connected(port) as third:
            await third.request("/live", method="GET")
            answer = await third.answer()
            assert await third.has_ended()
        assert (answer.status, answer.error["type"]) == (503, "overloaded")
        assert answer.error["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["connection"] == "close"
        assert answer.headers["retry-after"] == "1"
        assert await status(one) == 200


async def test_a_place_is_free_again_when_its_connection_has_ended() -> None:
    async with bare_server(max_connections=1) as port:
        assert await answers(port)

        async def served() -> bool:
            return await answers(port)

        await becomes(served)


async def test_a_flood_of_refused_connections_keeps_few_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "_REFUSED_SECONDS", 600)  # as if each client held on for long
    async with bare_server(max_connections=0) as port, AsyncExitStack() as opened:
        before = len(os.listdir("/proc/self/fd"))
        flood = [
            await opened.enter_async_context(connected(port))
            for _ in range(listen.MAX_REFUSED + 20)
        ]
        for connection in flood:
            assert (await connection.answer()).status == 503
        kept = len(os.listdir("/proc/self/fd")) - before - len(flood)
        assert kept == listen.MAX_REFUSED


@asynccontextmanager
async def watched(port: int) -> AsyncIterator[Connection]:
    """A connection whose client's end has its watch, before it is made."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    async with trio.SocketStream(sock) as stream:
        await register(sock.fileno())
        with no_watches_left():
            await sock.connect(("127.0.0.1", port))
            yield Connection(stream)


async def test_without_a_watch_one_connection_fails_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bare_server() as port, connected(port) as kept:
        assert await status(kept) == 200
        async with watched(port) as refused:
            await refused.request("/live", method="GET")
            answer = await refused.answer()
            assert (answer.status, answer.error["type"]) == (503, "overloaded")
            assert await status(kept) == 200
        assert "a connection is refused: it cannot be watched: No space left" in caplog.text
        assert await answers(port)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC]
)
async def test_what_accept_says_for_lack_of_room_is_outlived(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listen, "_EXHAUSTED_SECONDS", 0)
    accept = trio.SocketListener.accept
    left = 50

    async def fail_every_other_time(self: trio.SocketListener) -> trio.SocketStream:
        nonlocal left
        left -= 1
        if left > 0 and left % 2:
            raise OSError(number, os.strerror(number))
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", fail_every_other_time)
    async with bare_server() as port:
        for _ in range(30):
            assert await answers(port)
    said = f"no connection can be accepted: {os.strerror(number)}"
    lines = [line for line in map(logging.LogRecord.getMessage, caplog.records) if said in line]
    assert lines == [said, f"{said} (24 times)"], "at once, and then as a count at the end"


async def test_refusals_are_logged_at_once_and_then_as_a_count(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = Refusals()
    for _ in range(1000):
        refusals.add("there is no room")
    await trio.sleep(REPORT_SECONDS)
    refusals.add("there is no room at all")
    refusals.report()
    refusals.report()
    assert [record.getMessage() for record in caplog.records] == [
        "there is no room",
        "there is no room at all (1000 times)",
    ]


def test_descriptors_for_all_workers_are_kept_from_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(agents={name: AgentSettings(command="true") for name in "abc"})
    monkeypatch.setattr("gateway.composition.http.resource.getrlimit", lambda _: (1000, 1000))
    most = _max_connections(settings, 3)
    reserved = 3 * 4 * DESCRIPTORS_PER_WORKER + SPARE_DESCRIPTORS
    assert most <= 1000 - reserved - 3
    assert not caplog.records
    monkeypatch.setattr("gateway.composition.http.resource.getrlimit", lambda _: (100, 100))
    with caplog.at_level(logging.WARNING):
        assert _max_connections(settings, 3) == 25
    assert "the limit of 100 open files is too low for 12 workers" in caplog.text


async def test_a_flood_of_connections_leaves_workers_what_they_need() -> None:
    """A real gateway with few descriptors, and more clients than it has."""
    few = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    agents = {"echo": python_agent("hold.py")}
    async with running_gateway(agents, prefix=few) as gateway, AsyncExitStack() as opened:
        mine = await opened.enter_async_context(connected(gateway.port))
        await mine.request("/agent/echo", method="GET")
        assert (await mine.answer()).status == 200
        for _ in range(400):
            await opened.enter_async_context(connected(gateway.port))
        await gateway.logged("refused: .* are open, and other descriptors are kept for workers")
        [worker] = (await _state(mine))["workers"]
        os.kill(worker["pid"], signal.SIGKILL)

        async def another() -> bool:
            workers = (await _state(mine))["workers"]
            return any(each["pid"] not in {None, worker["pid"]} for each in workers)

        await becomes(another)
        assert not [line for line in gateway.log if "not started" in line]
        assert len([line for line in gateway.log if "refused" in line]) < 5


async def _state(connection: Connection) -> dict[str, list[dict[str, int]]]:
    await connection.request("/agent/echo", method="GET")
    state: dict[str, list[dict[str, int]]] = json.loads((await connection.answer()).body)
    return state
