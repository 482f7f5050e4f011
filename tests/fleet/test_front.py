"""A front: what becomes of a request at one host, when it is given to another, and at the end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gateway import clock
from gateway.agents.status import AgentState
from gateway.errors import (
    AgentUnavailable,
    Cancelled,
    ClientTooSlow,
    ClockRanOut,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.exchange import CHUNK_COST
from gateway.fleet.messages import (
    AgentBeat,
    Cancel,
    Error,
    Hurry,
    Leaving,
    Left,
    Took,
)
from gateway.fleet.wire import BEAT
from tests.fleet.front_scene import CRASHED, a_call, a_scene, description, line


async def test_a_request_goes_to_the_host_and_its_answer_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        [submitted] = host.submitted
        assert (submitted.agent, submitted.payload, submitted.total) == ("echo", b'"hello"', None)
        request_id = host.give(session="kept")
        host.say(line(request_id, output={"a": 1}))
        await scene.settle()
        assert (exchange.result, exchange.error) == (b'{"a": 1}', None)
        assert exchange.session == "kept"
        assert exchange.carrier is not None
        assert exchange.carrier.pid == 77


async def test_words_come_in_order_and_the_host_is_told_what_the_client_took(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit(a_call(stream=True))
        request_id = host.give()
        host.say(*(line(request_id, chunk=str(each)) for each in range(5)))
        await scene.settle()
        assert exchange.take() == [b'"%d"' % each for each in range(5)]
        assert not any(isinstance(each, Took) for each in host.heard)
        await scene.settle(1)
        assert host.heard[-1] == Took(request_id, 5 * (3 + CHUNK_COST))
        host.say(line(request_id, chunk="x" * 65536))
        await scene.settle()
        exchange.take()
        await scene.settle()
        assert host.heard[-1] == Took(request_id, 65538 + CHUNK_COST)
        host.say(line(request_id))
        await scene.settle()
        assert exchange.drained
        assert exchange.error is None


async def test_what_is_left_of_the_callers_time_travels(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2") as scene:
        exchange = await scene.submit(a_call(total=10.0))
        [first] = [host for host in scene.hosts if host.submitted]
        total = first.submitted[0].total
        assert total is not None
        assert 9.9 < total <= 10
        await trio.sleep(4)
        first.refuse()
        await scene.settle()
        [second] = [host for host in scene.hosts if host is not first]
        total = second.submitted[0].total
        assert total is not None
        assert 5.9 < total < 6.1
        assert not exchange.ended


async def test_a_request_whose_host_forgets_its_time_ends_a_little_later(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        exchange = await scene.submit(a_call(total=10.0))
        scene.hosts[0].give()
        began = trio.current_time()
        await exchange.collect()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "total"
        assert 11 < trio.current_time() - began < 13


async def test_a_client_that_leaves_has_its_request_cancelled_at_the_host(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        request_id = host.give()
        scene.dispatcher.leave(exchange)
        await scene.settle()
        assert host.heard[-1] == Cancel(request_id)
        assert isinstance(exchange.error, Cancelled)
        host.fail(Error("cancelled", "the request was cancelled"))
        await scene.settle()
        assert scene.front.hosts.of("echo")
        assert [at.mine for at in scene.front.hosts.of("echo")] == [0]


async def test_an_error_at_the_host_is_the_clients(autojump_clock: MockClock) -> None:
    async with a_scene("h1") as scene:
        exchange = await scene.submit()
        scene.hosts[0].fail(CRASHED)
        await scene.settle()
        assert isinstance(exchange.error, WorkerCrashed)
        assert exchange.error.details == {"signal": "SIGKILL"}
        assert exchange.handed_over


async def test_a_failure_before_a_worker_had_the_request_is_told_as_such(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        exchange = await scene.submit()
        scene.hosts[0].fail(Error("timeout", "late", None, {"clock": "queue"}), handed_over=False)
        await scene.settle()
        assert isinstance(exchange.error, ClockRanOut)
        assert not exchange.handed_over


async def test_a_refused_request_is_given_to_another_host_three_at_most(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2", "h3", "h4") as scene:
        exchange = await scene.submit()
        asked = []
        for _ in range(3):
            [host] = [each for each in scene.hosts if each.submitted and each not in asked]
            asked.append(host)
            assert not exchange.ended
            host.refuse()
            await scene.settle()
        assert sum(len(each.submitted) for each in scene.hosts) == 3
        assert isinstance(exchange.error, Overloaded)
        assert exchange.error.retry_after == 7
        assert asked[-1].peer.name in exchange.error.message
        assert exchange.output_begun is None
        assert not exchange.handed_over


async def test_a_host_that_has_said_that_it_ends_gets_no_requests_whatever_it_beats(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        leaves, stays = scene.hosts
        leaves.wire.send(Leaving())
        await trio.sleep(3 * BEAT)
        assert not leaves.draining
        for _ in range(4):
            await scene.submit()
        assert not leaves.submitted
        stays.refuse(owner=str(leaves.peer))
        await scene.settle()
        assert not leaves.submitted


async def test_a_host_that_ends_before_its_next_beat_has_left_in_order(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        leaves, stays = scene.hosts
        leaves.wire.send(Leaving())
        for _ in range(2):  # whatever it beats
            await scene.settle(1)
            shown = {each.name: each.draining for each in scene.front.show_hosts()}
            assert shown == {"h1": True, "h2": False}
        scene.kill(leaves)
        scene.kill(stays)
        await scene.settle(5)
        assert scene.front.has_left(str(leaves.peer))
        assert not scene.front.has_left(str(stays.peer))


async def test_a_front_answers_once_that_a_host_leaves_however_often_it_says_so(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        for _ in range(100):
            host.wire.send(Leaving())
        await scene.settle()
        assert [type(each) for each in host.heard] == [Left]
        host.wire.end("a test")
        await scene.settle(2)
        host.wire.send(Leaving(), Leaving())
        await scene.settle()
        assert [type(each) for each in host.heard] == [Left, Left]


async def test_what_no_other_host_may_be_asked_is_the_answer(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2") as scene:
        exchange = await scene.submit()
        [host] = [each for each in scene.hosts if each.submitted]
        host.refuse(elsewhere=False)
        await scene.settle()
        assert isinstance(exchange.error, Overloaded)
        assert sum(len(each.submitted) for each in scene.hosts) == 1


async def test_a_request_that_a_worker_has_is_not_given_to_another_whatever_the_host_says(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        exchange = await scene.submit()
        [host] = [each for each in scene.hosts if each.submitted]
        host.give()
        host.refuse()
        await scene.settle()
        assert isinstance(exchange.error, Overloaded)
        assert sum(len(each.submitted) for each in scene.hosts) == 1


async def test_the_killed_hosts_requests_fail_at_once_and_name_it_and_the_next_is_served(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        first, second = await scene.submit(), await scene.submit()
        dead, alive = scene.hosts
        assert (len(dead.submitted), len(alive.submitted)) == (1, 1)
        dead.give()
        alive.give()
        await scene.settle()
        began = trio.current_time()
        scene.kill(dead)
        await scene.settle(1)
        [failed] = [each for each in (first, second) if each.error is not None]
        assert isinstance(failed.error, WorkerCrashed)
        assert failed.error.details["host"] == dead.peer.name
        assert failed.handed_over
        assert trio.current_time() - began < 0.3
        await scene.submit()
        assert len(alive.submitted) == 2


async def test_a_request_that_nobody_received_is_given_to_another_host(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        one, other = scene.hosts
        one.agents = {"echo": AgentBeat("ready", 8, 7, 0, 1)}
        await scene.settle(2)
        scene.kill(other)  # the front does not know yet
        exchange = await scene.submit()
        await scene.settle(2)
        assert not other.submitted
        assert len(one.submitted) == 1
        request_id = one.give()
        one.say(line(request_id, output=1))
        await scene.settle()
        assert exchange.result == b"1"


async def test_a_request_that_nobody_received_and_no_other_host_takes_may_be_sent_again(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        scene.kill(scene.hosts[0])  # the front does not know yet
        exchange = await scene.submit()
        await scene.settle(2)
        assert isinstance(exchange.error, AgentUnavailable)
        assert exchange.error.message == "the host 'h1' is gone; it has not received the request"
        assert exchange.error.details == {"host": "h1"}
        assert exchange.error.retry_after == 1
        assert not exchange.handed_over
        assert exchange.output_begun is None


async def test_a_host_that_stands_still_is_given_up_after_the_link_clock_and_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", link=0.7) as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        host.give()
        await scene.settle()
        began = trio.current_time()
        scene.stop(host)
        await exchange.collect()
        assert 0.7 <= trio.current_time() - began < 1.0
        assert isinstance(exchange.error, WorkerCrashed)
        assert "silent" in exchange.error.message
        with pytest.raises(AgentUnavailable, match="no host"):
            scene.dispatcher.submit(a_call())
        assert scene.dispatcher.agent("echo").state is AgentState.AWAY
        assert not scene.dispatcher.ready
        scene.nats.release(host.bus)
        await scene.settle(2)
        assert scene.dispatcher.ready
        await scene.submit()
        assert len(host.submitted) == 2
        assert [each.epoch for each in host.ends]


async def test_the_answer_of_a_host_that_was_given_up_is_not_taken(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        request_id = host.give()
        await scene.settle()
        scene.stop(host)
        await exchange.collect()
        host.say(line(request_id, output="late"))
        scene.nats.release(host.bus)
        await scene.settle(3)
        assert isinstance(exchange.error, WorkerCrashed)
        again = await scene.submit()
        host.say(line(host.give(), output="new"))
        await scene.settle()
        assert again.result == b'"new"'


async def test_a_host_that_does_not_take_a_request_in_time_is_named_with_the_clock(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", accept=2.0) as scene:
        [host] = scene.hosts
        scene.stop(host)
        exchange = scene.dispatcher.submit(a_call())

        async def beat() -> None:
            while True:  # it beats, and takes nothing
                link = scene.front._links[host.peer]
                link.beat_at = clock.now()
                await trio.sleep(BEAT)

        scene.nursery.start_soon(beat)
        began = trio.current_time()
        await exchange.collect()
        assert isinstance(exchange.error, ClockRanOut)
        assert (exchange.error.clock, exchange.error.details["host"]) == ("accept", "h1")
        assert 2.0 <= trio.current_time() - began < 2.5
        assert exchange.handed_over  # it may arrive still


async def test_a_stream_whose_worker_others_need_ends_unless_it_can_be_taken_soon(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchanges = [await scene.submit(a_call(stream=True)) for _ in range(2)]
        taken: list[int] = []
        exchanges[0].on_spill = lambda: taken.append(1)
        ids = [host.give(number) for number in range(2)]
        for request_id in (*ids, 12345):
            host.wire.send(Hurry(request_id))
        await scene.settle()
        assert taken == [1]
        await scene.settle(2)
        assert len(taken) > 1  # readers may have caught up, and be waited for again
        assert exchanges[0].error is None
        assert isinstance(exchanges[1].error, ClientTooSlow)
        assert host.heard[-1] == Cancel(ids[1])


async def test_a_conversation_stays_at_its_host(autojump_clock: MockClock) -> None:
    async with a_scene("h1", "h2", "h3") as scene:
        for host in scene.hosts:
            host.descriptions["echo"] = description(session="sticky")
            host.agents = {"echo": AgentBeat("ready", 8, 0, 0, 2)}
        await scene.settle(3)
        for _ in range(6):
            await scene.submit(a_call(conversation="c1"))
        assert sorted(len(host.submitted) for host in scene.hosts) == [0, 0, 6]


async def test_a_draining_front_admits_nothing_and_what_is_refused_still_goes_elsewhere(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1", "h2") as scene:
        exchange = await scene.submit()
        [host] = [each for each in scene.hosts if each.submitted]
        scene.nursery.start_soon(scene.dispatcher.drain)
        await scene.settle()
        with pytest.raises(ShuttingDown):
            scene.dispatcher.submit(a_call())
        host.refuse()
        await scene.settle()
        [other] = [each for each in scene.hosts if each is not host]
        other.say(line(other.give(), output=1))
        await scene.settle()
        assert exchange.result == b"1"
        scene.dispatcher.leave(exchange)


async def test_a_front_that_ends_tells_its_hosts_that_nobody_waits(
    autojump_clock: MockClock,
) -> None:
    async with a_scene("h1") as scene:
        [host] = scene.hosts
        exchange = await scene.submit()
        request_id = host.give()
        await scene.settle()
        scene.nursery.start_soon(scene.dispatcher.stop, 1.0)
        await scene.settle()
        assert isinstance(exchange.error, ShuttingDown)
        scene.dispatcher.leave(exchange)
        await scene.front.end()
        await scene.settle()
        assert Cancel(request_id) in host.heard
