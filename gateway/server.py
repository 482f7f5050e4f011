"""The composition: agents below, HTTP above, and the order in which they start and end.

The agents' supervisors are siblings of the HTTP server, never its children: a task of an
application that crashes is only logged by Quart-Trio, and HTTP would go on without workers.
"""

from __future__ import annotations

import errno
import gc
import logging
import math
import os
import resource
import shlex
import signal
import socket
import threading
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config

from gateway import clock
from gateway.agents.dispatcher import Dispatcher
from gateway.agents.supervisor import AgentSupervisor
from gateway.front.app import make_app
from gateway.front.connections import serve_http
from gateway.observe import logs
from gateway.workers.orphans import OrphanKeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from gateway.config import ServerSettings, Settings
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")

BACKLOG = 1024
"""Connections that may wait to be accepted: a burst of clients is not refused by the kernel."""

MAX_DESCRIPTORS = 65_536
"""What the gateway allows itself, if the system does: a bound on the connections that say nothing,
and with it on their memory."""

KEEP_ALIVE_SECONDS = 15.0
"""Before a connection that says nothing is closed; also the time for a request's headers."""

GRACEFUL_SECONDS = 3.0
"""For connections to end after the last response was written."""

GIVE_UP_SECONDS = 5.0
"""After the last worker has ended, before connections that cannot be cancelled are dropped with the
process: a write that was begun is shielded, and a client that does not read holds one."""

END_STREAMS_SECONDS = 1.0
"""For the answers and last events of requests that are cut by the shutdown to be written."""


class ServeError(Exception):
    """The gateway cannot serve; the message says why."""


async def serve(
    settings: Settings,
    launchers: Mapping[str, Launcher],
    *,
    announce: Callable[[str], None],
) -> int:
    """Serve until a signal; returns the exit code: 0, or 128 and the number of a second signal.

    `announce` gets the address once requests are answered. Raises ServeError.
    """
    _raise_descriptor_limit()
    supervisors: dict[str, AgentSupervisor] = {}
    orphans = OrphanKeeper(
        lambda: chain.from_iterable(agent.processes for agent in supervisors.values())
    )
    for name, agent in settings.agents.items():
        supervisors[name] = AgentSupervisor(name, agent, launchers[name], on_gone=orphans.sweep)
    dispatcher = Dispatcher(supervisors)
    app = make_app(dispatcher, settings.server)
    listener = open_listener(settings.server)
    _limit_unread(listener, max(a.clocks.seconds("write") for a in settings.agents.values()))
    address = _address(listener)
    shutdown = _Shutdown(dispatcher, settings.server.drain_seconds)
    # What stands now, the modules above all, stands to the end, and need not be looked through for
    # garbage again and again. Nothing that a worker or a connection has may be among it.
    gc.collect()
    gc.freeze()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.keep)
            await nursery.start(orphans.run)
            async with trio.open_nursery() as serving:
                await serving.start(shutdown.run_agents)
                await serving.start(
                    partial(
                        serve_http,
                        app,
                        _http_config(listener),
                        shutdown_trigger=shutdown.http_closes.wait,
                    )
                )
                nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
                _log_agents(settings, address)
                announce(address)
            nursery.cancel_scope.cancel()  # HTTP and every agent have ended
    return shutdown.exit_code


def _log_agents(settings: Settings, address: str) -> None:
    for name, agent in settings.agents.items():
        logs.event(
            log,
            logging.INFO,
            f"serving {address}/agent/{name}",
            agent=name,
            command=shlex.join(agent.argv),
            sandbox=settings.server.sandbox,
        )


class _Shutdown:
    """The steps of a shutdown: drain, end what is left, close HTTP; or everything at once."""

    def __init__(self, dispatcher: Dispatcher, drain_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._drain_seconds = drain_seconds
        self.http_closes = trio.Event()
        self.exit_code = 0

    async def run_agents(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the agents until they are stopped; HTTP has `GIVE_UP_SECONDS` from then on."""
        try:
            await self._dispatcher.run(task_status=task_status)
        finally:
            # A write that was begun is shielded, so a client that does not read could hold the
            # process beyond any clock. Every worker has been reaped: nothing is lost by leaving.
            timer = threading.Timer(GIVE_UP_SECONDS, os._exit, (self.exit_code,))
            timer.daemon = True
            timer.start()

    async def obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """The first signal drains, the second ends everything at once."""
        number = await anext(signals)
        logs.event(log, logging.INFO, f"{signal.Signals(number).name}: draining")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            number = await anext(signals)
            logs.event(log, logging.WARNING, f"{signal.Signals(number).name}: ending at once")
            self.exit_code = 128 + number
            everything.cancel()

    async def _drain(self) -> None:
        in_time = await self._dispatcher.drain(self._drain_seconds)
        if not in_time:
            logs.event(log, logging.WARNING, "the 'drain' clock ran out: ending what is running")
        await self._dispatcher.stop(END_STREAMS_SECONDS)
        self.http_closes.set()


def open_listener(settings: ServerSettings) -> socket.socket:
    """A socket that listens where the settings say. Raises ServeError.

    Its connections inherit TCP_USER_TIMEOUT: what a client leaves unread for that long ends the
    connection, which is the only thing that ends a write to it that was begun.
    """
    place = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServeError(f"cannot listen on {place}: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ServeError(f"cannot listen on {place}: {reason}") from None
    return listener


def _limit_unread(listener: socket.socket, seconds: float) -> None:
    if not math.isinf(seconds):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _http_config(listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.graceful_timeout = GRACEFUL_SECONDS
    config.include_server_header = False
    # Ours are the records that matter; Hypercorn's own go nowhere but for its errors.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_descriptor_limit() -> None:
    """Every connection takes a descriptor and every worker four: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
