"""Workers without processes, for what supervises them, and what makes any worker act.

A request's input says what its worker is to do: "answer", "hold" it, "die", or "speak", which is
one chunk and no end. `FakeWorker` answers within `send`, which is the hardest moment for a
supervisor; `tests/agents/puppet.py` does the same as a process.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from gateway import clock
from gateway.agents.supervisor import AgentSupervisor
from gateway.call import Call
from gateway.config import AgentSettings, Clocks, Restart, Workers
from gateway.config.services import Service
from gateway.errors import GatewayError, ShuttingDown, WorkerCrashed
from gateway.exchange import Exchange
from gateway.sandbox.launch import Launch, Launcher
from gateway.sandbox.network.metering import Meter, RecordReader
from gateway.sandbox.symptoms import Diagnosis, diagnose
from gateway.workers.events import (
    Answered,
    CancelIgnored,
    Ended,
    HalfClosed,
    Paused,
    ReadsSilently,
    Reason,
    Retires,
    Spawned,
    Spoke,
    WorkerEvent,
)
from protocol import Ready

READY = Ready(protocol=1, handlers=("invoke",), concurrency=8)

Report = Callable[[int, WorkerEvent], None]


class NoCarrier:
    """Carries nothing; what its worker would have `read` is up to the test."""

    def __init__(self, *, read: bool = False) -> None:
        self.read = read
        self.caught_up = 0

    spoke = True
    pid = None

    def has_read(self, exchange: Exchange) -> bool:
        del exchange
        return self.read

    def catch_up(self) -> None:
        self.caught_up += 1


class NoLauncher:
    """A launcher for workers that are no processes."""

    services: Sequence[Service] = ()
    state = None

    @contextmanager
    def launch(self, conversation: str | None = None) -> Iterator[Launch]:
        yield Launch(("fake",), {})

    def exit_status(self, returncode: int) -> int:
        return returncode

    def explain(self, exit_status: int, stderr_tail: Sequence[str]) -> str | None:
        del exit_status, stderr_tail
        return None

    def diagnose(self, texts: Sequence[str], *, started: bool) -> Diagnosis | None:
        return diagnose(texts, network=False, started=started)

    def describe(self) -> dict[str, Any]:
        return {"level": "off"}

    def traffic(self) -> dict[str, Any]:
        return {"network": {"requests": 1}}

    def processes(self) -> Sequence[int]:
        return ()

    def keep_from(self, ports: Sequence[int]) -> None:
        pass

    def records(self) -> Sequence[RecordReader]:
        return ()

    @property
    def meter(self) -> Meter:
        return Meter()

    def close(self) -> None:
        pass


class FakeWorker:
    """A worker that does what its requests say, and what the test says. `deaf`: to cancels."""

    pid = None
    mark = None

    def __init__(
        self,
        worker_id: int,
        agent: str,
        launcher: Launcher,
        report: Report,
        *,
        clocks: Clocks,
        ready: Ready | None = READY,
        deaf: bool = False,
        leaves_unread: Collection[str] = (),
    ) -> None:
        del agent, launcher
        self.id = worker_id
        self.began_at = clock.now()
        self.spoke = False
        self.given: list[str] = []
        """The ids of all requests that the worker was ever sent."""
        self.cancelled: list[str] = []
        self.leaves_unread = set(leaves_unread)
        self.reason: Reason | None = None
        self.reaps = trio.Event()
        self._report_to = report
        self._clocks = clocks
        self._ready = ready
        self._deaf = deaf
        self._exchanges: list[Exchange] = []
        self._told_end = False
        self._ending = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        return tuple(self._exchanges)

    def _report(self, event: WorkerEvent) -> None:
        if not self._told_end:
            self._told_end = isinstance(event, Ended)
            self._report_to(self.id, event)

    # What the supervisor does with it

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._report(Spawned())
            if self._ready is not None:
                self.speaks()
            await self._ending.wait()
            self.ends()
            self._nursery.cancel_scope.cancel()
        await self.reaps.wait()

    def has_read(self, exchange: Exchange) -> bool:
        return exchange.call.request_id not in self.leaves_unread

    def catch_up(self) -> None:
        pass

    def send(self, exchange: Exchange) -> None:
        self.given.append(exchange.call.request_id)
        self._exchanges.append(exchange)
        if not self.spoke and self.has_read(exchange):
            self._report(ReadsSilently())
        match json.loads(bytes(exchange.call.payload)):
            case "answer":
                self.answers(exchange)
            case "speak":
                exchange.add_words([b'"word"'], trio.current_time())
            case "die":
                self.end(Reason.EXITED)

    def cancel(self, exchange: Exchange) -> None:
        if exchange not in self._exchanges or exchange.call.request_id in self.cancelled:
            return
        self.cancelled.append(exchange.call.request_id)
        if not self._deaf:
            self.answers(exchange, served=True)
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._grant_grace, exchange)

    async def _grant_grace(self, exchange: Exchange) -> None:
        await trio.sleep(self._clocks.seconds("cancel"))
        self._report(CancelIgnored(exchange))

    def end(self, reason: Reason) -> None:
        if self.reason is None:
            self.reason = reason
            self._ending.set()

    # What the test has it do

    def speaks(self, ready: Ready | None = READY) -> None:
        self.spoke = True
        for exchange in self._exchanges:
            exchange.worker_started(trio.current_time())
        self._report(Spoke(ready))

    def answers(self, exchange: Exchange, *, served: bool = True) -> None:
        self._exchanges.remove(exchange)
        exchange.end(b'"answer"')
        self._report(Answered(exchange, served))

    def pauses(self, *, paused: bool = True) -> None:
        self._report(Paused(paused))

    def half_closes(self, unread: Sequence[Exchange]) -> None:
        for exchange in unread:
            self._exchanges.remove(exchange)
        self._report(HalfClosed(tuple(unread)))

    def misbehaves(self) -> None:
        self._report(Retires())

    def ends(
        self,
        reason: Reason | None = None,
        *,
        error: GatewayError | None = None,
        unread: Sequence[Exchange] = (),
    ) -> None:
        """Its end, whatever it has; it is reaped when the test sets `reaps`, or at once."""
        self.end(reason or Reason.EXITED)
        assert self.reason is not None
        error = error or WorkerCrashed("the worker exited with status 3", exit_status=3)
        lost, self._exchanges = tuple(self._exchanges), []
        self._report(Ended(self.reason, error, lost, tuple(unread)))


class Crew:
    """Makes fake workers, and keeps them by their number, from 1."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.slow_to_reap = False
        self.workers: dict[int, FakeWorker] = {}

    def __call__(self, worker_id: int, *args: Any, **options: Any) -> FakeWorker:
        worker = FakeWorker(worker_id, *args, **options, **self.options)
        if not self.slow_to_reap:
            worker.reaps.set()
        self.workers[worker_id] = worker
        return worker

    def __getitem__(self, number: int) -> FakeWorker:
        return self.workers[number]


