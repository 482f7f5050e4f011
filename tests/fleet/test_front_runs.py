"""Background runs as a front waits for them, with a JetStream that a test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import AgentSettings, Clocks
from gateway.errors import Overloaded, WorkerCrashed
from gateway.fleet.background import ENDED, AwayError, Outcome, Record, Store
from gateway.fleet.front import jobs as module
from gateway.fleet.front.jobs import LOOK_SECONDS, PREPARE_SECONDS, Jobs
from gateway.fleet.jetstream import FullError
from tests.fleet.fakes import FakeNats
from tests.fleet.front_scene import a_call

if TYPE_CHECKING:
    from gateway.fleet.messages import Submit

CLOCKS = Clocks(start="off", queue="off", first="off", idle="off", total=3600)
"""As a front has them of an agent."""

TTL = 2 * 3600

RECORD = Record("echo", "/", {}, b"", "http", b"x", "r", "", b"c", None, b"")


class Kept(Store):
    """What a test says that there is."""

    def __init__(self) -> None:
        super().__init__(None, "gw", ttl=60)  # type: ignore[arg-type]  # asks nobody
        self.away = False
        self.made = 0
        self.jobs: dict[str, Submit] = {}
        self.taken: str | None = None
        self.outcomes: dict[str, Outcome] = {}
        self.announced: list[float] = []
        self.full = False

    def _ask(self) -> None:
        if self.away:
            raise AwayError("away")

    async def prepare(self) -> None:
        self._ask()
        self.made += 1

    async def keep(self, token: str, record: Record, job: Submit) -> None:
        self._ask()
        self.jobs[token] = job

    async def has(self, token: str) -> bool:
        self._ask()
        return token in self.jobs

    async def tidy(self, agent: str, token: str) -> None:
        self._ask()

    async def announce(self, agent: str, token: str) -> None:
        self._ask()
        if self.full:
            raise FullError("full")
        self.announced.append(trio.current_time())

    async def taken_by(self, agent: str, token: str) -> str | None:
        self._ask()
        return self.taken

    async def outcome(self, agent: str, token: str) -> Outcome | None:
        self._ask()
        return self.outcomes.get(token)

    async def finish(self, agent: str, token: str, outcome: Outcome) -> None:
        self._ask()
        self.outcomes.setdefault(token, outcome)


@asynccontextmanager
async def jobs() -> AsyncIterator[tuple[Jobs, Kept]]:
    """`h1.0` is a host that is there."""
    agent: Any = SimpleNamespace(settings=AgentSettings(command="at hosts", clocks=CLOCKS))
    dispatcher: Any = SimpleNamespace(agent=lambda _: agent)
    async with trio.open_nursery() as nursery:
        kept = Kept()
        made = Jobs(FakeNats().bus(), kept, dispatcher, is_there={"h1.0"}.__contains__)
        nursery.start_soon(made.run)
        await wait_all_tasks_blocked()
        yield made, kept
        nursery.cancel_scope.cancel()


async def test_jetstream_is_used_as_soon_as_it_can_be(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster needs a while for it after its start, and takes connections before."""
    async with jobs() as (it, kept):
        assert it.available
        kept.away = True
        it.on_connected()
        await trio.sleep(20 * PREPARE_SECONDS)
        assert not it.available
        kept.away = False
        await trio.sleep(2 * PREPARE_SECONDS)
        assert it.available
        made = kept.made
        await trio.sleep(20 * PREPARE_SECONDS)
        assert kept.made == made
    assert sum("no JetStream" in each for each in caplog.messages) == 1


async def test_streams_that_were_removed_are_made_again(autojump_clock: MockClock) -> None:
    async with jobs() as (it, kept):
        made = kept.made
        kept.away = True
        with pytest.raises(Overloaded):
            await it.submit("t", RECORD, a_call())
        kept.away = False
        await trio.sleep(PREPARE_SECONDS + 1)
        assert kept.made == made + 1
        assert it.available


async def test_a_run_that_no_host_takes_is_announced_again_and_ever_more_seldom(
    autojump_clock: MockClock,
) -> None:
    """What NATS gave to a host that stood still, or that lost its connection, nobody else hears of
    again."""
    async with jobs() as (it, kept):
        exchange = await it.submit("t", RECORD, a_call())
        assert exchange is not None
        await trio.sleep(60)
        assert 2 <= len(kept.announced) <= 4
        kept.full = True  # which harms nobody
        await trio.sleep(600)
        kept.full = False
        await trio.sleep(7200)
        assert 6 <= len(kept.announced) <= 9
        assert not exchange.ended


async def test_a_run_may_wait_for_longer_than_its_agent_may_take(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TTL", TTL)
    async with jobs() as (it, _):
        exchange = await it.submit("t", RECORD, a_call())
        assert exchange is not None
        with trio.move_on_after(TTL - 60):
            await exchange.collect()
        assert not exchange.ended
        with trio.fail_after(120):
            await exchange.collect()
        assert exchange.error is not None


async def test_what_is_left_of_the_callers_time_is_left_for_a_host(
    autojump_clock: MockClock,
) -> None:
    async with jobs() as (it, kept):
        exchange = await it.submit("t", RECORD, a_call(total=1.5))
        assert exchange is not None
        assert kept.jobs["t"].total == pytest.approx(1.5, abs=0.01)
        began = trio.current_time()
        await exchange.collect()
        assert trio.current_time() - began == pytest.approx(3.5, abs=0.1)


@pytest.mark.parametrize("taken", [None, ENDED, "h2.0"])
async def test_a_run_of_which_nobody_will_tell_ends_with_one_honest_error(
    autojump_clock: MockClock, taken: str | None
) -> None:
    """Its stream was removed, its outcome is not kept any more, or its host is gone."""
    async with jobs() as (it, kept):
        exchange = await it.submit("t", RECORD, a_call())
        assert exchange is not None
        if taken is None:
            del kept.jobs["t"]
        kept.taken = taken
        with trio.fail_after(4 * LOOK_SECONDS):
            await exchange.collect()
        assert isinstance(exchange.error, WorkerCrashed)
        assert exchange.handed_over
