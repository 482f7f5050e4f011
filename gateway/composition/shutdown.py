"""The signals that the gateway obeys, and its end: step by step, or at once.

# Theory of operation

    signal ─> lame duck ─> drain ─> end what is left ─> close HTTP ─> workers end ─> exit with 0
                 └────────────┴─────────────┴────────────────┴─────────────┤ another signal
                                                                           v
                             end what is left ─> close HTTP ─> kill ─> exit with 128 + its number

*Lame duck*: `/ready` is 503, and everything is still served: load balancers have time to look.
From here on each response is the last of its connection and says so, so that the next request of a
proxy or a client goes elsewhere.
*Drain*: nothing is admitted, and what was admitted has the `drain` clock. *End what is left*: every
request that is still open gets `shutting_down`, as a 503 or as the last event of its stream, and
the workers are told to end. What waits for no agent, such as the stream of a console, ends then as
well (`gateway.stopping`). Then connections are closed.

SIGHUP has two senders: a person or a service manager who wants the configuration read again
(`reload`), and the kernel, when the terminal is closed that the gateway runs in. The latter ends
the gateway as SIGTERM does. They are told apart by the terminal, which is gone then. A SIGHUP that
was to be ignored when the gateway was started (`nohup`) is ignored.

One wish to end is often two signals: a terminal sends SIGINT to the gateway and to what started it
(uv, npm, a shell), which sends it on, some of them a moment later. So a signal is another one only
`SECOND_SIGNAL_SECONDS` after the first. Then every step is taken at once, each with its answers,
within `END_SECONDS` for all of them.

A write to a client that does not read is shielded once it was begun, and could hold the process
beyond any clock. So when the last worker has been reaped and nothing more can be lost, the process
leaves by itself after a bounded time.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import FrameType

    from gateway.agents.dispatcher import Dispatcher
    from gateway.config import CallerKeys, Settings

log = logging.getLogger("gateway")

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""What ends the gateway; SIGHUP does if its terminal is gone."""

IGNORED = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""What would end it if it were not received, and is sent to daemons to rotate logs and the like."""

SECOND_SIGNAL_SECONDS = 1.0
"""A signal that comes sooner after the first is the same wish: wrappers send a signal on within
some hundred milliseconds, and people press a key again after they have read that it is draining."""

END_SECONDS = 1.0
"""For the answers and last events of requests that are cut by the shutdown to be written."""

GIVE_UP_SECONDS = 5.0
"""After the last worker has ended, before connections that cannot be cancelled are dropped with the
process."""


_hangups: list[int] = []
"""SIGHUPs that came while the gateway started."""


def hold_hangups() -> None:
    """Keep SIGHUPs from now on for `receive_signals`: a start takes seconds, and without this, a
    reload that comes too soon would end the gateway."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, _: _hangups.append(number))


@contextmanager
def receive_signals() -> Iterator[AsyncIterator[int]]:
    """Receive SIGHUP and the signals of `ENDING` and `IGNORED`, but for a SIGHUP that `nohup` has
    had ignored.

    After the block all of them are ignored: the process ends by itself then, and one more must not
    change its exit code. A signal that would end it and comes just before the block raises
    SystemExit.
    """
    numbers = ENDING | IGNORED | {signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers -= {signal.SIGHUP}
    over = False

    def handle(number: int, frame: FrameType | None) -> None:
        """Before and after trio's receiver, which puts back the handler that it has found."""
        del frame
        if number == signal.SIGHUP:
            _hangups.append(number)
        elif not over and number in ENDING:
            sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, handle)
    with trio.open_signal_receiver(*numbers) as signals:
        if _hangups:
            _hangups.clear()
            os.kill(os.getpid(), signal.SIGHUP)
        try:
            yield signals
        finally:
            over = True
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # stays so while the interpreter ends


