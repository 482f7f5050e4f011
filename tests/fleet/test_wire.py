"""Wires between fronts and hosts, on a NATS in memory."""

from __future__ import annotations

import pytest
import trio

from gateway.fleet import wire as module
from gateway.fleet.messages import Cancel, Lines, Told
from gateway.fleet.pipe import MAX_DATA_BYTES, WINDOW_BYTES, Why
from gateway.fleet.subjects import Peer
from gateway.fleet.wire import BEAT
from tests.fleet.fakes import FakeNats, Publish
from tests.fleet.wire_scene import SUBJECTS, Front, Host, Scene


@pytest.fixture
async def scene(nursery: trio.Nursery) -> Scene:
    made = Scene(nursery)
    await made.open()
    return made


def kinds(messages: list[Publish]) -> bytes:
    return b"".join(message.data[:1] for message in messages)


async def test_what_each_says_arrives_at_the_other(scene: Scene, autojump_clock: object) -> None:
    assert scene.at_front.heard
    assert scene.at_host.heard
    scene.at_front.send(Cancel(1), Cancel(2))
    scene.at_host.send(Lines(b"a\n"))
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(1), Cancel(2)]
    assert scene.front_owner.received == [Lines(b"a\n")]


async def test_what_is_said_in_one_turn_leaves_in_one_message(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.published.clear()
    for number in range(10):
        scene.at_front.send(Cancel(number))
    await scene.quiet()
    assert kinds(scene.published(scene.front.bus)) == b"D"
    assert scene.host_owner.batches == [10]


async def test_a_payload_of_any_size_passes(scene: Scene, autojump_clock: object) -> None:
    scene.nats.published.clear()
    lines = Lines(bytes(range(256)) * (8 * 4096))
    scene.at_host.send(lines)
    await scene.quiet()
    assert scene.front_owner.received == [lines]
    assert len(scene.published(scene.host.bus)) == len(lines.data) // MAX_DATA_BYTES + 1


async def test_a_quiet_wire_says_one_small_message_on_each_beat(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.published.clear()
    await trio.sleep(5 * BEAT + BEAT / 2)
    assert kinds(scene.published(scene.front.bus)) == b"KKKKK"
    assert kinds(scene.published(scene.host.bus)) == b"KKKKK"
    assert scene.at_front.heard_at == scene.at_host.heard_at == 5 * BEAT


async def test_silence_shows_in_when_the_peer_was_heard_last(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.hold(scene.host.bus)
    await trio.sleep(10)
    assert scene.at_front.heard_at == 0
    scene.nats.release(scene.host.bus)
    await scene.quiet()
    assert scene.at_front.heard_at == 10


async def test_who_waits_for_room_goes_on_when_the_peer_has_acknowledged(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.hold(scene.front.bus)
    waits = 0
    async with trio.open_nursery() as nursery:
        while not scene.at_host.full:
            scene.at_host.send(Lines(bytes(100_000)))

        async def wait() -> None:
            nonlocal waits
            waits += 1
            await scene.at_host.room()
            waits -= 1

        for _ in range(3):
            nursery.start_soon(wait)
        await trio.sleep(1)
        assert waits == 3
        scene.nats.release(scene.front.bus)
        began = trio.current_time()
    assert trio.current_time() == began, "the front acknowledges much at once"


async def test_who_waits_for_room_goes_on_when_the_epoch_ends(
    scene: Scene, autojump_clock: object
) -> None:
    for end in (scene.at_front.end, scene.at_front.end):
        scene.at_front.send(Cancel(0))
        scene.nats.hold(scene.host.bus)
        while not scene.at_front.full:
            scene.at_front.send(Told(1, bytes(WINDOW_BYTES)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.at_front.room)
            nursery.start_soon(scene.at_front.settled)
            await scene.quiet()
            end("enough")
        assert not scene.at_front.full


async def test_all_that_was_sent_is_settled_within_a_beat(
    scene: Scene, autojump_clock: object
) -> None:
    scene.at_front.send(Cancel(1))
    began = trio.current_time()
    await scene.at_front.settled()
    assert scene.host_owner.received == [Cancel(1)]
    assert trio.current_time() - began <= BEAT


async def test_positions_tell_what_was_received(scene: Scene, autojump_clock: object) -> None:
    first = scene.at_front.send(Cancel(1))
    scene.nats.hold(scene.host.bus)
    await scene.quiet()
    scene.nats.release(scene.host.bus)
    await trio.sleep(2 * BEAT)
    assert scene.at_front.acknowledged == first
    scene.nats.hold(scene.host.bus)
    second = scene.at_front.send(Cancel(2))
    await trio.sleep(2 * BEAT)
    assert first == scene.at_front.acknowledged < second


async def test_a_wire_goes_on_after_the_server_was_away(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.stop()
    for number in range(3):
        scene.at_front.send(Cancel(number))
        scene.at_host.send(Lines(b"%d\n" % number))
        await trio.sleep(1)
    assert scene.host_owner.received == scene.front_owner.received == []
    scene.nats.start()
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(0), Cancel(1), Cancel(2)]
    assert scene.front_owner.received == [Lines(b"0\n"), Lines(b"1\n"), Lines(b"2\n")]
    assert scene.front_owner.ends == scene.host_owner.ends == []


@pytest.mark.parametrize("who", ["front", "host"])
@pytest.mark.parametrize("unread", [True, False])
async def test_a_wire_goes_on_after_one_connection_broke(
    scene: Scene, autojump_clock: object, who: str, unread: bool
) -> None:
    bus = scene.front.bus if who == "front" else scene.host.bus
    for number in range(3):
        scene.at_front.send(Cancel(number))
        scene.at_host.send(Lines(b"%d\n" % number))
        scene.front.wires.flush()
        scene.host.wires.flush()
        scene.nats.cut(bus, unread=unread)
        await trio.sleep(1)
        scene.nats.restore(bus)
        await trio.sleep(2 * BEAT)
        assert scene.host_owner.received == [Cancel(n) for n in range(number + 1)]
        assert scene.front_owner.received == [Lines(b"%d\n" % n) for n in range(number + 1)]


async def test_a_front_learns_at_once_that_nobody_listens_and_what_was_not_received(
    scene: Scene,
    autojump_clock: object,
) -> None:
    received = scene.at_front.send(Cancel(1))
    await scene.quiet()
    scene.nats.cut(scene.host.bus)
    await scene.quiet()
    assert scene.front_owner.unheard_of == 0
    lost = scene.at_front.send(Cancel(2))
    await scene.quiet()
    assert scene.front_owner.unheard_of == 1
    scene.at_front.end("the host is gone")
    (ended,) = scene.front_owner.ends
    assert (ended.why, ended.detail) == (Why.GIVEN_UP, "the host is gone")
    assert ended.reached == received < lost


async def test_a_host_learns_that_a_front_is_gone_with_its_next_beat(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.cut(scene.front.bus)
    await trio.sleep(BEAT)
    await scene.quiet()
    assert scene.host_owner.unheard_of == 1


async def test_either_side_ends_the_epoch_and_the_next_one_begins_at_once(
    scene: Scene, autojump_clock: object
) -> None:
    for wire in (scene.at_front, scene.at_host):
        epoch = scene.at_front.epoch
        wire.end("enough")
        await scene.quiet()
        assert scene.at_front.epoch == scene.at_host.epoch == epoch + 1
        scene.at_front.send(Cancel(epoch))
        await scene.quiet()
        assert scene.host_owner.received[-1] == Cancel(epoch)
    assert [ended.why for ended in scene.front_owner.ends] == [Why.GIVEN_UP, Why.RESET]
    assert [ended.why for ended in scene.host_owner.ends] == [Why.RESET, Why.GIVEN_UP]


async def test_a_wire_that_the_front_closes_is_closed_at_the_host(
    scene: Scene, autojump_clock: object
) -> None:
    scene.at_front.close()
    assert [ended.why for ended in scene.front_owner.ends] == [Why.GIVEN_UP]
    await scene.quiet()
    assert [ended.why for ended in scene.host_owner.ends] == [Why.RESET]
    scene.nats.published.clear()
    await trio.sleep(3)
    assert scene.nats.published == []


async def test_a_host_that_missed_the_end_of_a_wire_is_told_again(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.cut(scene.front.bus)
    await scene.quiet()
    scene.at_front.close()
    scene.nats.restore(scene.front.bus)
    await trio.sleep(2 * BEAT)
    assert [ended.why for ended in scene.host_owner.ends] == [Why.RESET]


async def test_a_front_comes_back_to_a_host_that_it_had_closed_its_wire_to(
    scene: Scene, autojump_clock: object
) -> None:
    scene.at_front.close()
    wire, owner = scene.front.open(scene.host)
    wire.send(Cancel(7))
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(7)]
    scene.at_host.send(Lines(b""))
    await scene.quiet()
    assert owner.received == [Lines(b"")]
    assert owner.ends == []


async def test_a_host_that_has_closed_a_wire_takes_nothing_of_its_epoch_again(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.published.clear()
    scene.at_front.send(Cancel(1))
    await scene.quiet()
    scene.nats.cut(scene.front.bus)
    await scene.quiet()
    scene.at_host.close()
    (message,) = scene.published(scene.front.bus)
    stranger = scene.nats.bus("stranger")
    stranger.publish(message.subject, message.data)
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(1)]
    scene.nats.restore(scene.front.bus)
    await trio.sleep(2 * BEAT)
    assert [ended.why for ended in scene.front_owner.ends] == [Why.RESET]
    scene.at_front.send(Cancel(2))
    await scene.quiet()
    _, again = scene.host.of(scene.front)
    assert again is not scene.host_owner
    assert again.received == [Cancel(2)]


async def test_what_is_not_a_message_ends_the_epoch(scene: Scene, autojump_clock: object) -> None:
    scene.at_front.send(Told(1, b""))  # a host's
    await scene.quiet()
    assert [ended.why for ended in scene.host_owner.ends] == [Why.VIOLATION]
    assert [ended.why for ended in scene.front_owner.ends] == [Why.RESET]
    scene.at_front.send(Cancel(1))
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(1)]


async def test_a_host_that_breaks_the_protocol_all_the_time_ends_few_epochs(
    scene: Scene, autojump_clock: object
) -> None:
    scene.front_owner.on_receive = lambda: scene.at_front.end("that is no answer")
    for _ in range(20):
        scene.at_host.send(Told(1, b""))
        await scene.quiet()
    assert len(scene.front_owner.ends) == 4
    await trio.sleep(BEAT)
    scene.front_owner.on_receive = lambda: None
    await trio.sleep(BEAT)
    scene.at_host.send(Told(2, b""))
    await scene.quiet()
    assert scene.front_owner.received[-1] == Told(2, b"")
    assert len(scene.front_owner.ends) == 4


async def test_an_empty_message_is_no_peers_and_changes_nothing(
    scene: Scene, autojump_clock: object
) -> None:
    # Any user of JetStream can have it acknowledge to any subject.
    stranger = scene.nats.bus()
    stranger.publish(SUBJECTS.down(scene.front.peer, scene.host.peer), b"")
    stranger.publish(SUBJECTS.up(scene.host.peer, scene.front.peer), b"")
    await scene.quiet()
    scene.at_front.send(Cancel(1))
    await scene.quiet()
    assert scene.host_owner.received == [Cancel(1)]
    assert scene.front_owner.ends == scene.host_owner.ends == []


async def test_an_owner_may_end_or_close_in_any_callback(
    scene: Scene, autojump_clock: object
) -> None:
    scene.host_owner.on_receive = lambda: scene.at_host.end("no more")
    scene.front_owner.on_end = scene.at_front.close
    scene.at_front.send(Cancel(1))
    await scene.quiet()
    scene.at_front.send(Cancel(2))
    await trio.sleep(1)
    assert scene.host_owner.received == [Cancel(1)]
    assert len(scene.front_owner.ends) == 2, "of the epoch, and of the one after it"


async def test_there_is_one_wire_for_each_pair(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    nats = FakeNats()
    fronts = [Front(nats, f"front{n}") for n in range(2)]
    hosts = [Host(nats, f"host{n}") for n in range(3)]
    for process in [*fronts, *hosts]:
        nursery.start_soon(process.wires.run)
    for front in fronts:
        for host in hosts:
            front.open(host)
    await trio.sleep(BEAT)
    for i, front in enumerate(fronts):
        for j, host in enumerate(hosts):
            front.by_peer[host.peer].send(Cancel(10 * i + j))
    await trio.sleep(BEAT)
    for i, front in enumerate(fronts):
        for j, host in enumerate(hosts):
            assert host.owners[front.peer].received == [Cancel(10 * i + j)]
    with pytest.raises(ValueError, match="there is a wire"):
        fronts[0].open(hosts[0])


async def test_strangers_and_their_subjects_are_ignored(
    scene: Scene, autojump_clock: object
) -> None:
    stranger = scene.nats.bus("stranger")
    host, front = scene.host.peer, scene.front.peer
    told = SUBJECTS.undelivered(front, host)
    for subject in (
        f"{SUBJECTS.down(front, host)}.more",
        SUBJECTS.down(front, Peer("x", "y")),
        f"gw.up.{host}.x",
        told,
        f"{told}.1",
        f"{told}.x.y",
        f"{told}.1.²",
        f"{SUBJECTS.undelivered(front, Peer('x', 'y'))}.1.1",
    ):
        for data in (b"", b"K", b"R" + bytes(24), b"D" + b"\1" * 24):
            stranger.publish(subject, data)
    await scene.quiet()
    assert scene.front_owner.unheard_of == 0
    assert scene.front_owner.ends == scene.host_owner.ends == []


async def test_a_process_has_a_bounded_number_of_wires_and_memories(
    scene: Scene, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WIRES", 3)
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    for number in range(5):
        front = Front(scene.nats, f"front{number}")
        front.open(scene.host)
        front.wires.flush()
        await scene.quiet()
    assert len(scene.host.by_peer) == 3
    for wire in scene.host.by_peer.values():
        wire.close()
    assert len(scene.host.wires._last_epochs) == 3
    for number in range(5):
        front = Front(scene.nats, f"late{number}")
        front.open(scene.host)
        front.wires.flush()
        await scene.quiet()
        scene.host.of(front)[0].close()
    assert len(scene.host.wires._last_epochs) == 3


async def test_the_last_words_of_a_process_leave_without_a_turn_of_the_loop(
    scene: Scene, autojump_clock: object
) -> None:
    scene.nats.published.clear()
    scene.at_host.send(Lines(b"bye\n"))
    scene.host.wires.flush()
    scene.nats.settle()
    assert scene.front_owner.received == [Lines(b"bye\n")]
