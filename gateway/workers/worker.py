"""One worker from its spawn to its reaping: what ends it, and how it is made to end.

A worker ends for one `Reason`, the first that comes up. Its owner, the supervisor, is told once, at
the moment when nothing more can come of it; what is left of its process is ended after that. The
reading and writing of its pipes is the link's.
"""

from __future__ import annotations

import logging
import signal
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

from gateway.errors import WorkerCrashed, describe_exit, exit_sentence
from gateway.observe import logs
from gateway.workers.link import Link, invalid_response
from gateway.workers.process import SpawnError, WorkerProcess, spawn
from gateway.workers.stderr import StderrRelay
from protocol.gateway_side import WorkerState

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.sandbox.launch import Launcher
    from protocol import Ready, RemoteProtocolError

log = logging.getLogger("gateway.worker")

EXIT_AFTER_EOF = 0.5
"""Seconds from the end of stdout to the exit of the process: a process that ends closes its pipes
first and its status is known within milliseconds. One that lives on has only closed its stdout."""

KILL_WAIT = 5.0
"""Seconds from SIGKILL to the exit: only a process that waits in the kernel (a dead network file
system, say) takes longer, and nothing can be done about that one."""


class Reason(Enum):
    """Why a worker ends."""

    ASKED = "it was asked to"
    EXITED = "it exited"
    STDOUT_CLOSED = "it closed its stdout and did not exit"
    STDIN_CLOSED = "it closed its stdin and did not exit"
    VIOLATION = "it broke the protocol"
    UNRESPONSIVE = "it did not end a cancelled request"
    START_TIMEOUT = "it said nothing since its start"
    NOT_STARTED = "it could not be started"


class WorkerOwner(Protocol):
    """What a worker tells, synchronously."""

    def worker_spawned(self, worker: Worker) -> None: ...

    def worker_spoke(self, worker: Worker, ready: Ready | None) -> None: ...

    def worker_answered(self, worker: Worker, exchange: Exchange, *, served: bool) -> None: ...

    def worker_paused(self, worker: Worker, *, paused: bool) -> None: ...

    def worker_misbehaved(self, worker: Worker) -> None:
        """It broke the protocol, and is to be given nothing more."""

    def worker_cannot_wait(self, worker: Worker, exchange: Exchange) -> None:
        """The exchange was ended, because its client is too slow for it."""

    def worker_ended(self, worker: Worker, reason: Reason, error: GatewayError) -> None:
        """Nothing more comes of it. `error` is what its requests end with."""


