"""The composition: agents below, HTTP above, and the order in which they start and end.

The agents' supervisors are siblings of the HTTP server, never its children: a task of an
application that crashes is only logged by Quart-Trio, and HTTP would go on without workers.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import shlex
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config
from msgspec import structs

from gateway import clock
from gateway.agents.dispatcher import Dispatcher
from gateway.agents.supervisor import AgentSupervisor
from gateway.config import CallerKeys
from gateway.config.origins import ANY_ORIGIN
from gateway.front.addresses import AddressCounts
from gateway.front.app import make_app
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
from gateway.notify import ServiceManager
from gateway.observe import logs
from gateway.observers import Observers, make_metrics
from gateway.reload import Reloader
from gateway.sandbox.files.keeper import keep_states
from gateway.sandbox.network.metering import keep_records
from gateway.shutdown import Shutdown, receive_signals
from gateway.workers.deferred import DeferredWorker
from gateway.workers.orphans import OrphanKeeper
from gateway.workers.recorded import kind_of_worker
from gateway.workers.stderr import StderrRelay

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gateway.config import AgentSettings, Settings
    from gateway.observe.recording import Recorder
    from gateway.sandbox.files.state import AgentState
    from gateway.sandbox.launch import Launcher
    from gateway.workers.worker import Worker

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


async def serve(
    settings: Settings,
    launchers: Mapping[str, Launcher],
    *,
    announce: Callable[[str], None],
    read: Callable[[], Settings],
    keys: CallerKeys | None = None,
    states: Mapping[str, AgentState] = MappingProxyType({}),
    recorder: Recorder | None = None,
    manager: ServiceManager | None = None,
) -> int:
    """Serve until a signal; returns the exit code: 0, or 128 and the number of a second signal.

    `announce` gets the address once requests are answered; it may block. `read` reads the settings
    again, for a reload. `keys` are those of callers; `states` are what outlives the workers of
    agents. `recorder` records what is said with the workers, and `manager` is told how the gateway
    is. Raises ListenError, and ConfigError where strangers could connect and need no key.
    """
    manager = manager or ServiceManager()
    _raise_descriptor_limit()
    supervisors: dict[str, AgentSupervisor] = {}
    orphans = OrphanKeeper(
        lambda: chain.from_iterable(agent.processes for agent in supervisors.values())
    )
    for name, agent in settings.agents.items():
        worker = kind_of_worker(recorder, name, agent.argv)
        supervisors[name] = _supervisor(name, agent, launchers[name], worker, orphans.sweep)
    dispatcher = Dispatcher(supervisors)
    keys = keys or CallerKeys()
    callers = Keys(keys)
    limits = make_limits(settings.agents, keys.by_name)
    observers = Observers(settings.server)
    runs = Runs(dispatcher, settings.server.runs, observers.told)
    places = Places(
        _max_connections(settings), AddressCounts(settings.server.connections_per_address)
    )
    metrics = None
    if settings.server.metrics:
        metrics = make_metrics(observers.told, dispatcher, runs, places, callers)
    app = make_app(
        dispatcher,
        runs,
        settings.server,
        observers.told,
        begin=observers.begin,
        keys=callers,
        limits=limits,
        scrape=None if metrics is None else metrics.scrape,
    )
    listeners = open_listeners(
        settings.server.host,
        settings.server.port,
        unread_seconds=UNREAD_SECONDS,
    )
    addresses = addresses_of(listeners)
    refuse_strangers(settings.server, keys, addresses)
    address = url_of(settings.server.host, listeners)
    for launcher in launchers.values():
        launcher.keep_from([listener.getsockname()[1] for listener in listeners])
    reloader = Reloader(read, settings, launchers, callers=callers, addresses=addresses)
    shutdown = Shutdown(
        dispatcher,
        reload=reloader.ask,
        stopping=manager.stopping,
        lame_duck_seconds=settings.server.lame_duck_seconds(loopback=only_loopback(addresses)),
        drain_seconds=settings.server.drain_seconds,
    )
    # What stands now, the modules above all, stands to the end, and need not be looked through for
    # garbage again and again. Nothing that a worker or a connection has may be among it.
    gc.collect()
    gc.freeze()
    with receive_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.keep)
            if metrics is not None:
                nursery.start_soon(metrics.run)
            await nursery.start(orphans.run)
            for relay in _relays(launchers):
                nursery.start_soon(relay.run)
            for name, launcher in launchers.items():
                for descriptor in launcher.records():
                    nursery.start_soon(keep_records, descriptor, launcher.meter, name)
            nursery.start_soon(keep_states, states)
            await nursery.start(runs.run)
            nursery.start_soon(reloader.run)
            async with trio.open_nursery() as serving:
                await serving.start(shutdown.run_agents)
                await serving.start(
                    shutdown.run_http,
                    partial(
                        serve_http,
                        app,
                        _http_config(listeners, settings.server.keep_alive),
                        places=places,
                    ),
                )
                nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
                nursery.start_soon(
                    manager.tell_when_warm, lambda: dispatcher.warm, f"serving at {address}"
                )
                nursery.start_soon(manager.feed_watchdog)
                _log_start(settings, launchers, address, keys=callers.on)
                # In a thread, and left behind if it does not return: nobody may read stdout.
                nursery.start_soon(
                    partial(trio.to_thread.run_sync, announce, address, abandon_on_cancel=True)
                )
            nursery.cancel_scope.cancel()  # HTTP and every agent have ended
    await observers.flush()
    return shutdown.exit_code


def _supervisor(
    name: str,
    settings: AgentSettings,
    launcher: Launcher,
    worker: Callable[..., Worker],
    on_gone: Callable[[], None],
) -> AgentSupervisor:
    if not settings.state_per_conversation:
        return AgentSupervisor(name, settings, launcher, on_gone=on_gone, new_worker=worker)
    # None can start before its conversation.
    deferred = partial(DeferredWorker, new_worker=worker)
    return AgentSupervisor(
        name, _on_demand(settings), launcher, on_gone=on_gone, new_worker=deferred
    )


def _on_demand(agent: AgentSettings) -> AgentSettings:
    """The agent without workers that are kept ready."""
    return structs.replace(agent, workers=structs.replace(agent.workers, min=0, spare=0))


def _relays(launchers: Mapping[str, Launcher]) -> Iterator[StderrRelay]:
    """For what runs beside the workers: it repeats words of agents as well."""
    for name, launcher in launchers.items():
        for descriptor in launcher.logs():
            yield StderrRelay(descriptor, partial(dict, agent=name))


def _log_start(
    settings: Settings, launchers: Mapping[str, Launcher], address: str, *, keys: bool
) -> None:
    _log_agents(settings, address)
    _log_open_to_pages(settings, keys=keys)
    _log_what_the_kernel_does_not_hold(launchers)
    _log_what_is_shared(launchers)


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


def _log_open_to_pages(settings: Settings, *, keys: bool) -> None:
    if ANY_ORIGIN in settings.server.cors and not keys:
        message = "cors is '*' and there are no keys: any page that somebody here opens can call"
        logs.event(log, logging.WARNING, message)


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


def _http_config(listeners: Sequence[socket.socket], keep_alive: float) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.backlog = BACKLOG
    config.keep_alive_timeout = keep_alive
    config.graceful_timeout = GRACEFUL_SECONDS
    config.include_server_header = False
    # Ours are the records that matter; Hypercorn's own go nowhere but for its errors.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def _max_connections(settings: Settings) -> int:
    """How many connections leave enough descriptors for every worker that may be started."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = sum(agent.workers.max for agent in settings.agents.values())
    reserved = len(os.listdir("/proc/self/fd")) + SPARE_DESCRIPTORS
    reserved += workers * DESCRIPTORS_PER_WORKER
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
