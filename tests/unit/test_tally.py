"""What the metrics are told of an agent: its supervisor's plain values, in virtual time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from gateway.agents.dispatcher import Dispatcher
from gateway.errors import WorkerCrashed
from gateway.observe.metrics.distribution import Distribution
from gateway.sandbox.network.audit import Record
from gateway.sandbox.network.metering import Meter
from gateway.workers.events import Reason
from tests.unit.workers import AgentScene, Crew, running


async def test_starts_ends_and_states_of_workers_are_told() -> None:
    async with running(AgentScene(workers={"max": 3})) as it:
        it.ask("hold")
        reading = it.agent.reading
        assert (reading.name, reading.starts, reading.in_flight, reading.waiting) == ("a", 1, 1, 0)
        assert (reading.max_workers, reading.queue) == (3, 100)
        assert {state for state, holds in reading.states.items() if holds} == {"ready"}
        assert {state: n for state, n in reading.workers.items() if n} == {"busy": 1}
        assert not any(reading.ends.values())
        it.crew[1].ends(Reason.EXITED)
        await trio.testing.wait_all_tasks_blocked()
        reading = it.agent.reading
        assert {reason: n for reason, n in reading.ends.items() if n} == {"exited": 1}
        assert reading.starts == 2
        assert {state: n for state, n in reading.workers.items() if n} == {"idle": 1}
        assert sum(reading.start_seconds.counts) == 2


async def test_a_process_that_has_exited_is_no_closed_pipe() -> None:
    for error, counted in (
        (WorkerCrashed("it exited", exit_status=3), "exited"),
        (WorkerCrashed("it was killed", signal="SIGSEGV"), "exited"),
        (WorkerCrashed("it closed its stdout and did not exit"), "stdout_closed"),
    ):
        async with running(AgentScene()) as it:
            it.crew[1].ends(Reason.STDOUT_CLOSED, error=error)
            await trio.testing.wait_all_tasks_blocked()
            ends = it.agent.reading.ends
            assert {reason: n for reason, n in ends.items() if n} == {counted: 1}


async def test_the_time_of_a_start_is_until_the_first_word(autojump_clock: MockClock) -> None:
    async with running(AgentScene(Crew(ready=None))) as it:
        await trio.sleep(0.2)
        it.crew[1].speaks()
        distribution = it.agent.reading.start_seconds
        assert distribution.total == 0.2
        assert distribution.counts[distribution.bounds.index(0.25)] == 1


async def test_a_reading_does_not_change_later() -> None:
    async with running(AgentScene()) as it:
        before = it.agent.reading
        it.crew[1].ends(Reason.VIOLATION)
        await trio.testing.wait_all_tasks_blocked()
        assert before.ends["violation"] == 0
        assert sum(before.start_seconds.counts) == 1


async def test_open_streams_are_counted_until_their_callers_have_had_their_ends() -> None:
    async with running(AgentScene()) as it:
        dispatcher = Dispatcher({"a": it.agent})
        stream = dispatcher.submit(it.call("answer", stream=True))
        dispatcher.leave(dispatcher.submit(it.call("answer")))
        assert stream.ended
        assert dispatcher.open_streams == {"a": 1}
        dispatcher.leave(stream)
        assert not dispatcher.open_streams


def test_a_value_on_a_bound_counts_below_it() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 2.0, 3.0):
        distribution.add(value)
    assert distribution.counts == [2, 1, 1]
    assert distribution.total == 6.5


def test_services_that_no_setting_names_are_one_entry() -> None:
    meter = Meter()
    for name in ("openai", "made", "up"):
        record = Record(
            at="service", verdict="allowed", name=name, tokens_in=10, tokens_out=5, sent=7
        )
        meter.add(record, 0.0)
    services, network = meter.read(["openai", "unused"], 0.0)
    assert {name: sum(each.requests.values()) for name, each in services.items()} == {
        "openai": 1,
        "unused": 0,
        "(others)": 2,
    }
    assert services["(others)"].tokens == {"input": 20, "output": 10}
    assert services["(others)"].sent == 14
    assert not any(network.requests.values())