class Shutdown:
    """See the module's docstring. Runs the agents and HTTP, and ends both."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        reload: Callable[[], None],
        loopback: bool,
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        """`reload` is called for a SIGHUP, and `stopping` for the first signal that ends the
        gateway. Both return at once. `loopback`: only this machine can connect. `change` must have
        been called before the end begins."""
        self._dispatcher = dispatcher
        self._reload = reload
        self._stopping = stopping
        self._has_terminal = has_terminal()
        self._loopback = loopback
        self._lame_duck_seconds = 0.0
        self._drain_seconds = 0.0
        self._http_drains = trio.Event()
        self._http_closes = trio.Event()
        self._http_closed = trio.Event()
        self._agents_ended = False
        self.exit_code = 0

    def change(self, settings: Settings, keys: CallerKeys) -> None:
        """Have the end, if it has not begun, take the times of these settings."""
        del keys
        server = settings.server
        self._lame_duck_seconds = server.lame_duck_seconds(loopback=self._loopback)
        self._drain_seconds = server.drain_seconds

    async def run_agents(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the agents until they are stopped; HTTP has `GIVE_UP_SECONDS` from then on."""
        try:
            await self._dispatcher.run(task_status=task_status)
        except Exception:
            self.exit_code = self.exit_code or 1  # a defect: it is not to look like an end in order
            raise
        finally:
            self._agents_ended = True
            self._leave_after(END_SECONDS if self.exit_code else GIVE_UP_SECONDS)

    async def run_http(
        self,
        serve: Callable[..., Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run `serve`, whose connections end after their present request once its `drain_trigger`
        returns, and all of them once its `shutdown_trigger` does."""
        await serve(
            drain_trigger=self._http_drains.wait,
            shutdown_trigger=self._http_closes.wait,
            task_status=task_status,
        )
        self._http_closed.set()

    async def obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """The first signal ends step by step, another one at once."""
        number = await self._next(signals)
        self._stopping()
        first_at = clock.now()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_step_by_step, number)
            while True:
                number = await self._next(signals)
                if clock.now() - first_at >= SECOND_SIGNAL_SECONDS:
                    break
                logs.event(log, logging.INFO, f"{number.name}: so soon after the first, the same")
            nursery.cancel_scope.cancel()
        logs.event(log, logging.WARNING, f"{number.name}: ending at once")
        self.exit_code = 128 + number
        await self._end_at_once()
        everything.cancel()

    async def _next(self, signals: AsyncIterator[int]) -> signal.Signals:
        """The next signal that ends the gateway. Obeys those that do not."""
        while True:
            number = signal.Signals(await anext(signals))
            hangup = number == signal.SIGHUP
            if number in ENDING or (hangup and self._has_terminal and not has_terminal()):
                return number
            if hangup:
                logs.event(log, logging.INFO, "SIGHUP: reloading")
                self._reload()

    async def _end_step_by_step(self, number: signal.Signals) -> None:
        self._http_drains.set()
        if self._lame_duck_seconds:
            self._dispatcher.leaving = True
            message = (
                f"{number.name}: not ready any more; draining in {self._lame_duck_seconds:g} s"
            )
            logs.event(log, logging.INFO, message)
            await trio.sleep(self._lame_duck_seconds)
        logs.event(log, logging.INFO, f"{number.name}: draining")
        in_time = await self._dispatcher.drain(self._drain_seconds)
        if not in_time:
            logs.event(log, logging.WARNING, "the 'drain' clock ran out: ending what is running")
        await self._dispatcher.stop(END_SECONDS)
        self._http_closes.set()

    async def _end_at_once(self) -> None:
        if self._agents_ended:
            self._leave_after(END_SECONDS)
        with trio.move_on_after(END_SECONDS):
            await self._dispatcher.stop(END_SECONDS)
            self._http_closes.set()
            await self._http_closed.wait()

    def _leave_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._leave)
        timer.daemon = True
        timer.start()

    def _leave(self) -> None:
        logs.flush()
        os._exit(self.exit_code)


def has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still there (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
