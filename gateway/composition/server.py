"""The composition: agents below, HTTP above, and the order in which they start and end.

The agents' supervisors are siblings of the HTTP server, never its children: a task of an
application that crashes is only logged by Quart-Trio, and HTTP would go on without workers.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import resource
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config

from gateway import clock
from gateway.agents.dispatcher import Dispatcher
from gateway.agents.scope import run_agent
from gateway.composition.notify import ServiceManager
from gateway.composition.observers import Observers, make_console, make_metrics
from gateway.composition.reload import Part, Reloader, Watcher
from gateway.composition.roster import Roster
from gateway.composition.shutdown import Shutdown, receive_signals
from gateway.config import CallerKeys
from gateway.config.origins import ANY_ORIGIN
from gateway.front.addresses import AddressCounts
from gateway.front.app import App, make_app
from gateway.front.auth import Keys
from gateway.front.limits import make_limits
from gateway.front.listen import Places, serve_http
from gateway.front.runs.service import Runs
from gateway.front.sockets import (
    BACKLOG,
    addresses_of,
    only_loopback,
    open_listeners,
    refuse_strangers,
    url_of,
)
from gateway.observe import logs
from gateway.sandbox.files.keeper import keep_states
from gateway.workers.orphans import OrphanKeeper
from gateway.workers.recorded import kind_of_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from gateway.composition.launchers import LauncherMaker, States
    from gateway.config import Settings
    from gateway.observe.recording import Recorder
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")

MAX_DESCRIPTORS = 65_536
"""What the gateway allows itself, if the system does: a bound on the connections that say nothing,
and with it on their memory."""

DESCRIPTORS_PER_WORKER = 7
"""Three pipes, the process, the claim on its user id, and what its network and services end with.
"""

SPARE_DESCRIPTORS = 128
"""For what is open for a moment: a start of a worker takes some thirty, and one that has ended but
is not reaped keeps its own; looks into /proc; refused connections."""

UNREAD_SECONDS = 30.0
"""A client may leave a response unread that is no agent's, such as a status; agents have their
`write` clocks."""

GRACEFUL_SECONDS = 3.0
"""For connections to end after the last response was written."""

YOUNG_OBJECTS = 10_000
"""More objects than before, after which Python looks for garbage among the new ones. The requests
in progress are thousands of objects, none of which is garbage: to look at them after every 700
costs a short request 4 %. Ten thousand take a megabyte or two."""


async def serve(
    settings: Settings,
    launchers: Mapping[str, Launcher],
    *,
    maker: LauncherMaker,
    states: States,
    announce: Callable[[str], None],
    read: Callable[[], Settings],
    keys: CallerKeys | None = None,
    recorder: Recorder | None = None,
    manager: ServiceManager | None = None,
    watchers: Sequence[Watcher] = (),
) -> int:
    """Serve until a signal; returns the exit code: 0, or 128 and the number of a second signal.

    `launchers` were made by `maker`; each is closed when its last worker has ended. `states` are
    what outlives the workers of agents. `announce` gets the address once requests are answered; it
    may block. `read` reads the settings again, for a reload. `keys` are those of callers.
    `recorder` records what is said with the workers, and `manager` is told how the gateway is.
    `watchers` ask for reloads.
    Raises ListenError, and ConfigError where strangers could connect and need no key.
    """
    manager = manager or ServiceManager()
    _raise_descriptor_limit()
    orphans = OrphanKeeper(lambda: roster.processes)
    dispatcher = Dispatcher(run=run_agent)
    roster = Roster(
        dispatcher,
        maker,
        states,
        kind_of_worker=partial(kind_of_worker, recorder),
        on_gone=orphans.sweep,
    )
    keys = keys or CallerKeys()
    callers = Keys(keys)
    observers = Observers(settings.server)
    runs = Runs(dispatcher, settings.server.runs, observers.told)
    places = Places(math.inf, AddressCounts(settings.server.connections_per_address))
    metrics = (
        make_metrics(observers, dispatcher, runs, places, callers)
        if settings.server.metrics
        else None
    )
    listeners = open_listeners(
        settings.server.host,
        settings.server.port,
        unread_seconds=UNREAD_SECONDS,
    )
    addresses = addresses_of(listeners)
    refuse_strangers(settings.server, keys, addresses)
    console = make_console(observers.told, dispatcher, settings, keys, addresses)
    app = make_app(
        dispatcher,
        runs,
        settings.server,
        observers.told,
        begin=observers.begin,
        keys=callers,
        limits=make_limits(settings.agents, keys.by_name),  # with all that it imports, see below
        scrape=None if metrics is None else metrics.scrape,
        console=console,
    )
    roster.ports = [listener.getsockname()[1] for listener in listeners]
    address = url_of(settings.server.host, listeners)
    loopback = only_loopback(addresses)
    http = _Http(app, listeners, places)
    parts: list[Part] = [_change_log, runs.change, http.change]
    reloader = Reloader(
        read,
        settings,
        roster,
        parts,
        callers=callers,
        addresses=addresses,
        reloading=manager.reloading,
        watchers=watchers,
    )
    shutdown = Shutdown(
        dispatcher, reload=reloader.ask, loopback=loopback, stopping=manager.stopping
    )
    parts.append(shutdown.change)
    _look_for_garbage_seldom()
    roster.open(settings, launchers)
    for change in parts:
        change(settings, keys)
    with receive_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.keep)
            nursery.start_soon(observers.batch.run)
            for run in [each.run for each in (metrics, console) if each is not None]:
                nursery.start_soon(run)
            await nursery.start(orphans.run)
            nursery.start_soon(keep_states, states.of)
            await nursery.start(runs.run)
            nursery.start_soon(reloader.run)
            async with trio.open_nursery() as serving:
                await serving.start(shutdown.run_agents)
                await serving.start(shutdown.run_http, http.serve)
                nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
                nursery.start_soon(
                    manager.tell_when_warm, lambda: dispatcher.warm, f"serving at {address}"
                )
                nursery.start_soon(manager.feed_watchdog)
                _log_agents(settings, address)
                _log_warnings(settings, launchers, keys=callers.on)
                # In a thread, and left behind if it does not return: nobody may read stdout.
                nursery.start_soon(
                    partial(trio.to_thread.run_sync, announce, address, abandon_on_cancel=True)
                )
            nursery.cancel_scope.cancel()  # HTTP and every agent have ended
    await observers.flush()
    return shutdown.exit_code


def _look_for_garbage_seldom() -> None:
    # What stands now, the modules above all, stands to the end, and need not be looked through for
    # garbage again and again. Nothing that an agent, a worker or a connection has may be among it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _log_agents(settings: Settings, address: str) -> None:
    for name in settings.agents:
        logs.event(
            log,
            logging.INFO,
            f"serving {address}/agent/{name}",
            agent=name,
            command=settings.shown_command(name),
            sandbox=settings.server.sandbox,
        )


def _log_open_to_pages(settings: Settings, *, keys: bool) -> None:
    if ANY_ORIGIN in settings.server.cors and not keys:
        message = "cors is '*' and there are no keys: any page that somebody here opens can call"
        logs.event(log, logging.WARNING, message)


def _log_warnings(settings: Settings, launchers: Mapping[str, Launcher], *, keys: bool) -> None:
    _log_open_to_pages(settings, keys=keys)
    _log_what_the_kernel_does_not_hold(launchers)
    _log_what_is_shared(launchers)


def _log_what_the_kernel_does_not_hold(launchers: Mapping[str, Launcher]) -> None:
    """One line for each limit that is set and has no control group."""
    lines: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        for limit, found in launcher.describe().get("limits", {}).items():
            if found["value"] is not None and "reason" in found:
                held = "held by a watch, a moment late" if found["enforced"] else "NOT enforced"
                lines.setdefault(f"{limit} is {held}: {found['reason']}", []).append(name)
    for line, names in lines.items():
        logs.event(log, logging.WARNING, line, agents=",".join(names))


def _log_what_is_shared(launchers: Mapping[str, Launcher]) -> None:
    """One line for each reason for which workers have the gateway's own user id."""
    lines: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        why = launcher.describe().get("why_shared")
        if why:
            lines.setdefault(why, []).append(name)
    for why, names in lines.items():
        message = (
            "workers share limits of the gateway's user (epoll watches, descriptors in flight, "
            f"pipes; see gateway --check), since {why}"
        )
        logs.event(log, logging.WARNING, message, agents=",".join(names))


