"""Background runs at a host, with fake workers and a JetStream that a test plays."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import clock
from gateway.errors import InvalidRequest
from gateway.fleet.background import AwayError, Outcome, Store
from gateway.fleet.host.jobs import AWAY_SECONDS, Jobs
from gateway.fleet.messages import Submit
from gateway.fleet.subjects import Peer
from tests.fleet.host_scene import Scene, a_front, submit
from tests.fleet.test_host_inputs import Inputs

HOST = Peer("host", "0")


class Kept(Store):
    """Jobs that are there to be taken."""

    def __init__(self) -> None:
        super().__init__(None, "gw", ttl=60)  # type: ignore[arg-type]  # asks nobody
        self.waiting: list[Submit] = []
        self.taken: list[Submit] = []
        self.ended: list[Outcome] = []
        self.asked = 0
        self.away = False
        self.unread = 0
        """How often the job that was taken cannot be read."""

    async def take(self, agent: str, host: str) -> str | None:
        self.asked += 1
        if self.away:
            raise AwayError
        if not self.waiting:
            return None
        self.taken.append(self.waiting.pop(0))
        return "t"

    async def job(self, agent: str, token: str) -> Submit | None:
        if self.unread:
            self.unread -= 1
            raise AwayError
        return self.taken.pop(0)

    async def has_ended(self, agent: str, token: str) -> bool:
        return False

    async def finish(self, agent: str, token: str, outcome: Outcome) -> None:
        self.ended.append(outcome)


@asynccontextmanager
async def a_host(**options: Any) -> AsyncIterator[tuple[Scene, Kept]]:
    async with a_front(**options) as scene, trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        kept = Kept()
        jobs = Jobs(scene.bus, kept, HOST, scene.dispatcher, see=scene.judge.see)  # type: ignore[arg-type]
        nursery.start_soon(jobs.run)
        await wait_all_tasks_blocked()
        yield scene, kept
        nursery.cancel_scope.cancel()


def leave(scene: Scene, kept: Kept, job: Submit) -> None:
    """As a front does."""
    kept.waiting.append(job)
    scene.nats.bus("front").publish(kept.hint("a"), b"t")


async def test_what_cannot_be_submitted_ends_its_run_and_not_the_host(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_host() as (scene, kept):

        def submits(*_: Any) -> Any:
            raise RuntimeError("a defect")

        with monkeypatch.context() as patch:
            patch.setattr(scene.dispatcher, "submit", submits)
            leave(scene, kept, submit(1))
            await trio.sleep(1)
        [outcome] = kept.ended
        assert outcome.error is not None
        assert outcome.error.type == "internal_error"
        leave(scene, kept, submit(2))
        await trio.sleep(1)
        assert kept.ended[1].error is None


async def test_a_job_s_input_is_checked_by_what_this_host_s_workers_declare(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_host() as (scene, kept):
        inputs = Inputs(InvalidRequest("input: expected string"))
        inputs.goes_on.set()
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", inputs)
        leave(scene, kept, submit(1, total=math.nan))
        await trio.sleep(1)
        [outcome] = kept.ended
        assert outcome.error is not None
        assert outcome.error.type == "invalid_request"
        assert not outcome.handed_over


async def test_what_waits_while_jetstream_is_away_is_taken_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    """Nobody says that it is: the connection to NATS may have lived on."""
    async with a_host() as (scene, kept):
        await trio.sleep(1)
        kept.away = True
        kept.asked = 0
        leave(scene, kept, submit(1))
        await trio.sleep(10 * AWAY_SECONDS)
        assert 9 <= kept.asked <= 11
        kept.away = False
        await trio.sleep(2 * AWAY_SECONDS)
        assert len(kept.ended) == 1
        kept.asked = 0
        await trio.sleep(60)
        assert kept.asked == 0


async def test_a_job_that_was_taken_is_read_once_jetstream_answers_again(
    autojump_clock: MockClock,
) -> None:
    """No other host runs it, so this one may not forget it."""
    async with a_host() as (scene, kept):
        kept.unread = 20
        leave(scene, kept, submit(1))
        await trio.sleep(60)
        [outcome] = kept.ended
        assert outcome.error is None


async def test_a_job_that_is_cancelled_while_its_input_is_checked_is_not_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_host() as (scene, kept):
        inputs = Inputs()
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", inputs)
        leave(scene, kept, submit(1))
        await trio.sleep(1)
        assert len(inputs.asked) == 1
        scene.nats.bus("front").publish(kept.stop("a"), b"t")
        await trio.sleep(1)
        inputs.goes_on.set()
        await trio.sleep(1)
        [outcome] = kept.ended
        assert outcome.error is not None
        assert outcome.error.type == "cancelled"
        assert not outcome.handed_over
