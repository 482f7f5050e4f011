"""The bus on a real nats-server."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio

from gateway.fleet import nats_link
from gateway.fleet.nats_bus import NatsBus, NotConnectedError
from tests.fleet.buses import PATIENCE, Ends, Heard, flushed, running, settings, subscribed
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.js import JetStreamContext

    from gateway.fleet.bus import Delivery

pytestmark = needs_nats


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


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


async def test_jetstream_is_used_in_the_same_connection() -> None:
    async def remember(context: JetStreamContext) -> int:
        bucket = await context.create_key_value(bucket="runs", ttl=60)
        await bucket.put("a", b"1")
        return (await bucket.put("b", b"2")) or 0

    async def recall(context: JetStreamContext) -> bytes | None:
        return (await (await context.key_value("runs")).get("b")).value

    async def fail(context: JetStreamContext) -> None:
        await (await context.key_value("runs")).get("c")

    with NatsServer(jetstream=True) as nats:
        async with running(settings(nats.url)) as (bus,):
            ends = Ends(bus)
            assert await bus.run(remember) == 2
            assert await bus.run(recall) == b"2"
            with pytest.raises(Exception, match="nats: key not found"):
                await bus.run(fail)
            nats.kill()
            await ends.wait("connected", "lost")
            with pytest.raises(NotConnectedError):
                await bus.run(recall)
            nats.start()
            await ends.wait("connected", "lost", "connected")
            assert await bus.run(recall) == b"2"


async def test_what_jetstream_was_asked_ends_with_the_connection(nats: NatsServer) -> None:
    async def wait_for_ever(context: JetStreamContext) -> None:
        del context
        started.put_nowait(None)
        await asyncio.Event().wait()

    async def fails() -> None:
        with pytest.raises(NotConnectedError):
            await bus.run(wait_for_ever)

    started: queue.Queue[None] = queue.Queue()
    async with running(settings(nats.url)) as (bus,), trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.to_thread.run_sync(started.get)
        nats.kill()


async def test_who_does_not_wait_for_jetstream_any_more_cancels_it(nats: NatsServer) -> None:
    async def wait_for_ever(context: JetStreamContext) -> None:
        del context
        said.put_nowait("started")
        try:
            await asyncio.Event().wait()
        finally:
            said.put_nowait("ended")

    said: queue.Queue[str] = queue.Queue()
    async with running(settings(nats.url)) as (bus,), trio.open_nursery() as nursery:
        nursery.start_soon(bus.run, wait_for_ever)
        assert await trio.to_thread.run_sync(said.get) == "started"
        nursery.cancel_scope.cancel()
    assert said.get(timeout=PATIENCE) == "ended"


async def test_a_server_that_says_nothing_is_given_up(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_link, "SILENCE_SECONDS", 0.5)
    async with running(settings(nats.url)) as (bus,):
        ends = Ends(bus)
        nats.pause()
        assert "has been silent for 0.5 s" in (await ends.wait("connected", "lost") or "")
        nats.resume()
        assert await ends.wait("connected", "lost", "connected") is None


async def test_a_server_that_takes_nothing_is_cut_off(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_link, "SILENCE_SECONDS", 3600)
    async with running(settings(nats.url)) as (bus,):
        ends = Ends(bus)
        nats.pause()
        for _ in range(40):
            bus.publish("a", bytes(1024 * 1024))
        assert "does not take what is said" in (await ends.wait("connected", "lost") or "")
        nats.resume()
        await ends.wait("connected", "lost", "connected")
        await flushed(bus)


async def test_a_process_that_does_not_listen_is_cut_off(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    end = nats_link.Link.end

    def noticed(link: nats_link.Link, reason: str) -> None:
        end(link, reason)
        given_up.set()

    monkeypatch.setattr(nats_link, "MAX_WAITING", 256 * 1024)
    monkeypatch.setattr(nats_link.Link, "end", noticed)
    async with running(settings(nats.url)) as (bus,):
        ends = Ends(bus)
        await subscribed(bus, "a")
        with socket.create_connection((nats.address, nats.port)) as other:
            other.sendall(b"CONNECT {}\r\n" + b"PUB a 102400\r\n%b\r\n" % bytes(102400) * 4)
            assert given_up.wait(PATIENCE)  # trio's loop stands still
        assert "was not listened to" in (await ends.wait("connected", "lost") or "")
        await ends.wait("connected", "lost", "connected")


async def test_callbacks_leave_turns_to_others(nats: NatsServer) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    taken: list[int] = []

    def take(_: Delivery) -> None:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        taken.append(turns)
        if len(taken) == 100:
            done.set()

    done = trio.Event()
    async with running(settings(nats.url), settings(nats.url)) as (one, two):
        two.subscribe("a", take)
        await flushed(two)
        for _ in range(100):
            one.publish("a", b"")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            with trio.fail_after(PATIENCE):
                await done.wait()
            nursery.cancel_scope.cancel()
    assert len(set(taken)) > 20


class Logged(logging.Handler):
    """Waits for lines of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._more = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()
        self._more = trio.Event()

    async def wait_for(self, text: str) -> None:
        with trio.fail_after(PATIENCE):
            while not any(text in line for line in self.lines):
                await self._more.wait()


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler, logger = Logged(), logging.getLogger("gateway")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def test_what_is_wrong_is_said_when_it_changes_and_tried_again_until_it_is_right(
    nursery: trio.Nursery, logged: Logged
) -> None:
    with NatsServer('authorization { user: "h", password: "other" }') as nats:
        made = settings(nats.url, user="h", password="p")
        bus = NatsBus(made, name="bus", inbox="js")
        await nursery.start(bus.keep)
        ends = Ends(bus)
        await logged.wait_for(f"{nats.url} ")
        assert "refuse" in logged.lines[0]
        assert "fleet.user and fleet.password" in logged.lines[0]
        nats.configure('authorization { user: "h", password: "p" }')
        await ends.wait("connected")
        assert bus.problem is None
        nats.kill()
        await logged.wait_for("cannot be reached (fleet.servers): connection refused")
        assert ends.all == ["connected", "lost"]
        nursery.cancel_scope.cancel()


async def test_what_a_user_may_not_do_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may = 'permissions: { publish: ["nr.>", "nobody.>"] }'
    users = f'authorization {{ users: [ {{ user: "h", password: "p", {may} }} ] }}'
    with NatsServer(users) as nats:
        async with running(settings(nats.url, user="h", password="p")) as (bus,):
            bus.publish("gw.hb.other", b"forged")
            await flushed(bus)
    (warning,) = [each.message for each in caplog.records if "may not do" in each.message]
    assert "gw.hb.other" in warning


def test_the_name_of_a_server_is_looked_up_where_nobody_waits_for_it() -> None:
    async def find() -> object:
        return await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 4222)

    loop = nats_link.Loop()
    try:
        assert loop.run_until_complete(find()) == socket.getaddrinfo("127.0.0.1", 4222)
    finally:
        loop.close()
