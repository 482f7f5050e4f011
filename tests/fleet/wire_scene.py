"""A front and a host with a wire between them, on a NATS in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from gateway.fleet.messages import Down, Up
from gateway.fleet.pipe import Ended
from gateway.fleet.subjects import Peer, Subjects
from gateway.fleet.wire import Wire, Wires
from tests.fleet.fakes import FakeNats, Publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.fakes import FakeBus


SUBJECTS = Subjects()


class Owner:
    def __init__(self) -> None:
        self.received: list[Up | Down] = []
        self.batches: list[int] = []
        self.ends: list[Ended] = []
        self.unheard_of = 0
        self.on_end: Callable[[], None] = lambda: None
        self.on_receive: Callable[[], None] = lambda: None

    def receive(self, messages: list[Any]) -> None:
        self.received += messages
        self.batches.append(len(messages))
        self.on_receive()

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)
        self.on_end()

    def unheard(self) -> None:
        self.unheard_of += 1


class Process:
    """One process of the fleet."""

    def __init__(self, nats: FakeNats, name: str) -> None:
        self.peer = Peer.new(name)
        self.bus: FakeBus = nats.bus(name)
        self.wires = self.make()
        self.owners: dict[Peer, Owner] = {}
        self.by_peer: dict[Peer, Wire] = {}

    def make(self) -> Wires:
        raise NotImplementedError


class Front(Process):
    def make(self) -> Wires:
        return Wires(self.bus, SUBJECTS, self.peer, role="front")

    def open(self, host: Host) -> tuple[Wire, Owner]:
        owner = self.owners[host.peer] = Owner()
        wire = self.by_peer[host.peer] = self.wires.open(host.peer, owner)
        return wire, owner


class Host(Process):
    def make(self) -> Wires:
        return Wires(self.bus, SUBJECTS, self.peer, role="host", accept=self.accept)

    def accept(self, wire: Wire) -> Owner:
        self.by_peer[wire.peer] = wire
        owner = self.owners[wire.peer] = Owner()
        return owner

    def of(self, front: Front) -> tuple[Wire, Owner]:
        return self.by_peer[front.peer], self.owners[front.peer]


class Scene:
    """A front and a host that know each other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nats = FakeNats()
        self.front, self.host = Front(self.nats, "front"), Host(self.nats, "host")
        nursery.start_soon(self.front.wires.run)
        nursery.start_soon(self.host.wires.run)

    async def open(self) -> None:
        await self.quiet()  # the host has subscribed
        self.at_front, self.front_owner = self.front.open(self.host)
        await self.quiet()
        self.at_host, self.host_owner = self.host.of(self.front)

    async def quiet(self) -> None:
        """Until nothing happens any more, but for beats. No time passes."""
        for _ in range(20):
            await trio.lowlevel.checkpoint()
            await self.nats.settled()

    def published(self, bus: FakeBus) -> list[Publish]:
        """What one has published since this was cleared."""
        return [message for by, message in self.nats.published if by is bus]
