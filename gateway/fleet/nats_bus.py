"""The bus on NATS: nats-py, which is asyncio's, in a thread of its own.

Theory of operation
-------------------

Two threads: trio's, in which everything else happens, and that of asyncio, in which connections are
made and live (`nats_link`). Python runs one of them at a time, so what costs is going from one to
the other. Each way has a deque, which both append to and take from without a lock, and one wake-up
for all that was put there meanwhile:

    trio     publish, subscribe ─> link.said ──── call_soon_threadsafe ──> asyncio: nats-py
    asyncio  messages, ends ─────> _heard ─────── run_sync_soon ─────────> trio: callbacks

What is said in a callback leaves when the batch of callbacks has ended; what is said elsewhere, at
the end of the turn of trio's loop. Callbacks have `TURN_SECONDS` per turn. Both ways are bounded in
bytes, and whoever does not take its own has its connection cut.

What is said goes to the connection that is there in trio's thread. Both ends of a connection, and
all that it has received, come through one deque in order; so whatever is received between
`connected` and `lost` is of that connection.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from gateway import clock
from gateway.fleet.bus import MAX_MESSAGE_BYTES
from gateway.fleet.nats_link import (
    MAX_WAITING,
    MESSAGE_COST,
    Link,
    Loop,
    Publish,
    Subscribe,
    Unsubscribe,
)
from gateway.fleet.nats_login import LoginError
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from nats.js import JetStreamContext

    from gateway.config import FleetSettings
    from gateway.fleet.bus import Delivery

log = logging.getLogger("gateway")

TURN_SECONDS = 0.002
"""For callbacks, until others have their turn in trio's loop."""

PAUSE_SECONDS = (0.1, 0.25)
"""Between two attempts to connect: all processes of a fleet come back at once."""

REMIND_SECONDS = 30.0
"""Between two log lines that say the same."""

T = TypeVar("T")


class NotConnectedError(Exception):
    """There is no connection to NATS, or it has ended before the answer came."""


