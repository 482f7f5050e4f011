"""What a supervisor may rely on in every worker: fake ones of the unit tests and real ones alike.

Each scene is played twice, with `FakeWorker` and with a process, by the same requests.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from gateway.agents.supervised import WorkerFactory
from gateway.agents.supervisor import AgentSupervisor
from gateway.call import Call
from gateway.config import AgentSettings, Clocks, Workers
from gateway.errors import Cancelled, ShuttingDown, WorkerCrashed
from gateway.exchange import Exchange
from gateway.sandbox.launch import Launcher
from gateway.sandbox.plain import PlainLauncher
from gateway.workers.events import (
    Answered,
    CancelIgnored,
    Ended,
    Reason,
    Spawned,
    Spoke,
    WorkerEvent,
)
from gateway.workers.worker import Worker
from tests.faults.scene import PATIENCE
from tests.harness import python_agent
from tests.unit.workers import Crew, NoLauncher


class Stage:
    """An agent whose workers are of one kind, and what they have reported."""

    def __init__(self, kind: str, *, deaf: bool, cancel: float) -> None:
        arguments = ["deaf"] if deaf else []
        argv = tuple(python_agent("puppet.py", *arguments))
        launcher: Launcher = NoLauncher()
        factory: WorkerFactory = Crew(deaf=deaf)
        if kind == "real":
            launcher, factory = PlainLauncher(argv, dict(os.environ)), Worker
        settings = AgentSettings(
            command=list(argv), workers=Workers(min=1, max=1), clocks=Clocks(cancel=cancel)
        )
        self.told: list[WorkerEvent] = []
        self._news = trio.Event()
        self._factory = factory
        self.agent = AgentSupervisor("a", settings, launcher, new_worker=self._make)
        self._requests = 0

    def _make(
        self, worker_id: int, agent: str, launcher: Launcher, report: Any, *, clocks: Clocks
    ) -> Any:
        def overhear(number: int, event: WorkerEvent) -> None:
            report(number, event)
            self.told.append(event)
            self._news.set()

        return self._factory(worker_id, agent, launcher, overhear, clocks=clocks)

    def ask(self, wish: str, *, stream: bool = False) -> Exchange:
        self._requests += 1
        payload = f'"{wish}"'.encode()
        name = f"r-{self._requests}"
        return self.agent.submit(
            Call(agent="a", method="invoke", payload=payload, stream=stream, request_id=name)
        )

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not holds():
                self._news = trio.Event()
                await self._news.wait()

    async def until_told(self, kind: type[WorkerEvent], times: int = 1) -> Any:
        await self.until(lambda: sum(isinstance(e, kind) for e in self.told) >= times)
        return next(event for event in reversed(self.told) if isinstance(event, kind))


@pytest.fixture(params=["fake", "real"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def stage(kind: str, *, deaf: bool = False, cancel: float = 60) -> AsyncIterator[Stage]:
    it = Stage(kind, deaf=deaf, cancel=cancel)
    async with trio.open_nursery() as nursery:
        await nursery.start(it.agent.run)
        it.agent.warm_up()
        await it.until_told(Spoke)
        assert [type(event) for event in it.told] == [Spawned, Spoke]
        yield it
        it.agent.stop(ShuttingDown("the test has ended"))
    ends = [event for event in it.told if isinstance(event, Ended)]
    assert len(ends) == sum(isinstance(event, Spawned) for event in it.told)


async def test_an_answer_frees_its_place(kind: str) -> None:
    async with stage(kind) as it:
        exchange = it.ask("answer")
        with trio.fail_after(PATIENCE):
            assert await exchange.collect() == []
        assert exchange.result == b'"answer"'
        assert (await it.until_told(Answered)).served
        assert it.agent.summary.in_flight == 0


async def test_a_death_loses_what_the_worker_had_and_another_is_started(kind: str) -> None:
    async with stage(kind) as it:
        silent, spoke = it.ask("hold"), it.ask("speak", stream=True)
        with trio.fail_after(PATIENCE):
            assert await spoke.receive() == [b'"word"']
        fatal = it.ask("die")
        end = await it.until_told(Ended)
        assert end.reason in {Reason.EXITED, Reason.STDOUT_CLOSED}
        assert end.lost == (silent, spoke, fatal)
        assert isinstance(end.error, WorkerCrashed)
        assert end.error.details["exit_status"] == 3
        assert [e.output_begun for e in end.lost] == [False, True, False]
        assert all(e.error is end.error for e in end.lost)
        await it.until_told(Spoke, 2)
        assert it.agent.summary.in_flight == 0


async def test_a_cancel_that_is_obeyed_ends_at_the_worker_and_the_worker_lives(kind: str) -> None:
    async with stage(kind) as it:
        exchange = it.ask("hold")
        it.agent.leave(exchange)
        assert isinstance(exchange.error, Cancelled)
        await it.until_told(Answered)
        assert it.agent.summary.in_flight == 0
        assert it.agent.state == "ready"


async def test_a_cancel_that_is_ignored_costs_the_worker_its_place(kind: str) -> None:
    async with stage(kind, deaf=True, cancel=0.01) as it:
        exchange = it.ask("hold")
        it.agent.leave(exchange)
        assert (await it.until_told(CancelIgnored)).exchange is exchange
        assert (await it.until_told(Ended)).reason is Reason.UNRESPONSIVE
        await it.until_told(Spoke, 2)
        assert it.agent.summary.failures == 0


async def test_a_worker_that_is_asked_to_end_ends_for_that_reason(kind: str) -> None:
    async with stage(kind) as it:
        held = it.ask("hold")
        it.agent.stop(ShuttingDown("now"))
        end = await it.until_told(Ended)
        assert end.reason is Reason.ASKED
        assert isinstance(held.error, ShuttingDown)
