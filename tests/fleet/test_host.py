"""A host on a bus in memory, and fronts that say what the test says; workers are fakes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import clock
from gateway.agents.dispatcher import Dispatcher
from gateway.exchange import CHUNK_COST
from gateway.fleet import pipe
from gateway.fleet.bus import Delivery
from gateway.fleet.host.host import Host
from gateway.fleet.host.request import WINDOW_BYTES
from gateway.fleet.messages import (
    AgentDescription,
    Ask,
    Beat,
    Down,
    Failed,
    Given,
    Leaving,
    Left,
    Refused,
    Submit,
    Told,
    Took,
    Up,
)
from gateway.fleet.pipe import Ended
from gateway.fleet.subjects import Peer, Subjects
from gateway.fleet.wire import Wires
from tests.fleet.fakes import FakeBus, FakeNats
from tests.fleet.host_scene import lines_of, submit
from tests.unit.workers import AgentScene, Crew

SUBJECTS = Subjects()
HOST = Peer("host", "0a")


class FakeFront:
    """A front that says what the test says, and keeps what it is told."""

    def __init__(self, nats: FakeNats, name: str) -> None:
        self.bus: FakeBus = nats.bus(name)
        self.this = Peer.new(name)
        self.told: list[Down] = []
        self.ends: list[Ended] = []
        self.beats: list[Beat] = []
        self._news = trio.Event()
        self._wires = Wires(self.bus, SUBJECTS, self.this, role="front")
        self.wire = self._wires.open(HOST, self)
        self.run = self._wires.run
        self.bus.watch(self._connected, lambda: None)

    def _connected(self) -> None:
        self.bus.subscribe(SUBJECTS.beats(), self._beat)

    def _beat(self, delivery: Delivery) -> None:
        self.beats.append(msgspec.msgpack.decode(delivery.data, type=Beat))

    def receive(self, messages: Sequence[Up | Down]) -> None:
        for message in messages:
            assert not isinstance(message, Submit)
            if isinstance(message, Leaving):
                self.wire.send(Left())
            self.told.append(message)  # type: ignore[arg-type]  # down, as this end reads
        self._news.set()

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def unheard(self) -> None:
        pass

    async def wait_for(self, kind: type[Any], count: int) -> None:
        while len(self.of(kind)) < count:
            self._news = trio.Event()
            await self._news.wait()

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.told if isinstance(each, kind)]

    @property
    def lines(self) -> list[Any]:
        return lines_of(self.told)


class Scene:
    """One host with the agent "a", and any number of fronts."""

    def __init__(self, nursery: trio.Nursery, agent: AgentScene) -> None:
        self._nursery = nursery
        self.agents = agent
        self.nats = FakeNats()
        self.bus = self.nats.bus("host")
        self.dispatcher = Dispatcher({"a": agent.agent})
        self.host = Host(self.bus, SUBJECTS, HOST, self.dispatcher, grace=10)

    async def end(self) -> None:
        """End the host in order, and its connection at once after that."""
        await self.dispatcher.drain(20)
        await self.dispatcher.stop(1)
        await self.host.end()
        self.nats.cut(self.bus)

    def front(self, name: str = "front") -> FakeFront:
        front = FakeFront(self.nats, name)
        self._nursery.start_soon(front.run)
        return front


@asynccontextmanager
async def a_host(crew: Crew | None = None, **options: Any) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        scene = Scene(nursery, AgentScene(crew, **options))
        await nursery.start(scene.dispatcher.run)
        await nursery.start(scene.host.run)
        await wait_all_tasks_blocked()
        yield scene
        nursery.cancel_scope.cancel()


async def test_requests_of_two_fronts_are_answered_to_each(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        one, two = scene.front("one"), scene.front("two")
        one.wire.send(submit(1))
        two.wire.send(submit(1), submit(2))
        await trio.sleep(1)
        assert [line["id"] for line in one.lines] == [1]
        assert [line["id"] for line in two.lines] == [1, 2]


async def test_a_host_beats_with_the_load_of_its_agents(autojump_clock: MockClock) -> None:
    async with a_host(concurrency=2, workers={"max": 3}) as scene:
        front = scene.front()
        await trio.sleep(2)
        assert len(front.beats) == 10
        beat = front.beats[-1]
        assert not beat.draining
        assert (beat.agents["a"].state, beat.agents["a"].capacity) == ("ready", 6)
        front.wire.send(*(submit(number, "hold") for number in range(1, 8)))
        await trio.sleep(0.5)
        agent = front.beats[-1].agents["a"]
        assert agent.in_flight + agent.waiting == 7
        assert agent.workers == 3
        assert agent.revision == beat.agents["a"].revision


async def test_a_host_that_drains_says_so_refuses_and_ends_what_it_has(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        drained = False

        async def drain() -> None:
            nonlocal drained
            drained = await scene.dispatcher.drain(20)
            await scene.dispatcher.stop(1)
            await scene.host.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.sleep(0.3)
            assert front.beats[-1].draining
            front.wire.send(submit(2))
            await trio.sleep(0.3)
            (refused,) = front.of(Refused)
            assert (refused.id, refused.elsewhere) == (2, True)
            worker = scene.agents.crew[1]
            worker.answers(worker.exchanges[0])
        assert drained
        assert [line["id"] for line in front.lines] == [1]


async def test_what_a_host_says_last_arrives_before_it_ends(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        worker = scene.agents.crew[1]
        worker.answers(worker.exchanges[0])
        ended = trio.Event()

        async def end() -> None:
            await scene.host.end()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            await trio.sleep(1)
            assert not ended.is_set()
            scene.nats.release(front.bus)
            await trio.sleep(0.5)
            assert ended.is_set()
        assert [line["id"] for line in front.lines] == [1]


async def test_what_a_front_submits_until_it_hears_that_its_host_ends_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        front.wire.send(submit(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.end)
            await trio.sleep(0.1)
            scene.nats.release(front.bus)
        await trio.sleep(0.5)
        assert front.of(Leaving)
        (refused,) = front.of(Refused)
        assert (refused.id, refused.elsewhere) == (1, True)


async def test_what_does_not_fit_into_a_window_before_its_host_ends_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        front.wire.send(submit(1, "x" * 2 * pipe.WINDOW_BYTES), submit(2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.end)
            await trio.sleep(0.1)
            scene.nats.release(front.bus)
        await trio.sleep(0.5)
        assert [(each.id, each.elsewhere) for each in front.of(Refused)] == [(1, True), (2, True)]


async def test_a_host_ends_at_once_if_its_fronts_have_gone(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        front, gone = scene.front(), scene.front("gone")
        await trio.sleep(0.5)
        gone.wire.close()
        await trio.sleep(0.5)
        began = trio.current_time()
        await scene.host.end()
        assert trio.current_time() - began < 0.5
        assert front.of(Leaving)


async def test_a_front_that_begins_anew_hears_again_that_its_host_ends(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.host.end)
            await trio.sleep(0.1)
            front.wire.end("a test")
            scene.nats.release(front.bus)
        assert front.of(Leaving)
        assert front.wire.epoch == 2


async def test_a_host_ends_although_a_front_does_not_hear_it(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        worker = scene.agents.crew[1]
        worker.answers(worker.exchanges[0])
        began = trio.current_time()
        await scene.host.end()
        assert trio.current_time() - began < 5


async def test_requests_of_a_front_that_died_are_cancelled_soon(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        scene.nats.cut(front.bus)
        await trio.sleep(3)
        assert scene.agents.crew[1].cancelled == ["r-1"]
        assert not scene.dispatcher.open


async def test_requests_of_a_front_that_is_frozen_are_cancelled_after_the_grace(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        scene.nats.hold(front.bus)
        await trio.sleep(9)
        assert scene.agents.crew[1].cancelled == []
        await trio.sleep(2)
        assert scene.agents.crew[1].cancelled == ["r-1"]


async def test_a_short_loss_of_nats_loses_nothing(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"), submit(2, "hold", stream=True))
        await trio.sleep(0.5)
        scene.nats.stop()
        await trio.sleep(0.5)
        worker = scene.agents.crew[1]
        one, two = worker.exchanges
        two.add_words([b'"word"'], clock.now())
        worker.answers(one)
        await trio.sleep(0.5)
        scene.nats.start()
        await trio.sleep(1)
        worker.answers(two)
        await trio.sleep(1)
        word, answer, end = front.lines
        assert (word["params"]["id"], answer["id"], end["id"]) == (2, 1, 2)
        assert front.ends == []


async def test_a_host_without_nats_is_not_ready(autojump_clock: MockClock) -> None:
    async with a_host() as scene:
        assert scene.dispatcher.ready
        scene.nats.stop()
        await trio.sleep(0.1)
        assert not scene.dispatcher.ready
        scene.nats.start()
        await trio.sleep(0.1)
        assert scene.dispatcher.ready


async def test_a_long_loss_of_nats_cancels_what_nobody_can_be_told(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"))
        await trio.sleep(0.5)
        scene.nats.stop()
        await trio.sleep(11)
        assert scene.agents.crew[1].cancelled == ["r-1"]
        scene.nats.start()
        front.wire.end("silence")
        await trio.sleep(1)
        front.wire.send(submit(2))
        await trio.sleep(1)
        assert [line["id"] for line in front.lines] == [2]


async def test_a_front_that_takes_nothing_holds_back_its_own_stream_alone(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold", stream=True), submit(2, "hold", stream=True))
        await trio.sleep(0.5)
        worker = scene.agents.crew[1]
        slow, quick = worker.exchanges
        for _ in range(100):
            if not slow.full:
                slow.add_words([b'"%b"' % (b"s" * 10_000)] * 10, clock.now())
            quick.add_words([b'"%b"' % (b"q" * 10_000)] * 10, clock.now())
            await trio.sleep(0.1)
            front.wire.send(Took(2, 10 * (10_002 + CHUNK_COST)))
        sent = [line["params"]["id"] for line in front.lines]
        assert sent.count(2) == 1000
        assert sent.count(1) == WINDOW_BYTES // (10_002 + CHUNK_COST)
        assert slow.full


async def test_questions_are_answered(autojump_clock: MockClock) -> None:
    async with a_host(description="What it is.") as scene:
        front = scene.front()
        await trio.sleep(1)
        front.wire.send(Ask(1, "describe", "a"), Ask(2, "status", "a"))
        front.wire.send(Ask(3, "describe", "b"), Ask(4, "weather", "a"))
        await front.wait_for(Told, 4)
        told: dict[int, bytes | None] = {each.id: each.body for each in front.of(Told)}
        described = msgspec.msgpack.decode(told[1] or b"", type=AgentDescription)
        assert described.known
        assert json.loads(described.ready or b"")["params"]["handlers"] == ["invoke"]
        assert described.description == "What it is."
        assert json.loads(told[2] or b"")["name"] == "a"
        assert told[3] is told[4] is None


async def test_a_worker_that_crashes_ends_its_requests_with_one_error_each(
    autojump_clock: MockClock,
) -> None:
    async with a_host() as scene:
        front = scene.front()
        front.wire.send(submit(1, "hold"), submit(2, "hold"))
        await trio.sleep(0.5)
        assert {each.id for each in front.of(Given)} == {1, 2}
        scene.agents.crew[1].ends()
        await trio.sleep(0.5)
        assert [(each.id, each.error.type) for each in front.of(Failed)] == [
            (1, "worker_crashed"),
            (2, "worker_crashed"),
        ]
