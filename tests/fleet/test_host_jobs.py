"""Background runs as a host takes them, with a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.agents.dispatcher import Dispatcher
from gateway.fleet.background import Outcome
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.host.jobs import Jobs
from gateway.fleet.messages import Submit
from gateway.fleet.subjects import Peer
from gateway.fleet.wire import BEAT
from tests.fleet.fakes import FakeNats
from tests.fleet.host_scene import submit
from tests.unit.workers import AgentScene


class FakeStore:
    """Gives out the only job once `gives` is set."""

    def __init__(self) -> None:
        self.gives = trio.Event()
        self.given: Submit | None = None
        self.asked = 0
        self.outcomes: list[Outcome] = []

    async def take(self, agent: str, host: str) -> str | None:
        del agent, host
        self.asked += 1
        await self.gives.wait()
        return None if self.given is None else "t"

    async def job(self, agent: str, token: str) -> Submit | None:
        del agent, token
        await trio.lowlevel.checkpoint()
        given, self.given = self.given, None
        return given

    async def has_ended(self, agent: str, token: str) -> bool:
        del agent, token
        await trio.lowlevel.checkpoint()
        return False

    async def finish(self, agent: str, token: str, outcome: Outcome) -> None:
        del agent, token
        await trio.lowlevel.checkpoint()
        self.outcomes.append(outcome)

    def hint(self, agent: str) -> str:
        return f"gw.run.{agent}"

    def stop(self, agent: str) -> str:
        return f"gw.stop.{agent}"


@asynccontextmanager
async def some_jobs() -> AsyncIterator[tuple[Jobs, FakeStore, Dispatcher]]:
    """The background runs of a host that has the agent "a"."""
    store, dispatcher = FakeStore(), Dispatcher({"a": AgentScene().agent})
    dispatcher.new_exchange = ForwardedExchange
    kept: Any = store
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        bus = FakeNats().bus("host")
        jobs = Jobs(bus, kept, Peer("host", "0"), dispatcher, see=lambda _: None)
        nursery.start_soon(jobs.run)
        await wait_all_tasks_blocked()
        yield jobs, store, dispatcher
        await dispatcher.stop(1)
        nursery.cancel_scope.cancel()


async def test_a_job_that_is_being_taken_when_its_host_ends_is_answered(
    autojump_clock: MockClock,
) -> None:
    async with some_jobs() as (jobs, store, dispatcher):
        await trio.sleep(2 * BEAT)
        assert store.asked == 1
        store.given = submit(1)
        await dispatcher.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.settled)
            await wait_all_tasks_blocked()
            assert not store.outcomes
            store.gives.set()
        [outcome] = store.outcomes
        assert outcome.error is not None
        assert outcome.error.type == "shutting_down"
        assert not outcome.handed_over
