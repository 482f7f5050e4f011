"""Runs that are left to the hosts of a fleet, which are played, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.call import Call
from gateway.config import AgentSettings, Clocks, RunSettings
from gateway.errors import Overloaded
from gateway.exchange import Exchange
from gateway.front.runs.afar import Afar
from tests.unit.asgi import FakeDispatcher, Story
from tests.unit.runs import ASYNC, RunScene, answer, front, keyed


class Hosted:
    """What is known of an agent."""

    settings = AgentSettings(command="at hosts")


class Hosts:
    """Leaves requests to `dispatcher` once `goes_on` is set, and forgets keys once `forgets` is."""

    available = True

    def __init__(self, dispatcher: FakeDispatcher) -> None:
        self.store = self
        self.goes_on = trio.Event()
        self.forgets = trio.Event()
        self._dispatcher = dispatcher

    async def submit(self, token: str, record: object, call: Call) -> Exchange:
        del token, record
        await self.goes_on.wait()
        return self._dispatcher.submit(call)

    def cancel(self, exchange: Exchange) -> bool:
        del exchange
        return True

    # As the store

    async def find_key(self, digest: bytes) -> None:
        del digest
        await trio.lowlevel.checkpoint()

    async def forget_key(self, digest: bytes) -> None:
        del digest
        await self.forgets.wait()


@asynccontextmanager
async def a_front(
    story: Story, *, hands_over: bool = True, **settings: Any
) -> AsyncIterator[tuple[RunScene, Hosts]]:
    async with trio.open_nursery() as nursery:
        dispatcher = FakeDispatcher(nursery, story, Clocks(), hands_over=hands_over)
        dispatcher.agents["a"] = Hosted()
        async with front(dispatcher, RunSettings(**settings)) as it:
            hosts: Any = Hosts(dispatcher)
            played: Any = dispatcher
            it.runs.afar = Afar(it.runs, hosts, played, it.routes.codec_of)
            yield it, hosts
        nursery.cancel_scope.cancel()


async def test_no_more_runs_are_kept_than_may_be_however_long_it_takes_to_leave_them(
    autojump_clock: MockClock,
) -> None:
    async with a_front(answer, max=1) as (it, hosts):
        first = it.begin(body={"input": 1}, headers=ASYNC)
        await wait_all_tasks_blocked()
        second = await it.post(**ASYNC)
        assert second.error == "overloaded"
        hosts.goes_on.set()
        await first.answered.wait()
        assert first.status == 202
        assert it.runs.reading.kept == 1
        assert (await it.post(**ASYNC)).status == 202  # in the place of the one that has ended


async def test_whoever_comes_back_for_a_run_that_is_not_kept_has_no_other_one_begun(
    autojump_clock: MockClock,
) -> None:
    async with a_front(answer) as (it, hosts):
        hosts.goes_on.set()
        back = ASYNC | {"last-event-id": "7"}
        gone = await it.ask(body={"input": 1}, headers=keyed("k", **back))
        assert (gone.status, gone.error) == (410, "run_gone")
        unknown = await it.ask(body={"input": 1}, headers=back)
        assert (unknown.status, unknown.error) == (400, "invalid_request")
        assert it.runs.reading.kept == 0


async def test_a_run_has_ended_for_everybody_although_its_key_takes_long_to_be_forgotten(
    autojump_clock: MockClock,
) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.fail(Overloaded("full", retry_after=1))

    async with a_front(refuse, hands_over=False, max=10) as (it, hosts):
        hosts.goes_on.set()
        accepted = await it.ask(body={"input": 1}, headers=keyed("k", **ASYNC))
        assert accepted.status == 202
        await wait_all_tasks_blocked()
        assert (await it.get(accepted.run)).json["state"] == "failed"
        assert it.runs.reading.going_on == 0
        assert it.runs.reading.kept == 1
