"""Wires on a real nats-server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from gateway.fleet.messages import Cancel, Down, Lines, Took, Up
from gateway.fleet.subjects import Peer, Subjects
from gateway.fleet.wire import Wire, Wires
from tests.fleet.buses import running, settings
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.fleet.bus import Bus
    from gateway.fleet.pipe import Ended

pytestmark = needs_nats

SECONDS = 60
"""For one test, on a loaded machine."""

COUNT = 3000
"""Messages in each direction."""


class Owner:
    def __init__(self) -> None:
        self.received: list[Up | Down] = []
        self.ends: list[Ended] = []
        self.unheard_of = 0
        self._changed = trio.Event()

    def receive(self, messages: list[Any]) -> None:
        self.received += messages
        self._change()

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)
        self._change()

    def unheard(self) -> None:
        self.unheard_of += 1
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()


class Pair:
    """A front and a host that have heard of each other."""

    def __init__(self, front: Bus, host: Bus) -> None:
        subjects, self.front, self.host = Subjects(), Peer.new("front"), Peer.new("host")
        self.front_bus, self.host_bus = front, host
        self.at_front, self.at_host = Owner(), Owner()
        self.accepted: list[Wire] = []
        self.known = trio.Event()
        self.host_ends: list[str] = []
        """What has become of the host's connection."""
        host.watch(
            lambda: self.host_ends.append("connected"), lambda: self.host_ends.append("lost")
        )
        self.fronts = Wires(front, subjects, self.front, role="front")
        self.hosts = Wires(host, subjects, self.host, role="host", accept=self._accept)

    def _accept(self, wire: Wire) -> Owner:
        self.accepted.append(wire)
        self.known.set()
        return self.at_host


@asynccontextmanager
async def pair(nats: NatsServer) -> AsyncIterator[tuple[Pair, Wire, Wire]]:
    with trio.fail_after(SECONDS):
        async with running(settings(nats.url), settings(nats.url)) as buses:
            made = Pair(*buses)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.fronts.run)
                nursery.start_soon(made.hosts.run)
                wire = made.fronts.open(made.host, made.at_front)
                await made.known.wait()
                yield made, wire, made.accepted[0]
                nursery.cancel_scope.cancel()


async def test_streams_outlive_a_server_that_is_killed_again_and_again() -> None:
    with NatsServer() as nats:
        async with pair(nats) as (made, front, host), trio.open_nursery() as nursery:

            async def say(wire: Wire, message: Callable[[int], Up | Down]) -> None:
                for number in range(1, COUNT):
                    await wire.room()
                    wire.send(message(number))
                    if number % 10 == 0:
                        await trio.sleep(0.001)

            nursery.start_soon(say, front, lambda number: Took(number, 1))
            nursery.start_soon(say, host, lambda number: Lines(b"%d" % number * 2000))
            for part in (1, 2, 3):
                await made.at_front.until(lambda: len(made.at_front.received) > part * COUNT // 4)  # noqa: B023
                await trio.to_thread.run_sync(nats.kill)
                await trio.to_thread.run_sync(nats.start)
            await made.at_host.until(lambda: len(made.at_host.received) == COUNT - 1)
            await made.at_front.until(lambda: len(made.at_front.received) == COUNT - 1)
            assert made.at_host.received == [Took(n, 1) for n in range(1, COUNT)]
            assert made.at_front.received == [Lines(b"%d" % n * 2000) for n in range(1, COUNT)]
            assert made.at_front.ends == made.at_host.ends == []
            await front.settled()
            await host.settled()


async def test_a_front_hears_at_once_that_its_host_has_no_connection_any_more() -> None:
    with NatsServer() as nats:
        async with pair(nats) as (made, front, _):
            front.send(Cancel(1))
            await front.settled()
            received = front.acknowledged
            nobody = Peer.new("nobody")
            owner = Owner()
            wire = made.fronts.open(nobody, owner)
            sent = wire.send(Cancel(1))
            await owner.until(lambda: owner.unheard_of > 0)
            wire.end("nobody is there")
            (ended,) = owner.ends
            assert ended.reached == 0 < sent
            front.end("enough")
            assert made.at_front.ends[0].reached == received
            await made.at_host.until(lambda: bool(made.at_host.ends))


@pytest.mark.parametrize("size", [1, 512 * 1024, 8 * 1024 * 1024])
async def test_a_message_of_any_size_passes(size: int) -> None:
    with NatsServer() as nats:
        async with pair(nats) as (made, _, host):
            host.send(Lines(bytes(size)))
            await made.at_front.until(lambda: bool(made.at_front.received))
            assert made.at_front.received == [Lines(bytes(size))]


async def test_more_than_a_connection_may_hold_back_passes_in_windows() -> None:
    with NatsServer() as nats:
        async with pair(nats) as (made, _, host):
            line = bytes(8 * 1024 * 1024)
            for _ in range(8):
                host.send(Lines(line))
            await made.at_front.until(lambda: len(made.at_front.received) == 8)
            assert made.at_front.received == [Lines(line)] * 8
            assert made.host_ends == ["connected"]
