"""The server in memory does what tests of the fleet rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.fleet.fakes import FakeNats, matches

if TYPE_CHECKING:
    from gateway.fleet.bus import Bus, Delivery


def collect(bus: Bus, pattern: str) -> list[Delivery]:
    found: list[Delivery] = []
    bus.subscribe(pattern, found.append)
    return found


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a.b", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_a_star_is_one_token_and_an_arrow_is_one_or_more(
    pattern: str, subject: str, expected: bool
) -> None:
    assert matches(pattern.split("."), subject.split(".")) is expected


def test_messages_arrive_in_order_and_not_at_the_one_who_published_them() -> None:
    nats = FakeNats()
    one, two = nats.bus("one", held=True), nats.bus("two", held=True)
    mine, theirs = collect(one, "a.>"), collect(two, "a.*")
    for number in range(3):
        one.publish(f"a.{number}", b"%d" % number, "reply")
    nats.hold()
    while moves := nats.moves():
        nats.move(moves[-1])  # two subscribes before one publishes
    assert [(each.subject, each.data, each.reply) for each in theirs] == [
        (f"a.{number}", b"%d" % number, "reply") for number in range(3)
    ]
    assert mine == []


def test_a_publisher_with_a_reply_is_told_when_nobody_listens_but_itself() -> None:
    nats = FakeNats()
    bus = nats.bus(held=True)
    told = collect(bus, "nr.me.>")
    collect(bus, "c.x")
    bus.publish("c.x", b"", "nr.me.c.1")
    bus.publish("c.x", b"")
    while moves := nats.moves():
        nats.move(moves[0])
    assert [(each.subject, each.nobody) for each in told] == [("nr.me.c.1", True)]


async def test_steps_are_taken_soon_and_without_time_passing(
    autojump_clock: object,
) -> None:
    nats = FakeNats()
    one, two = nats.bus(), nats.bus()
    found = collect(two, "a")
    began = trio.current_time()
    await nats.settled()
    one.publish("a", b"1")
    assert found == []
    await nats.settled()
    assert [each.data for each in found] == [b"1"]
    assert trio.current_time() == began


def test_a_cut_loses_what_was_on_its_way_and_tells_the_bus_once() -> None:
    nats = FakeNats()
    one, two = nats.bus(held=True), nats.bus(held=True)
    said: list[str] = []
    two.watch(lambda: said.append("connected"), lambda: said.append("lost"))
    found = collect(two, "a")
    nats.move((two, "said"))
    one.publish("a", b"1")
    nats.move((one, "said"))
    nats.cut(two)
    assert nats.listeners("a") == []
    assert two.connected
    two.publish("b", b"dropped")
    nats.move((two, "told"))
    assert (said, two.connected, found) == (["connected", "lost"], False, [])
    nats.restore(two)
    assert said == ["connected", "lost", "connected"]
    assert nats.listeners("a") == []  # a subscription ends with its connection


def test_the_server_is_stopped_and_started_for_all_whose_connection_it_ended() -> None:
    nats = FakeNats()
    one, two = nats.bus(held=True), nats.bus(held=True)
    nats.cut(two)
    nats.stop()
    while moves := nats.moves():
        nats.move(moves[0])
    assert not one.connected
    nats.start()
    assert one.connected
    assert not two.connected


def test_what_was_on_its_way_when_it_was_unsubscribed_is_still_received() -> None:
    nats = FakeNats()
    one, two = nats.bus(held=True), nats.bus(held=True)
    found: list[Delivery] = []
    subscription = two.subscribe("a", found.append)
    nats.move((two, "said"))
    one.publish("a", b"1")
    nats.move((one, "said"))
    two.unsubscribe(subscription)
    two.unsubscribe(99)
    while moves := nats.moves():
        nats.move(moves[0])
    assert len(found) == 1


async def test_of_two_who_subscribe_and_then_ask_at_most_one_is_told_nobody() -> None:
    nats = FakeNats()
    alone: list[str] = []
    for name in ("one", "two"):
        bus = nats.bus(name)
        collect(bus, "c.x")
        told = collect(bus, f"nr.{name}")
        bus.publish("c.x", b"", f"nr.{name}")
        await nats.settled()
        alone += [name for each in told if each.nobody]
    assert alone == ["one"]
