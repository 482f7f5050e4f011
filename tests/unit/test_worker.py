"""One worker over a process that is none: the ladder, the graces and the ends, in virtual time."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import clock
from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import ClockRanOut, InvalidAgentResponse, WorkerCrashed
from gateway.exchange import Exchange
from gateway.sandbox.launch import Launch
from gateway.sandbox.symptoms import STATE_SIZE, LimitError
from gateway.workers.events import (
    Answered,
    CancelIgnored,
    Ended,
    HalfClosed,
    ReadsSilently,
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
from tests.unit.workers import NoLauncher

READY = b'{"method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":4}}\n'


class FakeProcess:
    """Real pipes and no process. Dies of the signals that are in `dies_of`, and of nothing else."""

    def __init__(self) -> None:
        self.pid = 7
        self.their_stdin, self.stdin = os.pipe()
        self.stdout, self.their_stdout = os.pipe()
        self.stderr, self.their_stderr = os.pipe()
        for descriptor in (self.stdin, self.stdout, self.stderr, self.their_stdin):
            os.set_blocking(descriptor, False)
        self.returncode: int | None = None
        self.dies_of: set[object] = {"eof", signal.SIGTERM, signal.SIGKILL}
        self.steps: list[tuple[float, str]] = []
        self._began = trio.current_time()
        self._exited = trio.Event()

    def says(self, *lines: bytes) -> None:
        os.write(self.their_stdout, b"".join(lines))

    def complains(self, text: bytes) -> None:
        os.write(self.their_stderr, text)

    def was_told(self) -> list[dict[str, object]]:
        with suppress(BlockingIOError):
            return [json.loads(line) for line in os.read(self.their_stdin, 1_000_000).splitlines()]
        return []

    def exits(self, returncode: int) -> None:
        if self.returncode is None:
            self.returncode = returncode
            self.closes_stdout()
            self._exited.set()

    def closes_stdout(self) -> None:
        if self.their_stdout >= 0:
            os.close(self.their_stdout)
            self.their_stdout = -1

    def _step(self, what: str) -> None:
        self.steps.append((round(trio.current_time() - self._began, 6), what))

    # What a worker does with it

    async def register(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait(self) -> int:
        await self._exited.wait()
        assert self.returncode is not None
        return self.returncode

    def signal_group(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._step(number.name)
            if number in self.dies_of:
                self.exits(-number)

    def unread_input(self) -> int:
        size = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, size)
        return size[0]

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            self._step("stdin closed")
            trio.lowlevel.notify_closing(self.stdin)
            os.close(self.stdin)
            self.stdin = -1
            if "eof" in self.dies_of:
                self.exits(0)

    def close(self) -> None:
        self.close_stdin()
        for descriptor in (self.stdout, self.stderr, self.their_stdin, self.their_stderr):
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)
        self.closes_stdout()


class WorkerScene:
    def __init__(self, **clocks: float) -> None:
        self.events: list[WorkerEvent] = []
        self.process = FakeProcess()
        self.worker = Worker(
            1,
            "a",
            NoLauncher(),
            lambda _, event: self.events.append(event),
            clocks=Clocks(**{"stop": 5, "cancel": 5, **clocks}),
            spawn=lambda _: self.process,
        )
        self.requests = 0

    def send(self, *, stream: bool = False, payload: bytes = b"1", **clocks: float) -> Exchange:
        self.requests += 1
        call = Call(
            agent="a",
            method="invoke",
            payload=payload,
            stream=stream,
            request_id=f"r-{self.requests}",
        )
        exchange = Exchange(call, Clocks(**clocks), clock.now())
        exchange.given(clock.now(), self.worker, worker_spoke=self.worker.spoke)
        self.worker.send(exchange)
        return exchange

    async def says(self, *lines: bytes) -> None:
        self.process.says(*lines)
        await wait_all_tasks_blocked()

    @property
    def ids(self) -> list[object]:
        return [message["id"] for message in self.process.was_told() if "id" in message]

    @property
    def end(self) -> Ended:
        (end,) = [event for event in self.events if isinstance(event, Ended)]
        assert self.events[-1] is end, "the end is the last thing that is reported"
        return end


@asynccontextmanager
async def scene(**clocks: float) -> AsyncIterator[WorkerScene]:
    it = WorkerScene(**clocks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.worker.run)
        await wait_all_tasks_blocked()
        assert it.events == [Spawned()]
        yield it
        it.process.exits(0)


def result(number: object) -> bytes:
    return b'{"id":%d,"result":{"output":1}}\n' % number


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


@pytest.mark.parametrize("reads_at", [0, 0.05, 0.15, 1, 7, 29])
async def test_a_worker_that_reads_and_says_nothing_has_started(
    reads_at: float, autojump_clock: MockClock
) -> None:
    async with scene() as it:
        exchange = it.send(start=60, first=1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.receive)
            await trio.sleep(reads_at)
            assert it.ids
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "first"
        assert exchange.error.details["elapsed"] == pytest.approx(1)
        # From the look that found it; a look comes twice as late as the one before.
        assert reads_at + 1 <= trio.current_time() - began <= max(2 * reads_at, 0.1) + 1.001
        assert it.events == [Spawned(), ReadsSilently()]


async def test_a_worker_that_does_not_read_has_until_the_end_of_its_start(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=60, first=1)
        await exchange.receive()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "start"
        assert exchange.error.details["elapsed"] == pytest.approx(60)
        assert it.events == [Spawned()]


async def test_a_worker_that_reads_is_not_late_by_what_the_gateway_stood_still(
    mock_clock: MockClock,
) -> None:
    async with scene() as it, trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        exchange = it.send(start=60, first=1)
        (number,) = it.ids
        await wait_all_tasks_blocked()
        nursery.start_soon(exchange.receive)
        mock_clock.jump(1000)  # over the look and both clocks
        await wait_all_tasks_blocked()
        assert not exchange.ended
        await it.says(result(number))
        assert exchange.result == b"1"
        nursery.cancel_scope.cancel()


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


async def test_a_late_line_is_reported_once_and_the_worker_serves_what_it_has() -> None:
    async with scene() as it:
        await it.says(READY)
        it.send()
        (number,) = it.ids
        await it.says(result(number), result(number), result(number))
        assert it.events[2:] == [Answered(it.events[2].exchange, True), Retires()]  # type: ignore[union-attr]


async def test_a_cancel_that_is_obeyed_in_time_has_no_consequence(
    autojump_clock: MockClock,
) -> None:
    async with scene(cancel=5) as it:
        await it.says(READY)
        exchange = it.send()
        (number,) = it.ids
        it.worker.cancel(exchange)
        it.worker.cancel(exchange)
        assert [m["method"] for m in it.process.was_told()] == ["cancel"]
        await trio.sleep(4.9)
        await it.says(result(number))
        await trio.sleep(10)
        assert not any(isinstance(event, CancelIgnored) for event in it.events)


async def test_a_cancel_that_is_ignored_is_reported_when_its_clock_has_run_out(
    autojump_clock: MockClock,
) -> None:
    async with scene(cancel=5) as it:
        await it.says(READY)
        exchange = it.send()
        it.worker.cancel(exchange)
        await trio.sleep(4.9)
        assert CancelIgnored(exchange) not in it.events
        await trio.sleep(0.2)
        assert it.events[-1] == CancelIgnored(exchange)


async def test_a_worker_that_used_up_its_start_clock_ends_with_the_request(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=2)
        await exchange.collect()
        it.worker.cancel(exchange)
        await wait_all_tasks_blocked()
        assert it.end.reason is Reason.START_TIMEOUT


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


# A worker that takes no more input


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


# A gateway that stood still


async def test_an_answer_that_lay_in_the_pipe_while_the_gateway_stood_still_is_in_time(
    mock_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        async with scene() as it:
            await it.says(READY)
            exchange = it.send(first=3)
            (number,) = it.ids
            nursery.start_soon(exchange.collect)
            await wait_all_tasks_blocked()
            it.process.says(result(number))
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
            assert exchange.result == b"1"
        nursery.cancel_scope.cancel()


async def test_time_in_which_the_gateway_stood_still_is_nobodys(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep)
        async with scene(cancel=5) as it:
            await it.says(READY)
            cancelled, exchange = it.send(), it.send(first=3)
            it.worker.cancel(cancelled)
            nursery.start_soon(exchange.collect)
            await wait_all_tasks_blocked()
            for _ in range(3):
                mock_clock.jump(100)
                await wait_all_tasks_blocked()
            assert not exchange.ended
            assert not any(isinstance(event, CancelIgnored) for event in it.events)
            for _ in range(6):
                mock_clock.jump(1)
                await wait_all_tasks_blocked()
            assert isinstance(exchange.error, ClockRanOut)
            assert exchange.error.clock == "first"
            assert it.events[-1] == CancelIgnored(cancelled)
        nursery.cancel_scope.cancel()


async def test_a_bare_worker_that_has_taken_its_request_has_started(
    autojump_clock: MockClock,
) -> None:
    async with scene() as it:
        exchange = it.send(start=2, first=10)
        assert it.ids, "it reads the request"
        with trio.move_on_after(3):
            await exchange.collect()
        assert not exchange.ended
        await exchange.collect()
        assert isinstance(exchange.error, ClockRanOut)
        assert exchange.error.clock == "first"
        assert exchange.error.details["elapsed"] == pytest.approx(10)


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
