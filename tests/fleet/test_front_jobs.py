"""Background runs as a front waits for them, with a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.exchange import Exchange
from gateway.fleet.background import ENDED, AwayError, Outcome
from gateway.fleet.front.jobs import Jobs
from gateway.fleet.host.lines import answer, words
from tests.fleet.front_scene import a_call, a_scene

LONG = Outcome(
    words(1, [b'"x"'] * 100_000) + answer(1, "invoke", None, None), None, handed_over=True
)
"""Takes several turns of the loop to be read."""


class FakeStore:
    """What a host has written of the only run."""

    news = ("gw.taken.*.*", "gw.done.*.*.0")

    def __init__(self) -> None:
        self.outcome_now: Outcome | None = None
        self.looks = 0
        self.tidied = 0
        self.away = False
        """When an outcome is to be written."""
        self.goes_on = trio.Event()
        self.goes_on.set()

    async def prepare(self) -> None:
        await trio.lowlevel.checkpoint()

    async def has(self, token: str) -> bool:
        del token
        await trio.lowlevel.checkpoint()
        return True

    async def tidy(self, agent: str, token: str) -> None:
        del agent, token
        await trio.lowlevel.checkpoint()
        self.tidied += 1

    async def taken_by(self, agent: str, token: str) -> str | None:
        del agent, token
        self.looks += 1
        await self.goes_on.wait()
        return None if self.outcome_now is None else ENDED

    async def outcome(self, agent: str, token: str) -> Outcome | None:
        del agent, token
        await trio.lowlevel.checkpoint()
        return self.outcome_now

    async def finish(self, agent: str, token: str, outcome: Outcome) -> None:
        del agent, token
        await trio.lowlevel.checkpoint()
        if self.away:
            raise AwayError
        self.outcome_now = self.outcome_now or outcome

    def stop(self, agent: str) -> str:
        return f"gw.stop.{agent}"


@asynccontextmanager
async def some_jobs() -> AsyncIterator[tuple[Jobs, FakeStore]]:
    """The background runs of a front whose hosts have the agent `echo`."""
    async with a_scene("a") as scene, trio.open_nursery() as nursery:
        store: Any = FakeStore()
        jobs = Jobs(scene.bus, store, scene.dispatcher, is_there=lambda _: True)
        nursery.start_soon(jobs.run)
        await wait_all_tasks_blocked()
        yield jobs, store
        nursery.cancel_scope.cancel()


async def words_of(exchange: Exchange) -> list[bytes]:
    """All words, once it has ended."""
    found: list[bytes] = []
    while not exchange.drained:
        found += await exchange.receive()
    return found


async def test_a_long_answer_that_is_there_already_is_told_once(autojump_clock: MockClock) -> None:
    async with some_jobs() as (jobs, store):
        store.outcome_now = LONG
        exchange = await jobs.attach("t", a_call(stream=True))
        assert len(await words_of(exchange)) == 100_000
        assert exchange.error is None


async def test_all_who_ask_for_a_run_at_once_wait_for_it_together(
    autojump_clock: MockClock,
) -> None:
    async with some_jobs() as (jobs, store):
        store.goes_on = trio.Event()
        found: list[Exchange] = []

        async def ask() -> None:
            found.append(await jobs.attach("t", a_call(stream=True)))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert store.looks == 1
            store.goes_on.set()
        assert len(set(found)) == 1


async def test_whoever_asks_for_a_run_first_may_leave_while_others_wait_for_it(
    autojump_clock: MockClock,
) -> None:
    async with some_jobs() as (jobs, store):
        store.goes_on = trio.Event()
        with trio.move_on_after(1):
            await jobs.attach("t", a_call(stream=True))
        store.outcome_now = LONG
        store.goes_on.set()
        exchange = await jobs.attach("t", a_call(stream=True))
        assert len(await words_of(exchange)) == 100_000


@pytest.mark.parametrize("known", [False, True], ids=["not yet", "already"])
async def test_nothing_is_left_of_a_run_that_has_ended(
    autojump_clock: MockClock, *, known: bool
) -> None:
    async with some_jobs() as (jobs, store):
        store.outcome_now = LONG if known else None
        exchange = await jobs.attach("t", a_call(stream=True))
        jobs.cancel(exchange)
        await words_of(exchange)
        await trio.sleep(60)
        assert repr(jobs) == "<Jobs 0 awaited>"
        assert store.outcome_now is not None


async def test_nothing_of_a_run_is_taken_away_whose_end_could_not_be_written(
    autojump_clock: MockClock,
) -> None:
    async with some_jobs() as (jobs, store):
        for store.away in (True, False):
            exchange = await jobs.attach("t", a_call(stream=True))
            assert jobs.cancel(exchange)
            await wait_all_tasks_blocked()
            assert store.tidied == (not store.away)
