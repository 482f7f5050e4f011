"""A front that has no connection to NATS for a while, and one that has it back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gateway.agents.dispatcher import Dispatcher
from gateway.config import FleetSettings
from gateway.errors import (
    AgentNotFound,
    AgentUnavailable,
    WorkerCrashed,
)
from gateway.fleet.front import front as module
from gateway.fleet.front.front import Front
from gateway.fleet.subjects import Peer
from gateway.fleet.wire import BEAT
from tests.fleet.fakes import FakeNats
from tests.fleet.front_scene import SUBJECTS, a_call, a_scene, line


async def test_without_nats_requests_are_refused_and_those_under_way_go_on_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        exchanges = [await scene.submit() for _ in range(4)]
        scene.nats.stop()
        await scene.settle(5)
        assert not scene.dispatcher.ready
        with pytest.raises(AgentUnavailable, match="no connection") as raised:
            scene.dispatcher.submit(a_call())
        assert raised.value.retry_after == 1
        scene.nats.start()
        await scene.settle(2)
        assert scene.dispatcher.ready
        for host in scene.hosts:
            for number in range(len(host.submitted)):
                host.say(line(host.give(number), output=number))
        await scene.settle(2)
        assert [each.error for each in exchanges] == [None] * 4
        assert all(each.ended for each in exchanges)


async def test_hosts_that_come_back_later_than_the_front_are_not_blamed(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        host.give()
        scene.nats.stop()
        await scene.settle()
        scene.nats.restore(scene.bus)
        await trio.sleep(module.GRACE_AFTER_RETURN - 0.5)
        assert not exchange.ended
        scene.nats.restore(host.bus)
        await scene.settle(5)
        host.say(line(host.submitted[0].id, output=1))
        await scene.settle(1)
        assert exchange.result == b"1"


async def test_a_request_on_its_way_when_nats_goes_is_accepted_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", accept=2.0, grace=10) as scene:
        [host] = scene.hosts
        exchange = scene.dispatcher.submit(a_call())
        scene.nats.stop()  # before it was sent
        await trio.sleep(5)
        assert not exchange.ended
        scene.nats.restore(scene.bus)
        await trio.sleep(module.GRACE_AFTER_RETURN - 0.5)
        scene.nats.restore(host.bus)
        await scene.settle(5)
        assert len(host.submitted) == 1
        host.say(line(host.give(), output=1))
        await scene.settle(1)
        assert exchange.result == b"1"


async def test_after_the_grace_without_nats_every_request_ends(autojump_clock: MockClock) -> None:
    async with a_scene("h1", grace=10) as scene:
        exchange = await scene.submit()
        scene.hosts[0].give()
        await scene.settle()
        began = trio.current_time()
        scene.nats.stop()
        await exchange.collect()
        assert 10 <= trio.current_time() - began < 10.5
        assert isinstance(exchange.error, WorkerCrashed)
        assert "no connection to NATS for 10 s" in exchange.error.message
        scene.nats.start()
        await scene.settle(3)
        assert scene.dispatcher.ready
        await scene.submit()
        assert len(scene.hosts[0].submitted) == 2


async def test_a_network_that_is_away_here_is_not_taken_for_a_host(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        exchange = await scene.submit()
        scene.hosts[0].give()
        await scene.settle()
        scene.nats.hold(scene.bus)  # nothing comes, and the connection does not end
        await trio.sleep(5)
        assert not exchange.ended
        scene.nats.release(scene.bus)
        await scene.settle(3)
        assert not exchange.ended


async def test_a_network_that_is_away_here_is_not_taken_for_a_host_that_takes_no_request(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", accept=2.0) as scene:
        [host] = scene.hosts
        exchange = scene.dispatcher.submit(a_call())
        scene.nats.hold(scene.bus)
        await trio.sleep(5)
        assert not exchange.ended
        scene.nats.release(scene.bus)
        await scene.settle(1)
        host.say(line(host.give(), output=1))
        await scene.settle(1)
        assert exchange.result == b"1"


async def test_without_nats_nobody_is_told_that_an_agent_does_not_exist(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        for _ in range(2):
            scene.nats.cut(scene.bus)
            await scene.settle(2)
            with pytest.raises(AgentUnavailable, match="is not known"):
                scene.dispatcher.submit(a_call("other"))
            scene.nats.restore(scene.bus)
            await scene.settle(5)
            with pytest.raises(AgentNotFound):
                scene.dispatcher.submit(a_call("other"))
    settings = FleetSettings(role="front", servers=["nats://x"])
    dispatcher = Dispatcher()
    Front(FakeNats().bus(), SUBJECTS, Peer.new("f"), dispatcher, settings)
    with pytest.raises(AgentUnavailable):  # the first connection is to come
        dispatcher.submit(a_call("other"))


async def test_what_was_sent_just_before_nats_went_away_is_not_said_to_be_unaccepted(
    autojump_clock: MockClock,
) -> None:
    """For as long as `grace`: the host may have it, and cannot say so."""
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = scene.dispatcher.submit(a_call())
        while not host.submitted:
            await trio.lowlevel.checkpoint()
        scene.nats.cut(scene.bus)
        await scene.settle(5 / BEAT)
        scene.nats.restore(scene.bus)
        await scene.settle(1)
        host.say(line(host.give(), output=1))
        await scene.settle(20)
        assert (exchange.error, exchange.result) == (None, b"1")
