"""One agent: carries out what its pool decides, with real workers, and tells the truth about it.

Every method that changes something is synchronous: it changes the pool, and does at once what the
pool's plan says. The tasks that follow from it (a worker's life, a grace period) belong to the
nursery of `run`.
"""

from __future__ import annotations

import logging
import math
import time
from copy import copy
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from gateway.agents.pool import CircuitOpenError, Plan, Pool, QueueFullError, WorkerPhase
from gateway.agents.restart import Breaker, RestartPolicy
from gateway.errors import (
    AgentUnavailable,
    Cancelled,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    Overloaded,
    ShuttingDown,
)
from gateway.exchange import Call, Exchange
from gateway.observe import logs
from gateway.workers.memory import resident_bytes
from gateway.workers.worker import Reason, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.config import AgentSettings
    from gateway.sandbox.launch import Launcher
    from protocol import Ready

log = logging.getLogger("gateway.agent")

MAX_ATTEMPTS = 2
"""Workers that a request is given to, when the first ended before it can have read it: an agent
that dies at every start would otherwise be tried for ever."""

RSS_CHECK_SECONDS = 5.0
"""Between two looks at the workers' memory, where it has a limit."""


class AgentSupervisor:
    """See the module's docstring. `run` must be running while anything else is called."""

    def __init__(
        self,
        name: str,
        settings: AgentSettings,
        launcher: Launcher,
        *,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._launcher = launcher
        self._on_gone = on_gone
        self._restart = RestartPolicy(settings.restart)
        self._pool: Pool[Exchange] = Pool(settings, self._restart)
        self._workers: dict[int, Worker] = {}
        self._at: dict[Exchange, Worker] = {}
        self._graces: dict[Exchange, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._wake_at = math.inf
        self._wake_scope: trio.CancelScope | None = None
        self._empty = trio.Event()
        self._draining = False
        self._stopping = False
        self._last_failure: dict[str, Any] | None = None
        self.ready: Ready | None = None

    def __repr__(self) -> str:
        return f"<AgentSupervisor {self.name} {self.state} {self._pool}>"

    # Its own life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the agent until `stop` was called and every worker has ended."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._apply(self._pool.tick(trio.current_time()))
            nursery.start_soon(self._keep_time)
            if not math.isinf(self.settings.max_rss_bytes):
                nursery.start_soon(self._watch_memory)
            task_status.started()
            await self._empty.wait()
            nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Admit nothing more; what is running goes on."""
        self._draining = True

    def stop(self, error: GatewayError) -> None:
        """End what is still running with `error`, and every worker in the order of the ladder."""
        self._draining = True
        self._stopping = True
        for exchange in self.exchanges:
            exchange.fail(copy(error))
        for worker in self._workers.values():
            worker.end(Reason.ASKED)
        self._apply(self._pool.close(trio.current_time()))
        self._check_empty()

    def kill(self) -> None:
        """End everything at once. `run` still reaps every process."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # Requests

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Every request that is waiting or in flight."""
        return (*self._pool.queue, *self._at)

    def submit(self, call: Call) -> Exchange:
        """Admit a request, and give it to a worker if one is free. Raises GatewayError."""
        now = trio.current_time()
        if self._draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=1.0)
        if self.ready is not None and call.method not in self.ready.handlers:
            raise HandlerNotImplemented(f"agent {self.name!r} has no {call.method} handler")
        exchange = Exchange(call, self.settings.clocks, now)
        try:
            self._apply(self._pool.submit(exchange, now))
        except QueueFullError as refused:
            raise Overloaded(
                f"{self._pool.waiting} requests are waiting for agent {self.name!r} already",
                retry_after=refused.retry_after,
            ) from None
        except CircuitOpenError as refused:
            raise self._unavailable(refused.retry_after) from None
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """Nobody waits for it any more: if it has not ended at its worker, it is cancelled."""
        worker = self._at.get(exchange)
        if worker is not None:
            self._cancel(worker, exchange)
        elif self._pool.is_waiting(exchange):
            exchange.fail(Cancelled())
            self._apply(self._pool.finish(exchange, trio.current_time(), served=False))

    def _cancel(self, worker: Worker, exchange: Exchange) -> None:
        exchange.fail(Cancelled())
        if worker.link is None or not worker.link.cancel(exchange):
            return
        error = exchange.error
        if isinstance(error, ClockRanOut) and error.clock == "start":
            worker.end(Reason.START_TIMEOUT)
        else:
            ended = self._graces[exchange] = trio.Event()
            self._start_soon(self._grant_grace, worker, exchange, ended)

    async def _grant_grace(self, worker: Worker, exchange: Exchange, ended: trio.Event) -> None:
        """Give a worker time to end a request that was cancelled; replace it if it does not."""
        grace = self.settings.clocks.seconds("cancel")
        with trio.move_on_after(grace):
            await ended.wait()
        # Looked at after the wait: both may happen in one turn of the loop.
        if ended.is_set():
            return
        del self._graces[exchange], self._at[exchange]
        logs.event(
            log,
            logging.WARNING,
            f"worker did not end a cancelled request within the 'cancel' clock of {grace:g} s",
            agent=self.name,
            pid=worker.pid,
            request=exchange.call.request_id,
        )
        now = trio.current_time()
        self._apply(self._pool.retire(worker.id, now))
        if worker not in self._at.values():
            worker.end(Reason.UNRESPONSIVE)
        # Else others are in flight on it, and it ends with the last of them.
        self._apply(self._pool.finish(exchange, now, served=False))

    def _unavailable(self, retry_after: float) -> AgentUnavailable:
        last = self._last_failure
        reason = f"; its last failure: {last['message']}" if last else ""
        return AgentUnavailable(
            f"agent {self.name!r} has failed too often and is not restarted for now{reason}",
            retry_after=retry_after,
        )

    # What its workers tell (WorkerOwner)

    def worker_spawned(self, worker: Worker) -> None:
        self._apply(self._pool.spawned(worker.id, trio.current_time()))

    def worker_spoke(self, worker: Worker, ready: Ready | None) -> None:
        self.ready = ready
        capacity = 1 if ready is None else ready.concurrency
        self._apply(self._pool.ready(worker.id, capacity, trio.current_time()))

    def worker_answered(self, worker: Worker, exchange: Exchange, *, served: bool) -> None:
        self._let_go(exchange)
        self._apply(self._pool.finish(exchange, trio.current_time(), served=served))

    def worker_paused(self, worker: Worker, *, paused: bool) -> None:
        self._apply(self._pool.pause(worker.id, paused=paused, now=trio.current_time()))

    def worker_misbehaved(self, worker: Worker) -> None:
        self._apply(self._pool.retire(worker.id, trio.current_time()))

    def worker_cannot_wait(self, worker: Worker, exchange: Exchange) -> None:
        self._cancel(worker, exchange)

    def worker_ended(self, worker: Worker, reason: Reason, error: GatewayError) -> None:
        now = trio.current_time()
        exchanges = () if worker.link is None else worker.link.exchanges
        failed = self._is_failure(worker, reason, error)
        unread = self._take_back(worker, now)
        for exchange in exchanges:
            self._let_go(exchange)
            if exchange not in unread:
                exchange.fail(copy(error))
        if failed:
            self._last_failure = {"message": error.message, "at": time.time(), "pid": worker.pid}
        self._apply(self._pool.condemn(worker.id, now, failed=failed, unread=unread))
        if reason is Reason.NOT_STARTED:
            given_up, plan = self._pool.give_up_waiting(now)
            for exchange in given_up:
                exchange.fail(copy(error))
            self._apply(plan)

    def _take_back(self, worker: Worker, now: float) -> list[Exchange]:
        """The requests that it cannot have read, and that another worker is given instead."""
        if worker.link is None or self._stopping:
            return []
        unread = [
            exchange
            for exchange in worker.link.unread()
            # A worker that answers what it has not read is not to be followed by another's answer.
            if not (exchange.ended or exchange.spoke) and exchange.attempts < MAX_ATTEMPTS
        ]
        for exchange in unread:
            exchange.queued_again(now)
        return unread

    def _let_go(self, exchange: Exchange) -> None:
        """It is no longer at a worker."""
        self._at.pop(exchange, None)
        grace = self._graces.pop(exchange, None)
        if grace is not None:
            grace.set()

    def _is_failure(self, worker: Worker, reason: Reason, error: GatewayError) -> bool:
        if reason in {Reason.ASKED, Reason.UNRESPONSIVE}:
            return False
        # One that has served and leaves of its own accord, between requests, has done no wrong.
        in_flight = worker.link is not None and bool(worker.link.exchanges)
        served = any(w.id == worker.id and w.served for w in self._pool.workers)
        return in_flight or not served or error.details.get("exit_status") != 0

    # What its pool decides

    def _apply(self, plan: Plan[Exchange]) -> None:
        now = trio.current_time()
        for exchange, worker_id in plan.assign:
            worker = self._workers[worker_id]
            assert worker.link is not None
            assert worker.pid is not None
            self._at[exchange] = worker
            exchange.given(now, pid=worker.pid, worker_spoke=worker.spoke)
            worker.link.send(exchange)
        for worker_id in plan.start:
            stop = self.settings.clocks.seconds("stop")
            worker = Worker(worker_id, self.name, self._launcher, self, stop=stop)
            self._workers[worker_id] = worker
            self._start_soon(self._run_worker, worker)
        for worker_id in plan.stop:
            self._workers[worker_id].end(Reason.ASKED)
        for exchange in plan.unavailable:
            exchange.fail(self._unavailable(max(1.0, self._restart.start_at - now)))
        self._wake_by(plan.wake_at)

    async def _run_worker(self, worker: Worker) -> None:
        ended = False
        try:
            await worker.run()
            ended = True
        finally:
            if not ended:
                # Cancelled: what would be started instead would only be ended again, for ever.
                self._pool.close(trio.current_time())
            del self._workers[worker.id]
            self._on_gone()
            self._apply(self._pool.gone(worker.id, trio.current_time()))
            self._check_empty()

    def _start_soon(self, function: Any, *args: object) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(function, *args)

    def _check_empty(self) -> None:
        if self._stopping and not self._workers:
            self._empty.set()

    # Time

    def _wake_by(self, at: float) -> None:
        # Only ever earlier: waking too early costs one look, and moving the deadline at every
        # request would cost more.
        if at < self._wake_at:
            self._wake_at = at
            if self._wake_scope is not None:
                self._wake_scope.deadline = at

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._wake_at) as self._wake_scope:
                await trio.sleep_forever()
            self._wake_at = math.inf
            self._apply(self._pool.tick(trio.current_time()))

    async def _watch_memory(self) -> None:
        while True:
            await trio.sleep(RSS_CHECK_SECONDS)
            for worker in list(self._workers.values()):
                if worker.pid is None or not worker.spoke:
                    continue
                used = resident_bytes(worker.pid)
                if used > self.settings.max_rss_bytes:
                    logs.event(
                        log,
                        logging.INFO,
                        f"worker is replaced: it holds {used} bytes, over max_rss",
                        agent=self.name,
                        pid=worker.pid,
                    )
                    self._apply(self._pool.retire(worker.id, trio.current_time()))

    # The truth about it

    @property
    def state(self) -> str:
        """cold, starting, ready, busy, backoff, open or draining."""
        if self._draining:
            return "draining"
        now = trio.current_time()
        alive = [worker for worker in self._pool.workers if worker.alive]
        if not alive:
            if self._restart.breaker(now) is not Breaker.CLOSED:
                return "open"
            return "backoff" if now < self._restart.start_at else "cold"
        if any(worker.can_take and worker.phase is WorkerPhase.READY for worker in alive):
            return "ready"
        return (
            "starting"
            if all(w.idle and w.phase is not WorkerPhase.READY for w in alive)
            else "busy"
        )

    @property
    def can_serve(self) -> bool:
        """Whether a request would be admitted and given to a worker now or soon."""
        return self.state not in {"draining", "open", "backoff"}

    @property
    def processes(self) -> Iterator[tuple[int, str | None]]:
        """The pid and the mark of every worker that has not been reaped, and of the launcher's."""
        for pid in self._launcher.processes():
            yield pid, None
        for worker in self._workers.values():
            if worker.pid is not None:
                yield worker.pid, worker.mark

    def describe(self) -> dict[str, Any]:
        """The body of `GET /agent/{name}`."""
        ready = self.ready
        now = trio.current_time()
        return {
            "name": self.name,
            "description": self.settings.description
            or (ready.description if ready is not None else None),
            "metadata": msgspec.Raw(ready.metadata if ready is not None else b"{}"),
            "handlers": list(ready.handlers) if ready is not None else None,
            "state": self.state,
            "workers": [
                {
                    "pid": self._workers[worker.id].pid,
                    "state": worker.phase.value if worker.idle else f"{worker.phase.value}, busy",
                    "age": round(now - worker.started_at, 3),
                    "served": worker.served,
                    "in_flight": len(worker.in_flight),
                    "capacity": worker.capacity,
                    "memory": resident_bytes(self._workers[worker.id].pid),
                }
                for worker in self._pool.workers
            ],
            "limits": {"max_workers": self._pool.limit, "queue": self.settings.queue},
            "waiting": self._pool.waiting,
            "in_flight": self._pool.in_flight,
            "started": self._pool.started,
            "failures": self._restart.total_failures,
            "last_failure": self._last_failure,
            "sandbox": self._launcher.describe(),
        }
