"""One worker over a process that is none: the ladder, and how it ends, in virtual time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Clocks
from gateway.errors import InvalidAgentResponse, WorkerCrashed
from gateway.sandbox.launch import Launch
from gateway.sandbox.symptoms import STATE_SIZE, LimitError
from gateway.workers.events import (
    Answered,
    Ended,
    HalfClosed,
    Reason,
    Retires,
    Spawned,
    Spoke,
    WorkerEvent,
)
from gateway.workers.process import SpawnError
from gateway.workers.worker import (
    EXIT_AFTER_EOF,
    FOLDER_SECONDS,
    KILL_WAIT,
    NETWORK_SECONDS,
    Worker,
)
from tests.unit.worker_scene import READY, FakeProcess, WorkerScene, result, scene
from tests.unit.workers import NoLauncher


async def test_what_a_worker_says_is_reported_in_order() -> None:
    async with scene() as it:
        await it.says(READY)
        exchange = it.send()
        (number,) = it.ids
        await it.says(result(number))
        assert [type(event) for event in it.events] == [Spawned, Spoke, Answered]
        assert exchange.result == b"1"


@pytest.mark.parametrize(
    ("dies_of", "steps"),
    [
        ({"eof"}, [(0, "stdin closed")]),
        ({signal.SIGTERM}, [(0, "stdin closed"), (5, "SIGTERM")]),
        ({signal.SIGKILL}, [(0, "stdin closed"), (5, "SIGTERM"), (10, "SIGKILL")]),
    ],
)
async def test_a_worker_that_is_asked_to_end_goes_down_the_ladder(
    dies_of: set[object], steps: list[tuple[float, str]], autojump_clock: MockClock
) -> None:
    it = WorkerScene(stop=5)
    it.process.dies_of = dies_of
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.worker.run)
        await wait_all_tasks_blocked()
        it.worker.end(Reason.ASKED)
    assert it.process.steps == steps
    assert it.end.reason is Reason.ASKED


async def test_a_process_that_survives_sigkill_is_not_waited_for_without_end(
    autojump_clock: MockClock,
) -> None:
    it = WorkerScene()
    it.process.dies_of = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.worker.run)
        await wait_all_tasks_blocked()
        it.worker.end(Reason.UNRESPONSIVE)
    assert trio.current_time() <= 3 * KILL_WAIT
    assert it.end.reason is Reason.UNRESPONSIVE


async def test_what_lies_in_the_pipe_when_a_worker_exits_still_counts() -> None:
    async with scene() as it:
        await it.says(READY)
        answered, lost = it.send(), it.send()
        first, _ = it.ids
        it.process.says(result(first))
        it.process.exits(3)
    assert answered.result == b"1"
    assert it.end.lost == (lost,)
    assert it.end.error.details["exit_status"] == 3


async def test_requests_that_no_process_has_read_are_told_apart() -> None:
    async with scene() as it:
        await it.says(READY)
        read = it.send()
        assert it.ids
        unread = it.send()
        it.process.exits(-9)
    assert it.end.lost == (read, unread)
    assert it.end.unread == (unread,)
    assert it.end.error.details["signal"] == "SIGKILL"


@pytest.mark.parametrize("closes", ["stdout", "stdin"])
async def test_a_worker_that_closes_a_pipe_has_a_moment_to_exit(
    closes: str, autojump_clock: MockClock
) -> None:
    async with scene() as it:
        await it.says(READY)
        began = trio.current_time()
        if closes == "stdout":
            it.process.closes_stdout()
        else:
            os.close(it.process.their_stdin)
            it.process.their_stdin = os.open(os.devnull, os.O_RDONLY)
            it.send()
        await trio.sleep(EXIT_AFTER_EOF + 0.1)
        assert it.end.reason.name == f"{closes.upper()}_CLOSED"
        assert it.process.steps[0] == (pytest.approx(began + EXIT_AFTER_EOF), "SIGKILL")


async def test_a_line_that_cannot_be_placed_ends_the_worker_and_is_what_its_requests_are_told() -> (
    None
):
    async with scene() as it:
        await it.says(READY)
        exchange = it.send()
        await it.says(b"Segmentation fault\n")
        assert it.end.reason is Reason.VIOLATION
        assert isinstance(it.end.error, InvalidAgentResponse)
        assert it.end.lost == (exchange,)
        assert it.process.steps[0][1] == "SIGKILL"


async def test_nothing_is_reported_after_the_end(autojump_clock: MockClock) -> None:
    async with scene(cancel=1) as it:
        it.process.dies_of = set()
        await it.says(READY)
        exchange = it.send()
        it.worker.cancel(exchange)
        it.worker.end(Reason.UNRESPONSIVE)
        await it.says(b"nonsense\n")
        await trio.sleep(2)
        assert it.end.lost == (exchange,)


async def test_a_command_that_cannot_be_started_is_an_end_without_a_beginning() -> None:
    events: list[WorkerEvent] = []

    def refuse(_: Launch) -> FakeProcess:
        raise SpawnError("command not found: 'x'")

    worker = Worker(
        1, "a", NoLauncher(), lambda _, e: events.append(e), clocks=Clocks(), spawn=refuse
    )
    await worker.run()
    (end,) = events
    assert isinstance(end, Ended)
    assert end.reason is Reason.NOT_STARTED
    assert isinstance(end.error, WorkerCrashed)
    assert "command not found: 'x'" in end.error.message


async def test_a_worker_that_a_limit_does_not_let_start_names_the_limit() -> None:
    events: list[WorkerEvent] = []

    class Full(NoLauncher):
        @contextmanager
        def launch(self, conversation: str | None = None) -> Iterator[Launch]:
            raise LimitError(STATE_SIZE)
            yield

    await Worker(1, "a", Full(), lambda _, e: events.append(e), clocks=Clocks()).run()
    (end,) = events
    assert isinstance(end, Ended)
    assert end.reason is Reason.NOT_STARTED
    assert end.error.message == (
        "the worker could not be started: the state folder holds more than state.size allows"
    )
    assert end.error.details == {"limit": "state", "setting": "state.size"}


async def test_a_worker_whose_run_is_cancelled_is_killed_and_reaped() -> None:
    it = WorkerScene()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.worker.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert it.process.steps[0][1] == "SIGKILL"
    assert it.process.returncode == -9


async def test_the_end_of_a_crash_is_logged_with_the_last_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", logger="gateway"):
        async with scene() as it:
            await it.says(READY)
            it.send()
            it.process.complains(b"Traceback\nValueError: no\n")
            it.process.exits(1)
    (record,) = [r for r in caplog.records if r.message.startswith("worker ended")]
    assert record.message == "worker ended: the worker exited with status 1"
    assert record.fields["stderr"] == "Traceback\nValueError: no"  # type: ignore[attr-defined]
    assert record.fields["request"] == "r-1"  # type: ignore[attr-defined]


def stop_reading(it: WorkerScene) -> None:
    os.close(it.process.their_stdin)
    it.process.their_stdin = os.open(os.devnull, os.O_RDONLY)


async def test_a_worker_that_closes_its_stdin_may_finish_what_it_has_read() -> None:
    async with scene() as it:
        await it.says(READY)
        read = it.send()
        (number,) = it.ids
        stop_reading(it)
        unread = [it.send(), it.send()]
        assert it.events[2:] == [HalfClosed((unread[0],)), HalfClosed((unread[1],))]
        assert it.worker.exchanges == (read,)
        await it.says(result(number))
        assert read.result == b"1"
        # It may not answer what it was not given.
        await it.says(result(number + 0))
        assert not any(exchange.ended for exchange in unread)
        assert not any(isinstance(event, Ended) for event in it.events)


async def test_a_request_that_is_cut_off_in_its_middle_is_lost_and_costs_nothing_else() -> None:
    async with scene() as it:
        await it.says(READY)
        read = it.send()
        it.process.was_told()
        large = it.send(payload=b'"%b"' % (b"x" * 3_000_000))
        assert len(os.read(it.process.their_stdin, 1000)) == 1000, "a part of it"
        stop_reading(it)
        await wait_all_tasks_blocked()
        assert isinstance(large.error, WorkerCrashed)
        assert "in the middle" in large.error.message
        assert it.events[2:] == [HalfClosed(()), Answered(large, False)]
        assert not read.ended


class InFolder(NoLauncher):
    """A launcher whose workers have a folder that may become too large."""

    full = False

    @contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        yield Launch(("fake",), {}, too_large=lambda: self.full)


async def test_a_worker_whose_folder_has_become_too_large_is_ended(
    autojump_clock: MockClock,
) -> None:
    it = WorkerScene()
    launcher = it.worker._launcher = InFolder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.worker.run)
        await wait_all_tasks_blocked()
        await it.says(READY)
        exchange = it.send()
        await trio.sleep(3 * FOLDER_SECONDS)
        assert not any(isinstance(event, Ended) for event in it.events)
        launcher.full = True
    assert it.end.reason is Reason.OVER_STATE
    assert it.end.lost == (exchange,)
    assert it.end.error.details["setting"] == "state.size"
    assert "state.size" in it.end.error.message


class Served(NoLauncher):
    """A launcher whose workers have a network, which a process serves that has the other end."""

    def __init__(self, lifeline: int) -> None:
        self._lifeline = lifeline

    @contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        yield Launch(("fake",), {}, lifelines=(self._lifeline,))


async def test_a_worker_whose_network_nobody_serves_any_more_finishes_and_is_replaced(
    autojump_clock: MockClock,
) -> None:
    it = WorkerScene()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        it.worker._launcher = Served(ours.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.worker.run)
            await wait_all_tasks_blocked()
            await it.says(READY)
            it.send()
            await trio.sleep(60)
            assert Retires() not in it.events
            theirs.close()
            await trio.sleep(2 * NETWORK_SECONDS)
            assert Retires() in it.events
            assert not any(isinstance(event, Ended) for event in it.events), "it may finish"
            it.process.exits(0)