class Worker:
    """See the module's docstring. `id` is the pool's."""

    def __init__(
        self, worker_id: int, agent: str, launcher: Launcher, owner: WorkerOwner, *, stop: float
    ) -> None:
        self.id = worker_id
        self.agent = agent
        self.link: Link | None = None
        self.mark: str | None = None
        self.reason: Reason | None = None
        self._launcher = launcher
        self._owner = owner
        self._stop_clock = stop
        self._process: WorkerProcess | None = None
        self._stderr: StderrRelay | None = None
        self._violation: RemoteProtocolError | None = None
        self._misbehaved = False
        self._ending = trio.Event()
        self._exited = trio.Event()

    def __repr__(self) -> str:
        state = "not started" if self.link is None else repr(self.link)
        return f"<Worker {self.agent}/{self.id} {state}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def spoke(self) -> bool:
        """Whether its first line has come."""
        return self.link is not None and self.link.state is not WorkerState.SILENT

    def end(self, reason: Reason) -> None:
        """Make it end. The first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._ending.set()

    async def run(self) -> None:
        """Spawn it, and return when its process has ended and was reaped.

        Cancelled, it kills the process and reaps it, within `KILL_WAIT`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            with self._launcher.launch() as launch:
                process = spawn(launch)
                self.mark = launch.mark
                release = launch.release
        except (SpawnError, OSError) as error:
            self.reason = Reason.NOT_STARTED
            logs.event(log, logging.ERROR, f"worker not started: {error}", agent=self.agent)
            self._owner.worker_ended(
                self, self.reason, WorkerCrashed(f"the worker could not be started: {error}")
            )
            return
        self._process = process
        try:
            await self._live(process)
        finally:
            # Shielded and bounded: a process is never left behind, nor waited for for ever.
            with trio.move_on_after(KILL_WAIT, shield=True):
                process.signal_group(signal.SIGKILL)
                await process.wait()
            process.close()
            release()

    async def _live(self, process: WorkerProcess) -> None:
        async with trio.open_nursery() as nursery:
            self.link = Link(process, self, nursery)
            self._stderr = StderrRelay(process.stderr, self._fields)
            nursery.start_soon(self._read_stdout, self.link)
            nursery.start_soon(self._stderr.run)
            nursery.start_soon(self._watch_exit, process)
            logs.event(log, logging.INFO, "worker started", **self._fields())
            self._owner.worker_spawned(self)
            await self._ending.wait()
            # What woke this task, an answer perhaps, has woken another that is to send it: first.
            await trio.lowlevel.checkpoint()
            if self.reason in {Reason.STDOUT_CLOSED, Reason.STDIN_CLOSED}:
                await self._exits_within(EXIT_AFTER_EOF)
            if process.returncode is not None:
                self.link.read_rest()
            self._tell_end(process)
            await self._stop(process)
            nursery.cancel_scope.cancel()

    async def _read_stdout(self, link: Link) -> None:
        await link.run()
        self.end(Reason.STDOUT_CLOSED)

    async def _watch_exit(self, process: WorkerProcess) -> None:
        await process.wait()
        self._exited.set()
        self.end(Reason.EXITED)

    async def _exits_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._exited.wait()
        return self._exited.is_set()

    async def _stop(self, process: WorkerProcess) -> None:
        """The ladder: close stdin, SIGTERM, SIGKILL, each with a bounded wait."""
        if self.reason is Reason.ASKED:
            process.close_stdin()
            if await self._exits_within(self._stop_clock):
                return
            process.signal_group(signal.SIGTERM)
            if await self._exits_within(self._stop_clock):
                return
        process.signal_group(signal.SIGKILL)
        if not await self._exits_within(KILL_WAIT):
            logs.event(log, logging.ERROR, "worker did not end on SIGKILL", **self._fields())

    def _tell_end(self, process: WorkerProcess) -> None:
        assert self.reason is not None
        assert self._stderr is not None
        if process.returncode is not None:
            self._stderr.read_rest()
        error = self._error(process, self.reason)
        unexpected = self.reason is not Reason.ASKED
        logs.event(
            log,
            logging.WARNING if unexpected else logging.INFO,
            f"worker ended: {error.message}" if unexpected else "worker is being stopped",
            **self._fields(),
            stderr="\n".join(self._stderr.tail) if unexpected and self._stderr.tail else None,
        )
        self._owner.worker_ended(self, self.reason, error)

    def _error(self, process: WorkerProcess, reason: Reason) -> GatewayError:
        if self._violation is not None:
            return invalid_response(self._violation)
        if process.returncode is None:
            return WorkerCrashed(f"the worker was ended: {reason.value}")
        status = self._launcher.exit_status(process.returncode)
        assert self._stderr is not None
        refusal = self._launcher.explain(status, self._stderr.tail)
        if refusal is not None:
            return WorkerCrashed(f"the worker could not be started: {refusal}")
        return WorkerCrashed(f"the worker {exit_sentence(status)}", **describe_exit(status))

    def _fields(self) -> dict[str, object]:
        exchanges = () if self.link is None else self.link.exchanges
        requests = ",".join(exchange.call.request_id for exchange in exchanges[:8])
        return {"agent": self.agent, "pid": self.pid, "request": requests or None}

    # LinkOwner

    def on_first_line(self, ready: Ready | None) -> None:
        self._owner.worker_spoke(self, ready)

    def on_answered(self, exchange: Exchange, *, served: bool) -> None:
        self._owner.worker_answered(self, exchange, served=served)

    def on_violation(self, error: RemoteProtocolError, *, fatal: bool, placed: bool) -> None:
        if self._misbehaved and not fatal and not placed:
            return  # it is on its way out for the first of these, and a flood of them is no news
        logs.event(log, logging.WARNING, f"protocol violation: {error.message}", **self._fields())
        if fatal:
            self._violation = error
            self.end(Reason.VIOLATION)
        if not placed:
            self._misbehaved = True
            self._owner.worker_misbehaved(self)

    def on_paused(self, *, paused: bool) -> None:
        self._owner.worker_paused(self, paused=paused)

    def on_too_far_ahead(self, exchange: Exchange) -> None:
        self._owner.worker_cannot_wait(self, exchange)

    def on_stdin_closed(self) -> None:
        self.end(Reason.STDIN_CLOSED)
