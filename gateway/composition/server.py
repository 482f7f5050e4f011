"""The composition: agents below, HTTP above, and the order in which they start and end.

The agents' supervisors are siblings of the HTTP server, never its children: a task of an
application that crashes is only logged by Quart-Trio, and HTTP would go on without workers.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway import clock, turns
from gateway.agents.dispatcher import Dispatcher
from gateway.agents.scope import run_agent
from gateway.composition.http import HttpServer, raise_descriptor_limit
from gateway.composition.member import Alone
from gateway.composition.memory import tune_memory
from gateway.composition.notify import ServiceManager
from gateway.composition.observers import Observers, make_console, make_metrics
from gateway.composition.reload import Part, Reloader, Watcher
from gateway.composition.report import log_agents, log_warnings
from gateway.composition.roster import Roster
from gateway.composition.shutdown import Shutdown, receive_signals
from gateway.config import CallerKeys
from gateway.front.addresses import AddressCounts
from gateway.front.app import make_app
from gateway.front.auth import Keys
from gateway.front.limits import make_limits
from gateway.front.listen import Places
from gateway.front.runs.service import Runs
from gateway.front.sockets import (
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
    from collections.abc import Callable, Mapping, Sequence

    from gateway.composition.launchers import LauncherMaker, States
    from gateway.composition.member import Join
    from gateway.config import Settings
    from gateway.observe.recording import Recorder
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")


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
    join: Join = Alone,
) -> int:
    """Serve until a signal; returns the exit code: 0, or 128 and the number of a second signal.

    `launchers` were made by `maker`; each is closed when its last worker has ended. `states` are
    what outlives the workers of agents. `announce` gets the address once requests are answered; it
    may block. `read` reads the settings again, for a reload. `keys` are those of callers.
    `recorder` records what is said with the workers, and `manager` is told how the gateway is.
    `watchers` ask for reloads. `join` makes the process a member of a fleet.
    Raises ListenError, and ConfigError where strangers could connect and need no key.
    """
    manager = manager or ServiceManager()
    raise_descriptor_limit()
    orphans = OrphanKeeper(lambda: roster.processes)
    # Of a front, agents have no launcher: their workers are at hosts.
    dispatcher = Dispatcher() if settings.fleet.role == "front" else Dispatcher(run=run_agent)
    member = join(dispatcher)
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
    runs = Runs(dispatcher, settings.server.runs, observers.batch.tell)
    places = Places(math.inf, AddressCounts(settings.server.connections_per_address))
    metrics = (
        make_metrics(observers, dispatcher, runs, places, callers, member=member)
        if settings.server.metrics
        else None
    )
    listeners = open_listeners(settings.server.host, settings.server.port)
    addresses = addresses_of(listeners)
    refuse_strangers(settings.server, keys, addresses)
    console = make_console(observers, dispatcher, settings, keys, addresses, fleet=member.fleet)
    app = make_app(
        dispatcher,
        runs,
        settings.server,
        observers.tell,
        begin=observers.begin,
        keys=callers,
        limits=make_limits(settings.agents, keys.by_name),  # with all that it imports, see below
        scrape=None if metrics is None else metrics.scrape,
        console=console,
        probes_only=settings.fleet.role == "host",
        background=member.background,
        fleet=member.fleet,
    )
    roster.ports = [listener.getsockname()[1] for listener in listeners]
    address = url_of(settings.server.host, listeners)
    loopback = only_loopback(addresses)
    http = HttpServer(app, listeners, places)
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
    tune_memory()
    roster.open(settings, launchers)
    for change in parts:
        change(settings, keys)
    with receive_signals() as signals, turns.kept():
        async with trio.open_nursery() as nursery:
            beside = [each.run for each in (metrics, console) if each is not None]
            for run in (clock.keep, observers.batch.run, *beside):
                nursery.start_soon(run)
            await nursery.start(orphans.run)
            nursery.start_soon(keep_states, states.of)
            await nursery.start(runs.run)
            nursery.start_soon(reloader.run)
            async with trio.open_nursery() as serving:
                await serving.start(shutdown.run_agents)
                await nursery.start(member.run)
                await serving.start(shutdown.run_http, http.serve)
                nursery.start_soon(shutdown.obey, signals, nursery.cancel_scope)
                nursery.start_soon(
                    manager.tell_when_warm, lambda: dispatcher.warm, f"serving at {address}"
                )
                nursery.start_soon(manager.feed_watchdog)
                log_agents(settings, address)
                log_warnings(settings, launchers, keys=callers.on)
                # In a thread, and left behind if it does not return: nobody may read stdout.
                nursery.start_soon(
                    partial(trio.to_thread.run_sync, announce, address, abandon_on_cancel=True)
                )
            await member.end()
            nursery.cancel_scope.cancel()  # HTTP and every agent have ended
    await observers.flush()
    return shutdown.exit_code


def _change_log(settings: Settings, keys: CallerKeys) -> None:
    del keys
    logs.change(settings.server.log_level, settings.server.log_format)
