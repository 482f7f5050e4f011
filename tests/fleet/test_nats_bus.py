"""The bus on a real nats-server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from gateway.config import FleetSettings
from gateway.fleet.nats_bus import NatsBus
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.fleet.bus import Delivery

pytestmark = needs_nats

PATIENCE = 20.0


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


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
    """What a watcher is told."""

    def __init__(self, bus: NatsBus) -> None:
        self.all: list[str] = []
        self._more = trio.Event()
        bus.watch(lambda: self._say("connected"), lambda: self._say("lost"))

    def _say(self, word: str) -> None:
        self.all.append(word)
        self._more.set()
        self._more = trio.Event()

    async def wait(self, *words: str) -> None:
        with trio.fail_after(PATIENCE):
            while self.all != [*words]:
                await self._more.wait()


def settings(*urls: str, **other: object) -> FleetSettings:
    return FleetSettings(role="front", servers=[*urls], **other)  # type: ignore[arg-type]


@asynccontextmanager
async def running(*made: FleetSettings) -> AsyncIterator[list[NatsBus]]:
    """Buses that are connected."""
    async with trio.open_nursery() as nursery:
        buses = [
            NatsBus(each, name=f"bus {number}", inbox=f"js.{number}")
            for number, each in enumerate(made)
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


async def test_messages_arrive_in_order_and_not_at_the_one_who_published_them(
    nats: NatsServer,
) -> None:
    async with running(settings(nats.url), settings(nats.url)) as (one, two):
        mine, theirs = await subscribed(one, "a.>"), await subscribed(two, "a.*")
        for number in range(1000):
            one.publish("a.b", b"%d" % number, "reply.to")
        await theirs.wait(1000)
        assert [each.data for each in theirs.all] == [b"%d" % number for number in range(1000)]
        assert {(each.subject, each.reply) for each in theirs.all} == {("a.b", "reply.to")}
        await flushed(one)
        assert mine.all == []


async def test_a_publisher_with_a_reply_is_told_when_nobody_listens_but_itself(
    nats: NatsServer,
) -> None:
    async with running(settings(nats.url)) as (bus,):
        told = await subscribed(bus, "nr.me.>")
        await subscribed(bus, "c.x")
        bus.publish("c.x", b"", "nr.me.c.1")
        (said,) = await told.wait(1)
        assert said.nobody
        assert (said.subject, said.data) == ("nr.me.c.1", b"")


async def test_a_subscription_counts_for_what_is_published_after_it(nats: NatsServer) -> None:
    async with running(settings(nats.url), settings(nats.url)) as (one, two):
        answers = await subscribed(one, "nr.>")
        heard = Heard()
        two.subscribe("a", heard)
        two.publish("b", b"", "nr.two")  # one does not listen there
        await flushed(two)
        one.publish("a", b"1", "nr.one")
        await heard.wait(1)
        assert answers.all == []


async def test_nothing_is_received_after_it_was_unsubscribed(nats: NatsServer) -> None:
    async with running(settings(nats.url), settings(nats.url)) as (one, two):
        heard, other = Heard(), await subscribed(two, "a")
        number = two.subscribe("a", heard)
        await flushed(two)
        two.unsubscribe(number)
        two.unsubscribe(4711)
        await flushed(two)
        one.publish("a", b"1")
        await other.wait(1)
        await flushed(two)
        assert heard.all == []


async def test_a_payload_may_have_a_mebibyte_and_no_more(nats: NatsServer) -> None:
    async with running(settings(nats.url), settings(nats.url)) as (one, two):
        heard = await subscribed(two, "a")
        for number in range(20):
            one.publish("a", bytes([number]) * 1024 * 1024)
        got = await heard.wait(20)
        assert [each.data[:1] for each in got] == [bytes([number]) for number in range(20)]
        assert all(len(each.data) == 1024 * 1024 for each in got)
        with pytest.raises(ValueError, match="1048577 bytes"):
            one.publish("a", bytes(1024 * 1024 + 1))


async def test_a_server_that_was_killed_is_connected_to_again(nats: NatsServer) -> None:
    async with running(settings(nats.url)) as (bus,):
        ends = Ends(bus)
        await ends.wait("connected")
        heard = await subscribed(bus, "a")
        nats.kill()
        await ends.wait("connected", "lost")
        assert not bus.connected
        bus.publish("a", b"dropped")
        nats.start()
        await ends.wait("connected", "lost", "connected")
        bus.publish("a", b"", "nr.x")
        told = await subscribed(bus, "nr.>")
        bus.publish("a", b"", "nr.y")
        assert (await told.wait(1))[0].nobody  # the subscription was of the other connection
        assert heard.all == []


async def test_the_next_server_is_tried_where_one_cannot_be_reached(nats: NatsServer) -> None:
    with NatsServer() as other:
        gone = other.url
    async with running(settings(gone, nats.url)) as (bus,):
        assert bus.connected


async def test_what_was_published_last_is_sent_before_the_end(nats: NatsServer) -> None:
    async with running(settings(nats.url)) as (one,):
        heard = await subscribed(one, "a")
        async with running(settings(nats.url)) as (two,):
            for number in range(100):
                two.publish("a", b"%d" % number)
        assert [each.data for each in await heard.wait(100)][-1] == b"99"


async def test_a_callback_that_fails_ends_the_bus(nats: NatsServer) -> None:
    def fail(_: Delivery) -> None:
        raise LookupError("a defect")

    async def run() -> None:
        async with running(settings(nats.url), settings(nats.url)) as (one, two):
            two.subscribe("a", fail)
            await flushed(two)
            one.publish("a", b"")
            await trio.sleep_forever()

    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as raised:
        await run()
    assert raised.value.subgroup(LookupError) is not None
