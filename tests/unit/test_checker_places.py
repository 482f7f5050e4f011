"""One bound for the processes that check inputs of all agents, and whose turn it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from gateway.agents.dispatcher import Dispatcher
from gateway.composition.launchers import LauncherMaker, States
from gateway.composition.roster import Roster
from gateway.config import AgentSettings, Settings, Workers
from gateway.errors import InvalidRequest, Overloaded
from gateway.workers import checker_places, input_checker
from gateway.workers.checker_places import TURN_SECONDS, CheckerPlaces
from gateway.workers.input_checker import InputChecker
from protocol import Ready
from tests.unit.workers import Crew, NoLauncher

DOUBLING = {
    "$defs": {
        **{f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)},
        "a40": {"type": "integer"},
    },
    "$ref": "#/$defs/a0",
}
"""Each of them takes twice as long as the next: no input is ever checked."""


@asynccontextmanager
async def checkers(places: CheckerPlaces, **schemas: object) -> AsyncIterator[list[InputChecker]]:
    """Checkers that run, each of another agent."""
    made = [
        InputChecker(agent, json.dumps(schema).encode(), places=places)
        for agent, schema in schemas.items()
    ]
    async with trio.open_nursery() as nursery:
        for each in made:
            nursery.start_soon(each.run)
        yield made
        nursery.cancel_scope.cancel()


def count(made: list[InputChecker]) -> int:
    return sum(each.pid is not None for each in made)


def made_of(name: str, command: object) -> Any:
    """The kind of an agent's workers."""
    return Crew()


async def turn_of_the_loop() -> None:
    await trio.testing.wait_all_tasks_blocked()


# Processes


async def test_however_many_agents_there_are_so_many_processes_check_their_inputs() -> None:
    names = {f"agent{number}": {"type": "integer"} for number in range(3)}
    async with checkers(CheckerPlaces(2), **names) as made:
        for each in made * 2:
            await each.check(b"1")
            assert count(made) <= 2
            with pytest.raises(InvalidRequest):
                await each.check(b'"one"')
        assert count(made) == 2


async def test_all_that_ask_at_the_same_time_are_checked_in_the_places_that_there_are() -> None:
    names = {f"agent{number}": {"type": "integer"} for number in range(4)}
    most = 0
    async with checkers(CheckerPlaces(2), **names) as made, trio.open_nursery() as nursery:

        async def check(inputs: InputChecker) -> None:
            nonlocal most
            for _ in range(3):
                await inputs.check(b"1")
                most = max(most, count(made))

        for each in made:
            nursery.start_soon(check, each)
    assert most == 2


async def test_the_process_that_was_idle_for_longest_ends_when_another_agent_needs_one() -> None:
    schema = {"type": "integer"}
    async with checkers(CheckerPlaces(2), a=schema, b=schema, c=schema) as (a, b, c):
        for each in (a, b, a):
            await each.check(b"1")
        kept = a.pid
        await c.check(b"1")
        assert (a.pid, b.pid) == (kept, None)
        await b.check(b"1")
        assert (a.pid, b.pid is None) == (None, False)


async def test_a_schema_that_nothing_can_be_checked_by_keeps_others_waiting_for_one_input() -> None:
    answered = 0
    async with checkers(CheckerPlaces(1), bad=DOUBLING, good={"type": "integer"}) as (bad, good):

        async def check() -> None:
            nonlocal answered
            with suppress(InvalidRequest):
                await bad.check(b"1")
            answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(check)
            await turn_of_the_loop()
            await good.check(b"1")
            assert answered <= 1
            nursery.cancel_scope.cancel()


async def test_an_agent_with_always_more_to_check_lets_others_have_their_turns() -> None:
    schema = {"type": "integer"}
    async with (
        checkers(CheckerPlaces(1), busy=schema, other=schema) as (busy, other),
        trio.open_nursery() as nursery,
    ):

        async def check_on() -> None:
            while True:
                await busy.check(b"1")

        for _ in range(5):
            nursery.start_soon(check_on)
        await other.check(b"1")
        await busy.check(b"1")
        nursery.cancel_scope.cancel()


async def test_no_process_is_started_for_who_has_left_before_there_was_a_place() -> None:
    places = CheckerPlaces(1)
    async with checkers(places, a={"type": "integer"}) as (a,):
        async with places.take():
            with trio.move_on_after(0.01):
                await a.check(b"1")
        await turn_of_the_loop()
        assert a.pid is None
        assert "1 of 1 free" in repr(places)


