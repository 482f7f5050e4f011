"""One agent: carries out what its pool decides, with real workers, and says how the agent is.

# Theory of operation

Three kinds of things happen to an agent: requests come and are left (`submit`, `leave`), its
workers tell what happened to them (`workers.events`), and time passes. Each is one *step*: a
synchronous function that changes the pool and the exchanges, and at once carries out the plan that
the pool returns. Steps are taken one after the other and never within one another: what a worker
reports is a value in the inbox, and if a step is under way (a worker that was just sent a request
may report at once), the inbox is worked off when it is over. So no step sees the state half
changed: when a worker ends, the pool has condemned it and its requests have been failed or queued
again before the next decision about who is free.

What takes time is asynchronous and follows from a plan: each worker's life is a task in the nursery
of `run`, and two more tasks keep the time and watch the memory. `run` returns when the agent was
stopped and its last worker was reaped.

Which requests there are is known to the pool (those that wait) and to the workers (those that they
have); nothing here keeps a list of its own.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from gateway import clock
from gateway.agents.alarm import Alarm
from gateway.agents.blame import Blame, blame_of
from gateway.agents.declared import Declared
from gateway.agents.growth import watch_growth
from gateway.agents.pool import Pool
from gateway.agents.pool_types import Plan, RefusedError, Stage
from gateway.agents.refusals import as_error, unavailable
from gateway.agents.restart import RestartPolicy
from gateway.agents.status import (
    AgentState,
    AgentStatus,
    AgentSummary,
    LastFailure,
    LimitMet,
    agent_state,
    describe,
    setting_for,
    summarize,
    worker_statuses,
)
from gateway.agents.tally import Tally
from gateway.call import Call
from gateway.errors import Cancelled, GatewayError, WorkerCrashed
from gateway.exchange import Exchange
from gateway.observe import logs
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
)
from gateway.workers.memory import measure_all
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.agents.agent import Agent
    from gateway.agents.pool_types import PoolWorker
    from gateway.agents.supervised import SupervisedWorker, WorkerFactory
    from gateway.config import AgentSettings
    from gateway.observe.metrics.readings import AgentReading
    from gateway.sandbox.launch import Launcher
    from gateway.workers.checker_places import CheckerPlaces
    from gateway.workers.events import WorkerEvent

log = logging.getLogger("gateway.worker")

MAX_FAILED_STARTS = 2
"""How many workers that fail to start a request is given to before its caller is told. A worker
that had started and left the request unread does not count: another serves it."""

Decision: TypeAlias = "Callable[..., Plan[Exchange] | None]"
"""A method of the pool."""

_LEFT_UNREAD = WorkerCrashed("the worker closed its stdin before it had read the request")


class AgentSupervisor:
    """See the module's docstring. `run` must be running while anything else is called.

    `on_gone` is called whenever a worker has been reaped.
    """

    def __init__(
        self,
        name: str,
        settings: AgentSettings,
        launcher: Launcher,
        *,
        on_gone: Callable[[], None] = lambda: None,
        new_worker: WorkerFactory = Worker,
        checker_places: CheckerPlaces | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.launcher = launcher
        self.tried = trio.Event()
        """Set once a worker has spoken, or has failed: see `why_not_started`."""
        self._on_gone = on_gone
        self._new_worker = new_worker
        self._restart = RestartPolicy(settings.restart, agent=name)
        self._pool: Pool[Exchange] = Pool(settings, self._restart)
        self._workers: dict[int, SupervisedWorker] = {}
        self._inbox: deque[tuple[int, WorkerEvent]] = deque()
        self._in_step = False
        self._nursery: trio.Nursery | None = None
        self._alarm = Alarm(lambda: self._step(self._pool.tick, clock.now()))
        self._stopped = trio.Event()
        self.declared = Declared(name, checker_places)
        self._tally = Tally()
        self.last_failure: LastFailure | None = None
        self._has_owners = False
        """Whether callers have keys, and so what one was answered is not for another."""
        self.last_limit: LimitMet | None = None

    def __repr__(self) -> str:
        return f"<AgentSupervisor {self.name} {self.state.value} {self._pool}>"

    # The agent's own life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the agent until `stop` was called and every worker has ended. Starts none itself."""
        async with trio.open_nursery() as workers:
            self._nursery = workers
            async with trio.open_nursery() as clocks:
                clocks.start_soon(self._alarm.run)
                await clocks.start(self.declared.run)
                if not math.isinf(self.settings.max_rss_bytes):
                    most = self.settings.max_rss_bytes
                    clocks.start_soon(watch_growth, self.pids, most, self._replace_outgrown)
                task_status.started()
                await self._stopped.wait()
                clocks.cancel_scope.cancel()

    def warm_up(self) -> None:
        """Start the workers that are always kept."""
        self._step(self._pool.tick, clock.now())

    def inherit(self, other: Agent) -> None:
        """As `Agent.inherit`."""
        assert isinstance(other, AgentSupervisor)
        self._pool.inherit(other._pool)

    def wind_down(self) -> None:
        """End each worker as soon as it has no request. Those that come are served still."""
        self._step(self._pool.wind_down, clock.now())

    def displace(self, session: str) -> None:
        """As `Agent.displace`."""
        self._step(self._pool.displace, session, clock.now())

    def drain(self) -> None:
        """Admit nothing more; what is running goes on."""
        self._pool.drain()

    def stop(self, error: GatewayError) -> None:
        """End what is still running with `error`, and every worker in the order of the ladder."""
        for exchange in self.exchanges:
            exchange.fail(error)
        for worker in self._workers.values():
            worker.end(Reason.ASKED)
        self._step(self._pool.stop, clock.now())
        self._stopped.set()

    # Requests

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Every request that waits or is at a worker."""
        at_workers = (worker.exchanges for worker in self._workers.values())
        return (*self._pool.queue, *(exchange for each in at_workers for exchange in each))

    def submit(self, call: Call, new: Callable[..., Exchange] = Exchange) -> Exchange:
        """Admit a request, and give it to a worker if one is free. Raises GatewayError."""
        now = clock.now()
        late = self.declared.check(call) if self._pool.stage is Stage.SERVING else None
        exchange = new(call, self.settings.clocks, now, self.settings.session_by, late)
        self._has_owners = bool(call.owner)
        try:
            self._step(self._pool.submit, exchange, now)
        except RefusedError as refused:
            raise as_error(refused, self.name, self._pool.waiting, self.last_failure) from None
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """Nobody waits for a request any more: if it has not ended at its worker, cancel it."""
        if exchange.worker_id is not None:
            exchange.fail(Cancelled())
            self._workers[exchange.worker_id].cancel(exchange)
        elif self._pool.is_waiting(exchange):
            exchange.fail(Cancelled())
            self._step(self._pool.finish, exchange, clock.now(), served=False)

    # Steps: what happened, the pool's decision, and what is done about it

    def _step(self, decide: Decision, *args: Any, **options: Any) -> None:
        """Have the pool decide, carry that out, and then work off what came in meanwhile.

        Raises what `decide` raises.
        """
        assert not self._in_step, f"{decide} within another step of {self.name}"
        self._in_step = True
        try:
            self._carry_out(decide(*args, **options))
        finally:
            self._in_step = False
        if self._inbox:
            self._work_off()

    def receive(self, worker_id: int, event: WorkerEvent) -> None:
        """What a worker reports: handled at once, or after the step that is under way."""
        if self._in_step:
            self._inbox.append((worker_id, event))
            return
        self._in_step = True
        try:
            self._handle(worker_id, event)
        finally:
            self._in_step = False
        if self._inbox:
            self._work_off()

    def _work_off(self) -> None:
        self._in_step = True
        try:
            while self._inbox:
                self._handle(*self._inbox.popleft())
        finally:
            self._in_step = False

    def _handle(self, worker_id: int, event: WorkerEvent) -> None:
        now = clock.now()
        pool = self._pool
        match event:
            case Answered(exchange, served):
                if exchange.error is not None:
                    self._note_limit(exchange.error)
                self._carry_out(pool.finish(exchange, now, served=served))
            case Spawned():
                self._carry_out(pool.spawned(worker_id, now))
            case Spoke(ready):
                self.declared.heard(ready)
                self._tally.spoke(now - self._workers[worker_id].began_at)
                self.tried.set()
                capacity = 1 if ready is None else ready.concurrency
                self._carry_out(pool.ready(worker_id, capacity, now))
            case ReadsSilently():
                self._carry_out(pool.reads_silently(worker_id, now))
            case Paused(paused):
                self._carry_out(pool.pause(worker_id, paused=paused, now=now))
            case Retires():
                self._carry_out(pool.retire(worker_id, now))
            case HalfClosed(unread):
                self._handle_half_close(worker_id, unread, now)
            case CancelIgnored(exchange):
                self._handle_ignored_cancel(worker_id, exchange, now)
            case Ended():
                self._handle_end(worker_id, event, now)

    def _handle_ignored_cancel(self, worker_id: int, exchange: Exchange, now: float) -> None:
        worker = self._workers[worker_id]
        self._carry_out(self._pool.retire(worker_id, now))
        if all(each is exchange or each.worker_id != worker_id for each in worker.exchanges):
            worker.end(Reason.UNRESPONSIVE)
        # Else others are in flight on it, and it is stopped with the last of them.
        self._carry_out(self._pool.finish(exchange, now, served=False))

    def _handle_half_close(self, worker_id: int, unread: tuple[Exchange, ...], now: float) -> None:
        again = self._take_back(unread, unread, _LEFT_UNREAD, now)
        self._carry_out(self._pool.take_back(worker_id, now, unread=unread, again=again))

    def _take_back(
        self,
        lost: tuple[Exchange, ...],
        unread: tuple[Exchange, ...],
        error: GatewayError,
        now: float,
    ) -> list[Exchange]:
        """End the requests that a worker has lost, but for those that another may be given."""
        for exchange in unread:
            exchange.queued_again(now)
        again = [exchange for exchange in unread if self._may_try_again(exchange)]
        for exchange in lost:
            if exchange not in again:
                exchange.fail(error.unquoted() if exchange.call.owner else error)
        return again

    def _handle_end(self, worker_id: int, end: Ended, now: float) -> None:
        self._tally.ended(end)
        served = any(w.id == worker_id and w.served for w in self._pool.workers)
        blame = blame_of(end, served=served)
        if blame is Blame.AGENT:
            for exchange in end.unread:
                exchange.failed_starts += 1
        again = self._take_back(end.lost, end.unread, end.error, now)
        if blame is not Blame.NOBODY or end.reason in {Reason.OVER_MEMORY, Reason.OVER_STATE}:
            pid = self._workers[worker_id].pid
            error = end.error.unquoted() if self._has_owners else end.error
            self.last_failure = LastFailure(
                message=error.message, at=time.time(), pid=pid, setting=setting_for(error)
            )
            self._note_limit(end.error)
            self.tried.set()
        plan = self._pool.condemn(worker_id, now, blame=blame, lost=end.lost, unread=again)
        self._carry_out(plan)
        if end.reason is Reason.NOT_STARTED:
            given_up, plan = self._pool.give_up_waiting(now)
            for exchange in given_up:
                exchange.fail(end.error)
            self._carry_out(plan)

    def _note_limit(self, error: GatewayError) -> None:
        self.last_limit = LimitMet.of(error, time.time()) or self.last_limit

    def _may_try_again(self, exchange: Exchange) -> bool:
        """Whether another worker may be given a request that its worker has not read."""
        # A worker that answers what it has not read is not to be followed by another's answer.
        untouched = not (exchange.ended or exchange.output_begun)
        stopping = self._pool.stage is Stage.STOPPING
        return untouched and not stopping and exchange.failed_starts < MAX_FAILED_STARTS

    def _carry_out(self, plan: Plan[Exchange] | None) -> None:
        if plan is None:
            return
        now = clock.now()
        for exchange, worker_id in plan.assign:
            worker = self._workers[worker_id]
            exchange.given(now, worker, worker_spoke=worker.spoke)
            worker.send(exchange)
        for worker_id in plan.start:
            worker = self._new_worker(
                worker_id, self.name, self.launcher, self.receive, clocks=self.settings.clocks
            )
            self._workers[worker_id] = worker
            assert self._nursery is not None
            self._nursery.start_soon(self._run_worker, worker_id, worker)
        for worker_id in plan.stop:
            self._workers[worker_id].end(Reason.ASKED)
        for exchange in plan.unavailable:
            retry_after = max(1.0, self._restart.start_at - now)
            exchange.fail(unavailable(self.name, self.last_failure, retry_after))
        self._alarm.set(plan.wake_at)

    async def _run_worker(self, worker_id: int, worker: SupervisedWorker) -> None:
        ended = False
        try:
            await worker.run()
            ended = True
        finally:
            now = clock.now()
            if not ended:
                # Cancelled: what would be started instead would only be ended again, for ever.
                self._step(self._pool.stop, now)
            del self._workers[worker_id]
            self._on_gone()
            self._step(self._pool.gone, worker_id, now)

    def _replace_outgrown(self, worker_id: int, used: int) -> None:
        """Retire a worker that holds more than `max_rss`."""
        if any(worker.id == worker_id and worker.alive for worker in self._pool.workers):
            message = f"worker is replaced: it holds {used} bytes, over max_rss"
            pid = self._workers[worker_id].pid
            logs.event(log, logging.INFO, message, agent=self.name, pid=pid)
            self._step(self._pool.retire, worker_id, clock.now())

    # Status

    @property
    def stage(self) -> Stage:
        return self._pool.stage

    @property
    def workers(self) -> tuple[PoolWorker[Exchange], ...]:
        """Those that have not been reaped, as the pool sees them."""
        return self._pool.workers

    @property
    def started(self) -> int:
        """How many workers were ever started."""
        return self._pool.started

    @property
    def why_not_started(self) -> str | None:
        """What became of the first worker, if it failed and none has spoken since."""
        failed = self.last_failure if self._restart.failing else None
        return None if failed is None else failed.message

    @property
    def state(self) -> AgentState:
        return agent_state(self._pool, self._restart, clock.now())

    def pids(self) -> dict[int, int | None]:
        """The pid of each worker that has not been reaped, None before its spawn, by its id."""
        return {worker_id: worker.pid for worker_id, worker in self._workers.items()}

    @property
    def processes(self) -> Iterator[tuple[int, str | None]]:
        """The pid and the mark of every worker that has not been reaped, and of the launcher's."""
        for pid in (*self.launcher.processes(), *self.declared.processes):
            yield pid, None
        for worker in self._workers.values():
            if worker.pid is not None:
                yield worker.pid, worker.mark

    @property
    def summary(self) -> AgentSummary:
        """The agent's entry in the list of all."""
        ready = self.declared.ready
        return summarize(
            self.name, self.settings, ready, pool=self._pool, restart=self._restart, now=clock.now()
        )

    async def status(self) -> AgentStatus:
        """Everything about the agent, its workers' memory included."""
        memory = await measure_all(self.pids())
        return describe(
            self.summary,
            self.settings,
            self.declared,
            workers=worker_statuses(self._pool, self.pids(), memory, clock.now()),
            started=self._pool.started,
            last_failure=self.last_failure,
            last_limit=self.last_limit,
            sandbox=self.launcher.describe(),
            traffic=self.launcher.traffic(),
        )

    @property
    def reading(self) -> AgentReading:
        """What the metrics are told."""
        return self._tally.read(self.name, self.settings, self.state, self._pool, self.launcher)
