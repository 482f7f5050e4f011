"""One worker over pipes without a process, which a test has say and do what it likes."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from trio.testing import wait_all_tasks_blocked

from gateway import clock
from gateway.call import Call
from gateway.config import Clocks
from gateway.exchange import Exchange
from gateway.workers.events import (
    Ended,
    Spawned,
    WorkerEvent,
)
from gateway.workers.worker import (
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