def _change_log(settings: Settings, keys: CallerKeys) -> None:
    del keys
    logs.change(settings.server.log_level, settings.server.log_format)


class _Http:
    """The HTTP server, and what changes of it. `change` must have been called before `serve`."""

    def __init__(self, app: App, listeners: Sequence[socket.socket], places: Places) -> None:
        self._app = app
        self._places = places
        self._config = _http_config(listeners)
        self._others = len(os.listdir("/proc/self/fd"))

    def change(self, settings: Settings, keys: CallerKeys) -> None:
        """Connections that are open keep to what they have announced."""
        self._config.keep_alive_timeout = settings.server.keep_alive
        self._places.number = _max_connections(settings, self._others)
        self._places.addresses.most = settings.server.connections_per_address
        self._app.change(settings, keys)

    async def serve(self, **options: Any) -> None:
        """As `serve_http`, whose triggers are the options."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._app.run_mounts)
            await serve_http(self._app, self._config, places=self._places, **options)
            nursery.cancel_scope.cancel()


def _http_config(listeners: Sequence[socket.socket]) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.backlog = BACKLOG
    config.graceful_timeout = GRACEFUL_SECONDS
    config.include_server_header = False
    # Ours are the records that matter; Hypercorn's own go nowhere but for its errors.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def _max_connections(settings: Settings, others: int) -> int:
    """How many connections leave enough descriptors for every worker that may be started, and for
    so many others."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = sum(agent.workers.max for agent in settings.agents.values())
    reserved = others + SPARE_DESCRIPTORS + workers * DESCRIPTORS_PER_WORKER
    least = limit // 4
    if limit - reserved < least:
        message = (
            f"the limit of {limit} open files is too low for {workers} workers, which need "
            f"{reserved}, beside connections: raise it (ulimit -n, LimitNOFILE=)"
        )
        logs.event(log, logging.WARNING, message)
    return max(limit - reserved, least)


def _raise_descriptor_limit() -> None:
    """Every connection takes a descriptor and every worker some: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