class NatsBus:
    """A `gateway.fleet.bus.Bus`. `keep` has to run."""

    def __init__(self, settings: FleetSettings, *, name: str, inbox: str) -> None:
        """`name` is what the server's monitoring shows, `inbox` what the subjects begin with on
        which JetStream answers. Raises nothing: `nats_login.check` looks at the settings."""
        self.problem: str | None = "not connected yet"
        """Why there is no connection, in one sentence; None: there is one."""
        self.heard_at = float("-inf")
        self._settings = settings
        self._name = name
        self._inbox = inbox
        self._link: Link | None = None
        """The connection, as trio's thread knows it."""
        self._loop: Loop | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._heard: deque[tuple[Callable[[Any], None], Any, int]] = deque()
        """What trio's thread is to do: functions, their arguments, and sizes in bytes."""
        self._called = False
        """Whether trio's thread has been called to look at it; asyncio's."""
        self._ids = itertools.count(1)
        self._watchers: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._leaving = False
        """Whether what was said will leave soon."""
        self._failed: BaseException | None = None
        self._failure = trio.Event()
        self._reminded_at = float("-inf")

    def __repr__(self) -> str:
        return f"<NatsBus {self.problem or 'connected'}>"

    # As `Bus`

    @property
    def connected(self) -> bool:
        return self._link is not None

    def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Raises ValueError for more than `MAX_MESSAGE_BYTES`."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{len(data)} bytes, expected at most {MAX_MESSAGE_BYTES}")
        if self._link is not None:
            self._say(self._link, Publish(subject, data, reply), len(data) + MESSAGE_COST)

    def publish_all(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """As `Bus.publish_all`: saves a turn of the loop, and two system calls that wake it."""
        later, self._leaving = self._leaving, True
        try:
            for subject, data, reply in messages:
                self.publish(subject, data, reply)
        finally:
            if not later:
                self._leave()

    def subscribe(self, subject: str, receive: Callable[[Delivery], None]) -> int:
        number = next(self._ids)
        if self._link is not None:
            self._say(self._link, Subscribe(number, subject, receive), MESSAGE_COST)
        return number

    def unsubscribe(self, subscription: int) -> None:
        if self._link is not None:
            self._say(self._link, Unsubscribe(subscription), MESSAGE_COST)

    def watch(self, connected: Callable[[], None], lost: Callable[[], None]) -> None:
        self._watchers.append((connected, lost))
        if self._link is not None:
            connected()

    # JetStream

    async def run(self, function: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Await a coroutine of asyncio, in its thread, with the connection's JetStream. Nothing of
        trio, or of what belongs to it, may be touched there.

        Raises NotConnectedError, and whatever the coroutine raises. Cancelled, it may still happen.
        """
        link, loop = self._link, self._loop
        if link is None or loop is None:
            raise NotConnectedError(self.problem)
        done = trio.Event()
        tasks: list[asyncio.Task[T]] = []

        def settle(task: asyncio.Task[T]) -> None:
            tasks[:] = [task]
            done.set()

        started: list[asyncio.Task[T]] = []
        loop.call_soon_threadsafe(lambda: started.append(link.work(function, settle)))
        try:
            await done.wait()
        except trio.Cancelled:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])
            raise
        if tasks[0].cancelled():
            raise NotConnectedError(self.problem or "the connection has ended")
        return tasks[0].result()

    # Its life, in trio's thread

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection, until cancelled; what was published before is still sent then. Raises
        what has ended the thread, or what a callback has raised: both are defects."""
        self._token = trio.lowlevel.current_trio_token()
        loop = self._loop = Loop()
        stop = loop.create_future()

        def ask_to_stop() -> None:
            if not stop.done():
                stop.set_result(None)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live_in_thread, loop, stop)
                task_status.started()
                try:
                    await self._failure.wait()
                    assert self._failed is not None
                    raise self._failed
                finally:
                    self._leave()
                    loop.call_soon_threadsafe(ask_to_stop)
        finally:
            loop.close()
            self._loop = None

    async def _live_in_thread(self, loop: Loop, stop: asyncio.Future[None]) -> None:
        def live() -> None:
            asyncio.set_event_loop(loop)
            try:
                loop.run_until_complete(self._connect_always(loop, stop))
            finally:
                asyncio.set_event_loop(None)

        # Ends soon after it was asked to, and has a thread of its own.
        await trio.to_thread.run_sync(live, limiter=trio.CapacityLimiter(1))
        self._heard.clear()
        if self._link is not None:
            self._end("this process ends its connection")

    def _say(self, link: Link, what: Publish | Subscribe | Unsubscribe, size: int) -> None:
        link.bytes_said += size
        if link.bytes_said - link.bytes_sent > MAX_WAITING:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(
                link.end, f"does not take what is said: {MAX_WAITING >> 20} MiB have waited"
            )
            link.bytes_said -= size
            return
        link.said.append(what)
        if not self._leaving:
            self._leaving = True
            assert self._token is not None
            self._token.run_sync_soon(self._leave)

    def _leave(self) -> None:
        """Have asyncio's thread take what was said."""
        self._leaving = False
        link = self._link
        if link is not None and link.said and not link.awake and self._loop is not None:
            link.awake = True
            self._loop.call_soon_threadsafe(link.wake)

    def _hear(self) -> None:
        """Do what asyncio's thread has put there, for `TURN_SECONDS`."""
        self._called = False  # before looking: what comes from now on calls again
        heard = self._heard
        self.heard_at = clock.now()
        self._leaving = True  # what callbacks say leaves at the end
        until = time.perf_counter() + TURN_SECONDS
        try:
            while heard:
                function, argument, size = heard.popleft()
                if size and self._link is not None:
                    self._link.bytes_taken += size
                function(argument)
                if time.perf_counter() > until and heard:
                    assert self._token is not None
                    self._token.run_sync_soon(self._hear, idempotent=True)
                    break
        except Exception as error:  # noqa: BLE001 - a boundary: ends the gateway, as `keep` says
            self._failed = error
            self._failure.set()
        self._leave()

    def _on_connected(self, link: Link) -> None:
        self._link, self.problem = link, None
        self._reminded_at = float("-inf")
        logs.event(log, logging.INFO, "connected to NATS", server=link.server, version=link.version)
        for connected, _ in list(self._watchers):
            connected()

    def _on_lost(self, problem: str) -> None:
        logs.event(log, logging.WARNING, f"the connection to NATS has ended: {problem}")
        self._end(problem)

    def _end(self, problem: str) -> None:
        self._link, self.problem = None, problem
        for _, lost in list(self._watchers):
            lost()

    def _on_problem(self, problem: str) -> None:
        now = trio.current_time()
        if problem != self.problem or now - self._reminded_at > REMIND_SECONDS:
            self._reminded_at = now
            logs.event(log, logging.WARNING, f"no connection to NATS: {problem}")
        self.problem = problem

    def _on_warning(self, problem: str) -> None:
        logs.event(log, logging.WARNING, f"NATS: {problem}")

    # In asyncio's thread

    def _post(self, function: Callable[[Any], None], argument: Any, size: int) -> None:
        """Have trio's thread do something, together with what else is parsed now."""
        self._heard.append((function, argument, size))
        if not self._called and self._loop is not None:
            self._called = True
            self._loop.call_soon(self._call)

    def _call(self) -> None:
        assert self._token is not None
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._hear, idempotent=True)

    async def _connect_always(self, loop: Loop, stop: asyncio.Future[None]) -> None:
        """One connection after the other, until told to stop."""
        for server in itertools.cycle(self._settings.servers):
            attempt = loop.create_task(self._one_connection(loop, server, stop))
            await asyncio.wait({attempt, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                attempt.cancel()
                with suppress(asyncio.CancelledError):
                    await attempt
                return
            attempt.result()
            pause = random.uniform(*PAUSE_SECONDS)  # noqa: S311 - no secret
            await asyncio.wait({stop}, timeout=pause)

    async def _one_connection(self, loop: Loop, server: str, stop: asyncio.Future[None]) -> None:
        link = Link(
            self._settings, server, loop, name=self._name, inbox=self._inbox, post=self._post
        )
        link.warn = self._on_warning
        try:
            await link.connect()
        except LoginError as error:
            self._post(self._on_problem, f"{server} {error}", 0)
            return
        self._post(self._on_connected, link, 0)
        try:
            await link.live()
        except LoginError as error:
            self._post(self._on_lost, f"{server} {error}", 0)
        finally:
            if stop.done():
                await link.flush()
            await link.close()
