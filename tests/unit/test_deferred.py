"""A worker that starts with its first request, as a pool and a supervisor see it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from gateway.agents.supervisor import AgentSupervisor
from gateway.call import Call
from gateway.config import AgentSettings, Clocks, Workers
from gateway.errors import AgentFailed, WorkerCrashed
from gateway.exchange import Exchange
from gateway.sandbox.launch import Launch
from gateway.workers.deferred import DeferredWorker
from gateway.workers.events import Ended, Reason, Spawned, WorkerEvent
from tests.unit.workers import NoLauncher


class Refusing(NoLauncher):
    """Has no folder for anybody; notes who asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    @contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        self.asked.append(conversation)
        raise OSError(errno.EDQUOT, "too large", "/folder")
        yield


def exchange(conversation: str | None = "ada") -> Exchange:
    call = Call(
        agent="a",
        method="invoke",
        payload=b"1",
        stream=False,
        request_id="r",
        conversation=conversation,
    )
    return Exchange(call, Clocks(), trio.current_time())


def deferred(launcher: Any) -> tuple[DeferredWorker, list[WorkerEvent]]:
    events: list[WorkerEvent] = []
    worker = DeferredWorker(
        1, "a", launcher, lambda _, event: events.append(event), clocks=Clocks()
    )
    return worker, events


async def test_it_is_there_at_once_and_starts_for_the_conversation_of_its_first_request() -> None:
    launcher = Refusing()
    worker, events = deferred(launcher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        assert events == [Spawned()]
        assert launcher.asked == []
        assert (worker.pid, worker.spoke, worker.exchanges) == (None, False, ())
        first = exchange()
        worker.send(first)
        assert worker.exchanges == (first,)
    assert launcher.asked == ["ada"]
    # Nothing was spawned: that is the request's trouble, and no other worker is tried.
    _, end = events
    assert isinstance(end, Ended)
    assert end.reason is Reason.NOT_STARTED
    assert (end.lost, end.unread) == ((first,), ())
    assert worker.exchanges == ()


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_it_ends_without_a_start_if_nobody_needs_it(how: str) -> None:
    launcher = Refusing()
    worker, events = deferred(launcher)
    first = exchange()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        if how == "cancel":
            worker.send(first)
            worker.cancel(first)
        else:
            worker.end(Reason.ASKED)
    assert launcher.asked == []
    _, end = events
    assert isinstance(end, Ended)
    assert end.reason is Reason.ASKED
    assert end.lost == end.unread == ((first,) if how == "cancel" else ())


@asynccontextmanager
async def supervised(launcher: Any) -> AsyncIterator[AgentSupervisor]:
    settings = AgentSettings(
        command="x", session="exclusive", state=True, workers=Workers(min=0, max=2)
    )
    supervisor = AgentSupervisor("a", settings, launcher, new_worker=DeferredWorker)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        yield supervisor
        supervisor.stop(AgentFailed("over"))


async def test_a_conversation_without_a_folder_does_not_take_its_agent_out_of_service(
    autojump_clock: object,
) -> None:
    launcher = Refusing()
    async with supervised(launcher) as supervisor:
        for _ in range(12):  # more than open the breaker
            asked = supervisor.submit(exchange().call)
            await asked.collect()
            assert isinstance(asked.error, WorkerCrashed)
            assert "too large" in asked.error.message
        assert supervisor.state.value == "cold"
    assert launcher.asked == ["ada"] * 12
