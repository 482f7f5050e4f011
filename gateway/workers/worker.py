"""One worker from its spawn to its reaping: what ends it, and how it is made to end.

A worker ends for one `Reason`, the first that comes up. It reports what happens as events
(`workers.events`), the last of which, `Ended`, is reported at the moment when nothing more can come
of it; what is left of its process is ended after that. The link reads and writes its pipes, and
nobody else knows the link.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Protocol

import trio

from gateway import clock, readiness
from gateway.errors import ClockRanOut, WorkerCrashed, describe_exit, exit_sentence
from gateway.observe import logs
from gateway.sandbox.symptoms import MEMORY, STATE_SIZE, limit_in
from gateway.workers.events import (
    Answered,
    CancelIgnored,
    Ended,
    HalfClosed,
    ReadsSilently,
    Reason,
    Retires,
    Spawned,
)
from gateway.workers.failures import invalid_response
from gateway.workers.link import Link
from gateway.workers.link_events import FellBehind, InputClosed, LinkEvent, Violated
from gateway.workers.memory import exceeds
from gateway.workers.priority import lower_when_greedy
from gateway.workers.process import SpawnError, spawn
from gateway.workers.stderr import StderrRelay, fields_of
from protocol.gateway_side import GatewayConnection, WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Clocks
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.sandbox.launch import Launch, Launcher
    from gateway.sandbox.symptoms import Diagnosis
    from gateway.workers.events import WorkerEvent
    from protocol import RemoteProtocolError

log = logging.getLogger("gateway.worker")

EXIT_AFTER_EOF = 0.5
"""Seconds from the end of stdout to the exit of the process: a process that ends closes its pipes
first and its status is known within milliseconds. One that lives on has only closed its stdout."""

KILL_WAIT = 5.0
"""Seconds from SIGKILL to the exit: only a process that waits in the kernel (a dead network file
system, say) takes longer, and nothing can be done about that one."""

FOLDER_SECONDS = 1.0
"""Between two looks at whether the worker's folder was found to be too large."""

NETWORK_SECONDS = 1.0
"""From the end of a process of the network to the end of its workers: one that ends at each start
must not have the machine do nothing but start workers."""

_LIMITS = {Reason.OVER_MEMORY: MEMORY, Reason.OVER_STATE: STATE_SIZE}

_FIRST_LOOK = 0.1
"""Seconds until the first look at whether a worker that has not spoken has read its request. Each
look comes twice as late as the one before, so that they are few."""


class Process(Protocol):
    """A spawned process, as `workers.process.WorkerProcess` is one."""

    pid: int
    stdin: int
    stdout: int
    stderr: int

    @property
    def returncode(self) -> int | None: ...

    async def register(self) -> None: ...

    async def wait(self) -> int: ...

    def signal_group(self, number: signal.Signals) -> None: ...

    def unread_input(self) -> int: ...

    def close_stdin(self) -> None: ...

    def close(self) -> None: ...


