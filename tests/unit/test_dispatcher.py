"""All agents of a gateway together, with workers that are no processes, in virtual time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.dispatcher import (
    TURN_SECONDS,
    TURNS_PER_CPU,
    WARM_UP_SECONDS,
    Dispatcher,
)
from gateway.errors import AgentNotFound, Cancelled, ShuttingDown
from tests.unit.workers import AgentScene


@asynccontextmanager
async def running(scene: AgentScene) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher({"a": scene.agent})
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        await wait_all_tasks_blocked()
        yield dispatcher
        await dispatcher.stop(0)


async def test_a_name_that_no_agent_has_is_not_found() -> None:
    async with running(AgentScene()) as it:
        with pytest.raises(AgentNotFound, match="there is no agent 'b'"):
            it.agent("b")


async def test_a_drain_is_over_when_the_last_answer_was_given(autojump_clock: MockClock) -> None:
    scene = AgentScene()
    async with running(scene) as it:
        exchange = it.submit(scene.call("hold"))
        assert not it.draining
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await it.drain(60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            assert it.draining
            assert not it.can_serve
            with pytest.raises(ShuttingDown):
                it.submit(scene.call("answer"))
            scene.crew[1].answers(exchange)
            await wait_all_tasks_blocked()
            assert drained == [], "its client has not read the answer yet"
            it.leave(exchange)
        assert drained == [True]
        assert repr(it) == "<Dispatcher draining, 1 agents, 0 requests>"


async def test_a_drain_gives_up_when_its_clock_runs_out(autojump_clock: MockClock) -> None:
    scene = AgentScene()
    async with running(scene) as it:
        exchange = it.submit(scene.call("hold"))
        assert not await it.drain(5)
        assert trio.current_time() == pytest.approx(5)
        assert exchange.error is None
        await it.stop(1)
        assert isinstance(exchange.error, ShuttingDown)
        assert scene.crew[1].given == ["r-1"]


async def test_a_gateway_without_requests_is_drained_at_once() -> None:
    async with running(AgentScene()) as it:
        assert await it.drain()


async def test_a_client_that_leaves_cancels_its_request() -> None:
    scene = AgentScene()
    async with running(scene) as it:
        exchange = it.submit(scene.call("hold"))
        it.leave(exchange)
        assert isinstance(exchange.error, Cancelled)
        assert scene.crew[1].cancelled == ["r-1"]


async def test_many_agents_start_a_few_at_a_time_and_one_that_is_asked_at_once(
    autojump_clock: MockClock,
) -> None:
    scenes = [AgentScene() for _ in range(200)]
    names = [*(f"a{number}" for number in range(1, 200)), "a"]
    it = Dispatcher({name: scene.agent for name, scene in zip(names, scenes, strict=True)})

    def started() -> int:
        return sum(bool(scene.crew.workers) for scene in scenes)

    async with trio.open_nursery() as nursery:
        await nursery.start(it.run)
        assert trio.current_time() == pytest.approx(WARM_UP_SECONDS), "it does not wait for all"
        at_once = TURNS_PER_CPU * len(os.sched_getaffinity(0))
        assert started() <= at_once * (WARM_UP_SECONDS / TURN_SECONDS + 1)
        it.submit(scenes[-1].call("hold"))
        await wait_all_tasks_blocked()
        assert scenes[-1].crew[1].given == ["r-1"]
        await trio.sleep(len(scenes) * TURN_SECONDS)
        assert started() == len(scenes)
        await it.stop(0)


async def test_a_stop_ends_the_start_of_many(autojump_clock: MockClock) -> None:
    scenes = [AgentScene() for _ in range(200)]
    it = Dispatcher({f"a{number}": scene.agent for number, scene in enumerate(scenes)})
    async with trio.open_nursery() as nursery:
        await nursery.start(it.run)
        await it.stop(0)
    assert trio.current_time() < WARM_UP_SECONDS + 2 * TURN_SECONDS
    assert any(not scene.crew.workers for scene in scenes)


async def test_a_stop_ends_what_waits_for_no_agent_also_if_it_begins_later() -> None:
    async with running(AgentScene()) as it:
        with it.until_stop.scope() as scope:
            await it.stop(0)
            await trio.sleep_forever()
        assert scope.cancelled_caught
        with it.until_stop.scope() as late:
            await trio.sleep_forever()
        assert late.cancelled_caught


async def test_one_that_leaves_serves_and_is_not_ready() -> None:
    scene = AgentScene()
    async with running(scene) as it:
        assert it.ready
        it.leaving = True
        assert not it.ready
        assert it.can_serve
        it.submit(scene.call("hold"))


# Agents come and go


async def put(it: Dispatcher, scene: AgentScene) -> None:
    await it.start(scene.agent)
    it.put(scene.agent)


async def test_what_came_before_another_agent_is_answered_by_the_one_that_it_came_to() -> None:
    old, new = AgentScene(), AgentScene()
    async with running(old) as it:
        before = it.submit(old.call("hold"))
        await put(it, new)
        after = it.submit(new.call("hold"))
        await wait_all_tasks_blocked()
        assert old.crew[1].given == ["r-1"]
        assert new.crew[1].given == ["r-1"]
        assert it.generations("a") == 1
        assert len(it.running) == 2
        old.crew[1].answers(before)
        await wait_all_tasks_blocked()
        assert before.error is None
        assert it.generations("a") == 1, "its client has not read the answer yet"
        it.leave(before)
        old.crew[1].reaps.set()
        await wait_all_tasks_blocked()
        assert it.generations("a") == 0
        assert list(it.running) == [new.agent]
        new.crew[1].answers(after)
        it.leave(after)


async def test_an_agent_without_requests_ends_at_once_when_another_takes_its_place() -> None:
    old, new = AgentScene(), AgentScene()
    async with running(old) as it:
        await put(it, new)
        old.crew[1].reaps.set()
        await wait_all_tasks_blocked()
        assert old.crew[1].reason is not None
        assert list(it.running) == [new.agent]
        assert it.agents == {"a": new.agent}


async def test_a_conversation_stays_where_it_is_worked_on_and_is_lost_afterwards() -> None:
    old, new = AgentScene(session="sticky"), AgentScene(session="sticky")
    async with running(old) as it:
        first = it.submit(old.call("hold", conversation="c"))
        await put(it, new)
        second = it.submit(old.call("hold", conversation="c"))
        other = it.submit(new.call("hold", conversation="d"))
        await wait_all_tasks_blocked()
        assert len(old.crew[1].given) == 2
        assert len(new.crew[1].given) == 1
        for exchange in (first, second):
            old.crew[1].answers(exchange)
            it.leave(exchange)
        await wait_all_tasks_blocked()
        third = it.submit(new.call("hold", conversation="c"))
        await wait_all_tasks_blocked()
        assert (second.session, third.session, other.session) == ("kept", "lost", "new")
        for exchange in (third, other):
            new.crew[1].answers(exchange)
            it.leave(exchange)


async def test_an_agent_that_is_removed_has_its_time_and_no_new_requests(
    autojump_clock: MockClock,
) -> None:
    scene = AgentScene()
    async with running(scene) as it:
        exchange = it.submit(scene.call("hold"))
        it.remove("a", 5)
        with pytest.raises(AgentNotFound):
            it.submit(scene.call("hold"))
        await trio.sleep(4)
        assert exchange.error is None
        await trio.sleep(2)
        assert isinstance(exchange.error, ShuttingDown)
        assert "agent 'a' is not served any more" in exchange.error.message


async def test_a_stop_ends_an_agent_that_winds_down_and_one_that_was_not_put() -> None:
    old, new, third = AgentScene(), AgentScene(), AgentScene()
    async with running(old) as it:
        exchange = it.submit(old.call("hold"))
        await put(it, new)
        await it.start(third.agent)
        await it.stop(0)
        assert isinstance(exchange.error, ShuttingDown)
        with pytest.raises(ShuttingDown):
            await it.start(AgentScene().agent)
