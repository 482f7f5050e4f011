"""A client that reads a byte now and then does not make the gateway hold an answer for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from gateway.front import connections
from gateway.front.connections import LEAST_READ_RATE, Connection
from gateway.front.deadlines import Deadlines
from gateway.front.sockets import UNREAD_SECONDS


class Socket:
    closed = False

    def fileno(self) -> int:
        return -1  # nothing can be written without waiting

    def close(self) -> None:
        self.closed = True


class Dripping:
    """A client that reads at a rate, in bytes a second."""

    def __init__(self, rate: int) -> None:
        self.socket = Socket()
        self.rate = rate

    async def send_all(self, data: bytes) -> None:
        for _ in range(len(data) // self.rate):
            await trio.sleep(1)


class Protocol:
    disconnected = False

    def disconnect(self) -> None:
        self.disconnected = True


async def written(
    rate: int, size: int, monkeypatch: pytest.MonkeyPatch, *, limit: float | None = 30
) -> tuple[bool, float]:
    """Whether the connection was given up, and the seconds that it took. `limit`: the `write` clock
    of the agent that answers."""
    monkeypatch.setattr(connections, "set_unread_limit", lambda socket, seconds: None)
    stream: Any = Dripping(rate)
    context: Any = SimpleNamespace(terminated=trio.Event())
    connection: Any = Connection(Config(), context, Deadlines(), stream)
    connection._protocol = protocol = Protocol()
    if limit is not None:
        connection.limit_unread(limit)
    began = trio.current_time()
    await connection._write([bytes(size)])
    assert stream.socket.closed == protocol.disconnected
    return stream.socket.closed, trio.current_time() - began


@pytest.mark.parametrize("rate", [1, LEAST_READ_RATE // 2])
async def test_one_that_reads_next_to_nothing_is_given_up(
    rate: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    size = 60 * LEAST_READ_RATE
    gone, seconds = await written(rate, size, monkeypatch)
    assert gone
    assert seconds == pytest.approx(30 + 60)


async def test_one_that_reads_slowly_gets_everything(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    gone, seconds = await written(LEAST_READ_RATE, 60 * LEAST_READ_RATE, monkeypatch)
    assert not gone
    assert seconds == pytest.approx(60)


async def test_a_response_that_is_no_agents_is_bounded_as_well(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    size = 60 * LEAST_READ_RATE
    gone, seconds = await written(1, size, monkeypatch, limit=None)
    assert gone
    assert seconds == pytest.approx(UNREAD_SECONDS + 60)