async def test_the_agents_of_a_gateway_and_those_that_are_added_have_the_same_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checker_places, "MOST_PROCESSES", 1)
    names = ("first", "second", "added")
    agent_settings = AgentSettings(command="fake", workers=Workers(min=0))
    settings = Settings(agents=dict.fromkeys(names, agent_settings))
    dispatcher = Dispatcher()
    with ExitStack() as stack:
        states = States(settings.server, stack, serving=False)
        roster = Roster(dispatcher, LauncherMaker(states), states, kind_of_worker=made_of)
        roster.open(settings, {"first": NoLauncher(), "second": NoLauncher()})
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run)
            roster.put((await roster.start(settings, {"added": NoLauncher()})).values())
            before: InputChecker | None = None
            ready = Ready(protocol=1, handlers=("invoke",), input=b'{"type":"integer"}')
            for agent in dispatcher.agents.values():
                agent.declared.heard(ready)
                assert agent.declared.inputs is not None
                await agent.declared.inputs.check(b"1")
                assert before is None or before.pid is None
                before = agent.declared.inputs
            nursery.cancel_scope.cancel()


# Who waits


async def test_who_waits_too_long_for_a_place_is_told_what_for(autojump_clock) -> None:
    places = CheckerPlaces(1)
    async with checkers(places, a={"type": "integer"}) as (a,), places.take():
        with pytest.raises(Overloaded, match=r"agent 'a'.* 30 s: all 1 processes .* other agents"):
            await a.check(b"1")
        assert trio.current_time() == pytest.approx(input_checker.WAIT_SECONDS)


async def test_as_many_wait_for_a_place_as_may_and_those_who_left_do_not_count(
    autojump_clock,
) -> None:
    places = CheckerPlaces(1)
    async with checkers(places, a={"type": "integer"}) as (a,), places.take():
        for _ in range(3):  # each is left by all
            with trio.move_on_after(1):
                async with trio.open_nursery() as nursery:
                    for _ in range(input_checker.MOST_WAITING - 1):
                        nursery.start_soon(a.check, b"1")
                    await turn_of_the_loop()
        async with trio.open_nursery() as nursery:
            while len(a._jobs) < input_checker.MOST_WAITING:
                nursery.start_soon(a.check, b"1")
                await turn_of_the_loop()
            with pytest.raises(Overloaded, match=r"256 wait: all 1 processes"):
                await a.check(b"1")
            nursery.cancel_scope.cancel()


# Places by themselves


async def test_a_turn_goes_on_while_nobody_waits_and_ends_when_somebody_does(
    autojump_clock,
) -> None:
    places = CheckerPlaces(1)
    async with trio.open_nursery() as nursery, places.take() as place:
        await trio.sleep(10 * TURN_SECONDS)
        assert not place.turn_is_over()
        nursery.start_soon(take_and_leave, places)
        await turn_of_the_loop()
        assert place.turn_is_over()


async def test_somebody_who_waits_does_not_end_a_turn_that_has_just_begun(autojump_clock) -> None:
    places = CheckerPlaces(1)
    async with trio.open_nursery() as nursery, places.take() as place:
        nursery.start_soon(take_and_leave, places)
        await turn_of_the_loop()
        assert not place.turn_is_over()
        await trio.sleep(TURN_SECONDS)
        assert place.turn_is_over()


async def test_one_who_waits_ends_one_turn_alone(autojump_clock) -> None:
    places = CheckerPlaces(2)
    async with trio.open_nursery() as nursery, places.take() as first, places.take() as second:
        nursery.start_soon(take_and_leave, places)
        await trio.sleep(TURN_SECONDS)
        assert first.turn_is_over()
        assert not second.turn_is_over()
        nursery.start_soon(take_and_leave, places)
        await turn_of_the_loop()
        assert second.turn_is_over()


async def test_what_becomes_idle_while_somebody_waits_is_ended_at_once(autojump_clock) -> None:
    places = CheckerPlaces(1)
    async with trio.open_nursery() as nursery, places.take() as place:
        nursery.start_soon(take_and_leave, places)
        await turn_of_the_loop()
        assert not await place.idle_until(trio.Event(), 60)
        assert trio.current_time() == 0


async def test_work_that_comes_when_a_place_is_given_up_waits_for_the_next_turn(
    autojump_clock,
) -> None:
    places = CheckerPlaces(1)
    work = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            async with places.take() as place:
                assert not await place.idle_until(work, 60)

        nursery.start_soon(serve)
        await turn_of_the_loop()
        work.set()  # and in the same turn of the loop:
        await take_and_leave(places)


async def test_a_place_is_free_again_for_the_next_one_whoever_has_left_meanwhile(
    autojump_clock,
) -> None:
    places = CheckerPlaces(1)
    async with places.take() as place:
        with trio.move_on_after(TURN_SECONDS):
            await take_and_leave(places)  # waits in vain
        assert not place.turn_is_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_and_leave, places)
            await turn_of_the_loop()
            assert place.turn_is_over()
            nursery.cancel_scope.cancel()
    async with places.take() as place:
        assert "0 of 1 free" in repr(places)
        assert not place.turn_is_over()


async def take_and_leave(places: CheckerPlaces) -> None:
    async with places.take():
        pass