class Worker:
    """One worker of an agent; `report` takes its events.

    `clocks` are the agent's: `cancel` and `stop` run here. `conversation` is whose folder it has,
    where each conversation has one. `run` must be running for anything to happen; requests may be
    sent from `Spawned` to `Ended`.
    """

    def __init__(
        self,
        worker_id: int,
        agent: str,
        launcher: Launcher,
        report: Callable[[int, WorkerEvent], None],
        *,
        clocks: Clocks,
        spawn: Callable[[Launch], Process] = spawn,
        connect: Callable[[], GatewayConnection] = GatewayConnection,
        conversation: str | None = None,
    ) -> None:
        self.id = worker_id
        self.agent = agent
        self.began_at = clock.now()
        self.mark: str | None = None
        self._launcher = launcher
        self._report = report
        self._clocks = clocks
        self._conversation = conversation
        self._spawn = spawn
        self._connect = connect
        self._process: Process | None = None
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        self._stderr: StderrRelay | None = None
        self._reason: Reason | None = None
        self._violation: RemoteProtocolError | None = None
        self._misbehaved = False
        self._told_end = False
        self._launch: Launch | None = None
        self._ending = trio.Event()
        self._exited = trio.Event()

    def __repr__(self) -> str:
        state = "not started" if self._link is None else repr(self._link)
        return f"<Worker {self.agent}/{self.id} {state}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def spoke(self) -> bool:
        """Whether the worker's first line has come."""
        return self._link is not None and self._link.state is not WorkerState.SILENT

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines that the worker has written to its stderr."""
        return () if self._stderr is None else self._stderr.tail

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The requests that the worker still owes an answer to, oldest first."""
        return () if self._link is None or self._told_end else self._link.exchanges

    def has_read(self, exchange: Exchange) -> bool:
        """As `gateway.exchange.Carrier.has_read`."""
        return self._link is not None and self._link.has_read(exchange)

    def catch_up(self) -> None:
        """As `gateway.exchange.Carrier.catch_up`."""
        if self._link is not None:
            self._link.catch_up()

    def send(self, exchange: Exchange) -> None:
        """Send a request to the worker."""
        assert self._link is not None, f"{self} was given a request before it was spawned"
        sent = self._link.send(exchange)
        if self._launch is not None and self._launch.serves is not None:
            self._launch.serves(exchange.call.request_id, alone=len(self.exchanges) == 1)
        if sent and not self.spoke and self._nursery is not None:
            self._nursery.start_soon(self._look_whether_it_reads, exchange)

    def cancel(self, exchange: Exchange) -> None:
        """Tell the worker that nobody waits for a request, which has ended, any more.

        A worker that has not ended the request within the `cancel` clock is reported
        (`CancelIgnored`); one that has used up its `start` clock with it ends.
        """
        answered = None if self._link is None else self._link.cancel(exchange)
        if answered is None:
            return
        if isinstance(exchange.error, ClockRanOut) and exchange.error.clock == "start":
            self.end(Reason.START_TIMEOUT)
        elif self._nursery is not None:
            self._nursery.start_soon(self._grant_grace, exchange, answered)

    def end(self, reason: Reason) -> None:
        """Make the worker end. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._ending.set()
            if reason is not Reason.ASKED:
                self._tell(Retires())  # it may take a moment to its end

    async def run(self) -> None:
        """Spawn the worker, and return when its process has ended and was reaped. When cancelled,
        kill the process and reap it, within `KILL_WAIT`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            with self._launcher.launch(self._conversation) as launch:
                process = self._spawn(launch)
                self._launch = launch
                self.mark = launch.mark
        except (SpawnError, OSError) as error:
            self._report_not_started(error)
            return
        self._process = process
        try:
            await process.register()
            await self._live(process, launch)
        except SpawnError as error:
            self._report_not_started(error)
        finally:
            # Shielded and bounded: a process is never left behind, nor waited for for ever.
            with trio.move_on_after(KILL_WAIT, shield=True):
                process.signal_group(signal.SIGKILL)
                await process.wait()
            process.close()
            launch.release()

    def _report_not_started(self, error: SpawnError | OSError) -> None:
        logs.event(log, logging.ERROR, f"worker not started: {error}", agent=self.agent)
        failure = WorkerCrashed(f"the worker could not be started: {error}", **limit_in(error))
        self._report(self.id, Ended(Reason.NOT_STARTED, failure))

    def _tell(self, event: WorkerEvent) -> None:
        """Report an event, unless the end of the worker has been reported."""
        if not self._told_end:
            self._report(self.id, event)

    async def _live(self, process: Process, launch: Launch) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._link = link = Link(process, nursery, self._receive, self._diagnose, self._connect)
            self._stderr = StderrRelay(process.stderr, self._fields, link)
            nursery.start_soon(self._read_stdout, link)
            nursery.start_soon(self._stderr.run)
            nursery.start_soon(self._watch_exit, process)
            if launch.watched_memory:
                nursery.start_soon(self._watch_memory, process.pid, launch.watched_memory)
            if launch.too_large is not None:
                nursery.start_soon(self._watch_folder, launch.too_large)
            for lifeline in launch.lifelines:
                nursery.start_soon(self._watch_network, lifeline)
            if not launch.shares_cpus:
                nursery.start_soon(lower_when_greedy, process.pid, self._tell_priority)
            logs.event(log, logging.INFO, "worker started", **self._fields())
            self._tell(Spawned())
            await self._ending.wait()
            # What woke this task, an answer perhaps, has woken another that is to send it: first.
            await trio.lowlevel.checkpoint()
            if self._reason in {Reason.STDOUT_CLOSED, Reason.STDIN_CLOSED}:
                await self._exits_within(EXIT_AFTER_EOF)
            exited = process.returncode is not None
            if not exited and self._reason is not Reason.ASKED:
                # Before it is looked at what the worker has read: a living one may read on.
                process.signal_group(signal.SIGKILL)
                await self._exits_within(EXIT_AFTER_EOF)
            if process.returncode is not None:
                link.read_rest()
            self._tell_end(process, link, exited=exited)
            await self._stop(process)
            nursery.cancel_scope.cancel()

    def _diagnose(self, text: str) -> Diagnosis | None:
        return self._launcher.diagnose([text], started=True)

    async def _read_stdout(self, link: Link) -> None:
        await link.run()
        self.end(Reason.STDOUT_CLOSED)

    def _receive(self, event: LinkEvent) -> None:
        """What the link reports."""
        if isinstance(event, Violated):
            self._receive_violation(event)
        elif isinstance(event, FellBehind):
            self.cancel(event.exchange)
        elif isinstance(event, InputClosed):
            self._receive_input_closed()
        else:
            self._tell(event)

    def _receive_violation(self, violated: Violated) -> None:
        if self._misbehaved and not violated.fatal and not violated.placed:
            return  # the worker is ending for the first of these, and a flood of them is no news
        message = f"protocol violation: {violated.error.message}"
        logs.event(log, logging.WARNING, message, **self._fields())
        if violated.fatal:
            self._violation = violated.error
            self.end(Reason.VIOLATION)
        if not violated.placed:
            self._misbehaved = True
            self._tell(Retires())

    def _receive_input_closed(self) -> None:
        """The worker takes no more input. It may finish what it has read, and ends if that is
        nothing."""
        if self._reason is not None:
            return  # the worker ends anyway
        assert self._link is not None
        unread, cut_off = self._link.unread(), self._link.cut_off()
        if len(unread) + len(cut_off) == len(self._link.exchanges):
            self.end(Reason.STDIN_CLOSED)
            return
        for exchange in (*unread, *cut_off):
            self._link.withdraw(exchange)
        self._tell(HalfClosed(unread))
        for exchange in cut_off:
            exchange.fail(WorkerCrashed("the worker closed its stdin in the middle of the request"))
            self._tell(Answered(exchange, served=False))

    async def _look_whether_it_reads(self, exchange: Exchange) -> None:
        """Notice that the worker reads before it speaks, which ends its start as a word does."""
        seconds = _FIRST_LOOK
        await trio.sleep(seconds)
        while not self.spoke and exchange.carrier is self:
            if self.has_read(exchange):
                exchange.worker_started(clock.now())
                self._tell(ReadsSilently())
                return
            await trio.sleep(seconds)
            seconds *= 2

    async def _grant_grace(self, exchange: Exchange, answered: trio.Event) -> None:
        """Give the worker time to end a request that was cancelled."""
        grace = self._clocks.seconds("cancel")
        if not await clock.wait_within(answered, grace) and self._link is not None:
            self._link.catch_up()
        # Looked at after the wait: both may happen in one turn of the loop.
        if answered.is_set():
            return
        logs.event(
            log,
            logging.WARNING,
            f"worker did not end a cancelled request within the 'cancel' clock of {grace:g} s",
            agent=self.agent,
            pid=self.pid,
            request=exchange.call.request_id,
        )
        self._tell(CancelIgnored(exchange))

    async def _watch_exit(self, process: Process) -> None:
        await process.wait()
        self._exited.set()
        self.end(Reason.EXITED)

    async def _watch_memory(self, pid: int, limit: int) -> None:
        """Hold the memory limit, where the kernel does not."""
        used = await exceeds(pid, limit)
        message = f"worker is ended: it holds {used} bytes, and sandbox.memory allows {limit}"
        logs.event(log, logging.WARNING, message, **self._fields())
        self.end(Reason.OVER_MEMORY)

    def _tell_priority(self, busy: int, level: int) -> None:
        message = f"worker keeps {busy} threads busy: its priority is lowered (nice {level})"
        logs.event(log, logging.WARNING, message, **self._fields())

    async def _watch_folder(self, too_large: Callable[[], bool]) -> None:
        while not too_large():  # noqa: ASYNC110 - the sandbox knows of no tasks to wake
            await trio.sleep(FOLDER_SECONDS)
        self.end(Reason.OVER_STATE)

    async def _watch_network(self, lifeline: int) -> None:
        """Have the worker replaced once nobody serves its network, which no other process can."""
        await readiness.hung_up(lifeline)
        await trio.sleep(NETWORK_SECONDS)
        message = "worker is replaced: a process that served its network has ended"
        logs.event(log, logging.WARNING, message, **self._fields())
        self._tell(Retires())

    async def _exits_within(self, seconds: float) -> bool:
        return await clock.wait_within(self._exited, seconds)

    async def _stop(self, process: Process) -> None:
        """The ladder: close stdin, SIGTERM, SIGKILL, each with a bounded wait."""
        if self._reason is Reason.ASKED:
            patience = self._clocks.seconds("stop")
            process.close_stdin()
            if await self._exits_within(patience):
                return
            process.signal_group(signal.SIGTERM)
            if await self._exits_within(patience):
                return
        process.signal_group(signal.SIGKILL)
        if not await self._exits_within(KILL_WAIT):
            logs.event(log, logging.ERROR, "worker did not end on SIGKILL", **self._fields())

    def _tell_end(self, process: Process, link: Link, *, exited: bool) -> None:
        assert self._reason is not None
        assert self._stderr is not None
        if process.returncode is not None:
            self._stderr.read_rest()
        error = self._error(process, self._reason, exited=exited)
        unexpected = self._reason is not Reason.ASKED
        logs.event(
            log,
            logging.WARNING if unexpected else logging.INFO,
            f"worker ended: {error.message}" if unexpected else "worker is being stopped",
            **self._fields(),
            stderr="\n".join(self._stderr.tail) if unexpected and self._stderr.tail else None,
        )
        self._told_end = True
        self._report(self.id, Ended(self._reason, error, link.exchanges, link.unread()))

    def _error(self, process: Process, reason: Reason, *, exited: bool) -> GatewayError:
        """What the worker's requests end with. `exited`: before anything was done about it."""
        if self._violation is not None:
            return invalid_response(self._violation)
        if reason in _LIMITS:
            return WorkerCrashed(
                f"the worker was ended: {reason.value}",
                limit=_LIMITS[reason].limit,
                setting=_LIMITS[reason].setting,
            )
        if process.returncode is None or not exited:
            return WorkerCrashed(f"the worker was ended: {reason.value}")
        assert self._stderr is not None
        status, said = self._launcher.exit_status(process.returncode), self._stderr.tail
        # Only of one that has not run: the agent itself may print what it likes.
        has_run = self.spoke or any(map(self.has_read, self.exchanges))
        refusal = None if has_run else self._launcher.explain(status, said)
        if refusal is not None:
            return WorkerCrashed(f"the worker could not be started: {refusal}")
        found = None
        if status and self._launch is not None and self._launch.out_of_memory():
            found = MEMORY
        elif status:
            found = self._launcher.diagnose(said, started=self.spoke)
        sentence = f"the worker {exit_sentence(status)}"
        if found is None:
            return WorkerCrashed(sentence, **describe_exit(status))
        return WorkerCrashed(
            f"{sentence}: {found.sentence}",
            **describe_exit(status),
            limit=found.limit,
            setting=found.setting,
        )

    def _fields(self) -> dict[str, object]:
        return fields_of(self.agent, self.pid, self.exchanges)
