"""Buses on a real nats-server, and what is heard on them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from gateway.config import FleetSettings
from gateway.fleet.nats_bus import NatsBus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.fleet.bus import Delivery

PATIENCE = 20.0


class Heard:
    """Collects what is received, and wakes who waits for it."""

    def __init__(self) -> None:
        self.all: list[Delivery] = []
        self._more = trio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.all.append(delivery)
        self._more.set()
        self._more = trio.Event()

    async def wait(self, count: int) -> list[Delivery]:
        """All, once there are so many."""
        with trio.fail_after(PATIENCE):
            while len(self.all) < count:
                await self._more.wait()
        return self.all


class Ends:
    """What a watcher is told, and what the problem was each time."""

    def __init__(self, bus: NatsBus) -> None:
        self.all: list[str] = []
        self.problems: list[str | None] = []
        self._bus = bus
        self._more = trio.Event()
        bus.watch(lambda: self._say("connected"), lambda: self._say("lost"))

    def _say(self, word: str) -> None:
        self.all.append(word)
        self.problems.append(self._bus.problem)
        self._more.set()
        self._more = trio.Event()

    async def wait(self, *words: str) -> str | None:
        """The problem when the last of these was told. More may have been told since: on a busy
        machine, a bus is connected again before anybody here has had a turn."""
        with trio.fail_after(PATIENCE):
            while len(self.all) < len(words):
                await self._more.wait()
        assert self.all[: len(words)] == [*words]
        return self.problems[len(words) - 1]


def settings(*urls: str, **other: object) -> FleetSettings:
    return FleetSettings(role="front", servers=[*urls], **other)  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    *made: FleetSettings, inboxes: Sequence[str] = ()
) -> AsyncIterator[list[NatsBus]]:
    """Buses that are connected. JetStream answers at their inboxes."""
    async with trio.open_nursery() as nursery:
        buses = [
            NatsBus(each, name=f"bus {number}", inbox=inbox)
            for number, (each, inbox) in enumerate(
                zip(made, inboxes or [f"js.{number}" for number in range(len(made))], strict=True)
            )
        ]
        for bus in buses:
            await nursery.start(bus.keep)
        for bus in buses:
            await Ends(bus).wait("connected")
        yield buses
        nursery.cancel_scope.cancel()


async def subscribed(bus: NatsBus, pattern: str) -> Heard:
    """Returns when the server has the subscription."""
    heard = Heard()
    bus.subscribe(pattern, heard)
    await flushed(bus)
    return heard


async def flushed(bus: NatsBus) -> None:
    """The server has read what was said."""
    heard = Heard()
    number = bus.subscribe("flushed.>", heard)
    bus.publish("nobody.is.there", b"", "flushed.x")
    await heard.wait(1)
    bus.unsubscribe(number)