class AgentScene:
    """One supervised agent with fake workers; `run` must be running."""

    def __init__(
        self,
        crew: Crew | None = None,
        *,
        clocks: dict[str, Any] | None = None,
        restart: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.crew = crew or Crew()
        workers = {"min": 1, "max": 1, **settings.pop("workers", {})}
        self.settings = AgentSettings(
            command="fake",
            workers=Workers(**workers),
            clocks=Clocks(**(clocks or {})),
            restart=Restart(**(restart or {})),
            **settings,
        )
        self.agent = AgentSupervisor("a", self.settings, NoLauncher(), new_worker=self.crew)
        self._requests = 0

    def call(self, wish: str, *, stream: bool = False, conversation: str | None = None) -> Call:
        self._requests += 1
        return Call(
            agent="a",
            method="invoke",
            payload=json.dumps(wish).encode(),
            stream=stream,
            conversation=conversation,
            request_id=f"r-{self._requests}",
        )

    def ask(self, wish: str = "hold", **options: Any) -> Exchange:
        return self.agent.submit(self.call(wish, **options))


@asynccontextmanager
async def running(scene: AgentScene) -> AsyncIterator[AgentScene]:
    """Run the scene's agent until the end of the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.agent.run)
        scene.agent.warm_up()
        await wait_all_tasks_blocked()
        yield scene
        for worker in scene.crew.workers.values():
            worker.reaps.set()
        scene.agent.stop(ShuttingDown("the test has ended"))
