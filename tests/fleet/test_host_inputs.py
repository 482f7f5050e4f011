"""Inputs that a host checks, where a front did not know the schema of its agent."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from gateway import clock
from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import Exchange
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.messages import (
    Cancel,
    Given,
    Lines,
    Refused,
)
from gateway.workers.input_checker import InputChecker
from tests.fleet.host_scene import a_front, lines_of, submit
from tests.unit.workers import Crew


async def test_an_input_is_checked_before_its_answer_where_no_worker_had_declared_anything(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_front(Crew(ready=None)) as scene:
        checked = trio.Event()

        async def check(self: Exchange) -> None:
            self.late_check = None
            await checked.wait()

        monkeypatch.setattr(ForwardedExchange, "_check_late", check)
        scene.submit(1, "hold")
        exchange = scene.exchange(1)
        exchange.late_check = exchange.late_check or (lambda: check(exchange))
        scene.worker.answers(exchange)
        assert await scene.said() == []
        checked.set()
        assert len(lines_of(await scene.said())) == 1


@pytest.mark.parametrize("total", [math.nan, -1.0, -math.inf, math.inf, 0.0])
async def test_whatever_time_a_front_leaves_for_a_request_ends_that_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, total: float
) -> None:
    async with a_front() as scene:
        inputs = InputChecker("a", b'{"type":"number"}')  # nothing runs that would answer
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", inputs)
        scene.submit(1, "answer", total=total)
        await trio.sleep(60)
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        monkeypatch.undo()
        scene.submit(2, "answer", total=total)
        await trio.sleep(1)
        assert len(await scene.said()) > 0


class Inputs:
    """Checks inputs when it is told to: `verdict` is what is wrong, if anything."""

    def __init__(self, verdict: GatewayError | None = None) -> None:
        self.verdict = verdict
        self.asked: list[bytes] = []
        self.goes_on = trio.Event()

    async def check(self, payload: bytes, within: float) -> None:
        self.asked.append(payload)
        await self.goes_on.wait()
        if self.verdict is not None:
            raise self.verdict


async def test_an_input_is_checked_whose_front_does_not_know_the_schema_yet(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_front() as scene:
        inputs = Inputs(InvalidRequest("input: expected string", pointer="/input"))
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", inputs)
        scene.submit(1, "answer", described=1)  # by this description
        assert [type(each) for each in await scene.said()] == [Given, Lines]
        assert inputs.asked == []
        for request_id, revision in ((2, None), (3, 7)):
            scene.submit(request_id, "answer", described=revision)
        assert await scene.said() == []
        inputs.goes_on.set()
        refused = await scene.said()
        assert {(each.id, each.error.type, each.elsewhere) for each in refused} == {  # type: ignore[union-attr]
            (2, "invalid_request", False),
            (3, "invalid_request", False),
        }
        inputs.verdict = None
        scene.submit(4, "answer", described=None)
        assert [type(each) for each in await scene.said()] == [Given, Lines]


async def test_a_request_that_was_cancelled_while_its_input_is_checked_gets_no_worker(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_front() as scene:
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", Inputs())
        scene.submit(1)
        assert await scene.said() == []
        scene.front.receive([Cancel(1)])
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert refused.error.type == "cancelled"
        assert not scene.front.requests


async def test_a_request_that_was_cancelled_before_its_input_is_looked_at_gets_no_worker(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_front() as scene:
        inputs = InputChecker("a", b'{"type":"string"}')  # the first byte is enough to check it
        monkeypatch.setattr(scene.agents.agent.declared, "inputs", inputs)
        scene.front.receive([submit(1), Cancel(1)])
        [refused] = await scene.said()
        assert isinstance(refused, Refused)
        assert refused.error.type == "cancelled"
        assert not scene.front.requests


async def test_an_input_of_a_stream_is_not_checked_before_its_worker_has_spoken(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_front(Crew(ready=None)) as scene:
        checked: list[Exchange] = []

        async def check(self: Exchange) -> None:
            self.late_check = None
            checked.append(self)

        monkeypatch.setattr(ForwardedExchange, "_check_late", check)
        scene.submit(1, "hold", stream=True)
        exchange = scene.exchange(1)
        exchange.late_check = exchange.late_check or (lambda: check(exchange))
        exchange.given(clock.now(), scene.worker, worker_spoke=False)
        await scene.said()
        assert not checked
        exchange.add_words([b'"word"'], clock.now())
        [line] = lines_of(await scene.said())
        assert line["params"]["chunk"] == "word"
        assert checked == [exchange]
