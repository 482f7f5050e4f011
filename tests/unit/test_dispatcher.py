"""All agents of a gateway together, with workers that are no processes, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.dispatcher import Dispatcher
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
        it.leave(exchange, disconnected=True)
        assert isinstance(exchange.error, Cancelled)
        assert scene.crew[1].cancelled == ["r-1"]


async def test_a_request_whose_agent_continues_is_seen_through_without_its_client(
    autojump_clock: MockClock,
) -> None:
    scene = AgentScene(on_disconnect="continue")
    async with running(scene) as it:
        exchange = it.submit(scene.call("hold", stream=True))
        it.leave(exchange, disconnected=True)
        await wait_all_tasks_blocked()
        assert not exchange.ended
        assert scene.crew[1].cancelled == []
        exchange.add_chunks([b'"word"'], trio.current_time())
        assert not await it.drain(1), "a drain waits for it"
        scene.crew[1].answers(exchange)
        await wait_all_tasks_blocked()
        assert await it.drain(1)
