"""A reload: the configuration is read again, checked as a whole, and carried out while the gateway
runs.

# Theory of operation

    SIGHUP ─> read and check ─> try new sandboxes ─> start new agents ─> put all of it in force
                    └─ wrong ──────────┴─ wrong ────────────┴─> refused as a whole: nothing changes

What comes before the last step changes nothing that is served, and takes its time: it is the thread
that reads, and new agents beside the old ones. The last step is one synchronous function. So a
request meets either the old configuration or the new one, and never something between.

Of an agent, its `network`, its services and their keys change in place, for workers that run.
Anything else needs new workers: the agent is *replaced* by one that was started first
(`Dispatcher` says what becomes of requests under way). One whose settings are the same is not
touched. Settings of the server are told to those who hold them (`parts`); what cannot change
(`compare.RESTART`) is named in the log, and takes effect at the next start.

What is in force is kept as settings, into which what was carried out is taken over: so what was not
is named again at the next reload. Reloads take turns: signals that come meanwhile are one more
reload afterwards.

Keys, of services and of callers, are read again at a reload, and when a file that holds some has
changed, which is looked at every few seconds: whoever rotates a key may not be who may signal the
gateway. Then the keys alone change, and the configuration is left unread: it may be half edited. A
variable of the gateway's cannot change while it runs.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio
from msgspec import structs

from gateway.composition.reload.compare import differences, in_force, needs_new_workers
from gateway.composition.reload.watch import Looks, look_at
from gateway.composition.roster import NotStarted
from gateway.config import ConfigError, read_keys, read_services
from gateway.config.services import Service, key_files
from gateway.errors import ShuttingDown
from gateway.front.sockets import refuse_strangers
from gateway.observe import logs
from gateway.sandbox import SandboxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from gateway.agents.supervisor import AgentSupervisor
    from gateway.config import AgentSettings, CallerKeys, Settings
    from gateway.front.auth import Keys
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")

LOOK_SECONDS = 2.0
"""Between two looks at the files of keys."""

MAX_GENERATIONS = 8
"""Agents of one name that wind down at a time: each has the workers that its requests need. While
there are so many, a reload that would add one more is refused."""


Watcher: TypeAlias = "Callable[[Reloader], Awaitable[None]]"
"""Asks for reloads, until cancelled."""

Part: TypeAlias = "Callable[[Settings, CallerKeys], None]"
"""Takes what is in force from now on."""

Services = dict[str, list[Service]]
"""The services of each agent, with their keys."""


class Agents(Protocol):
    """The agents that are served: `gateway.composition.roster.Roster`."""

    @property
    def launchers(self) -> Mapping[str, Launcher]: ...

    def prepare(self, settings: Settings, names: Collection[str]) -> dict[str, Launcher]: ...

    async def start(
        self, settings: Settings, launchers: Mapping[str, Launcher]
    ) -> Mapping[str, AgentSupervisor]: ...

    def put(self, agents: Iterable[AgentSupervisor]) -> None: ...

    def remove(self, name: str, seconds: float) -> None: ...

    def generations(self, name: str) -> int: ...


@dataclass(frozen=True, slots=True)
class _Change:
    """What a reload is to do, checked as a whole."""

    wanted: Settings
    services: Services
    replaced: frozenset[str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    launchers: Mapping[str, Launcher]
    """Of what is replaced and added."""
    keys: CallerKeys
    looks: Looks


class Reloader:
    """Reloads the configuration when it is asked to, and keys when their files have changed.
    `run` must be running."""

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        served: Agents,
        parts: Sequence[Part] = (),
        *,
        callers: Keys,
        addresses: Sequence[str] = (),
        reloading: Callable[[], AbstractContextManager[None]] = nullcontext,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """`read` reads and checks the configuration, in a thread; it raises ConfigError. `settings`
        are in force. `parts` are called with what is in force after a change; they must not fail.
        `callers` are told of other keys, and `addresses` are where the gateway listens. A reload is
        within `reloading`. `watchers` run beside, and ask for more of them.
        """
        self._read = read
        self._settings = settings
        self._served = served
        self._parts = parts
        self._callers = callers
        self._addresses = addresses
        self._reloading = reloading
        self._watchers = watchers
        self._asked = trio.Event()
        self._again: set[str] = set()
        self._quietly = True
        self._refused = ""
        self.looks = look_at(_files_of(settings))
        """What these files were like when they were read."""

    def __repr__(self) -> str:
        return f"<Reloader {'asked' if self._asked.is_set() else 'waiting'}>"

    @property
    def agents(self) -> Mapping[str, AgentSettings]:
        """Those that are served, by name."""
        return self._settings.run_here

    @property
    def files(self) -> list[str]:
        """The files of the configuration, as it was when it was last read without an error."""
        return _files_of(self._settings)

    def ask(self, again: Iterable[str] = (), *, quietly: bool = False) -> None:
        """Have the configuration read again soon. The agents `again` are replaced in any case.

        `quietly`: an error that was logged last is not logged once more.
        """
        self._again.update(again)
        self._quietly = quietly and (self._quietly or not self._asked.is_set())
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is due, until cancelled."""
        async with trio.open_nursery() as nursery:
            for watch in self._watchers:
                nursery.start_soon(watch, self)
            nursery.start_soon(self._reload_when_due)

    async def _reload_when_due(self) -> None:
        seen = await trio.to_thread.run_sync(look_at, _key_files(self._settings))
        if seen:
            await self.read_keys()  # one may have changed since the launchers were made
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._asked.wait()
            if self._asked.is_set():
                self._asked = trio.Event()
                again, self._again = frozenset(self._again), set()
                with self._reloading():
                    await self.reload(again)
            if not (files := _key_files(self._settings)):
                continue
            now = await trio.to_thread.run_sync(look_at, files)
            # One that a reload has brought may have changed while that went on.
            if any(seen.get(path) != look for path, look in now.items()):
                await self.read_keys()
            seen = {**seen, **now}

    async def reload(self, again: frozenset[str] = frozenset()) -> None:
        """Read the configuration, and carry it out or refuse it; the log has what came of it."""
        try:
            change = await trio.to_thread.run_sync(self._prepare, again)
            started = await self._served.start(change.wanted, change.launchers)
        except (ConfigError, SandboxError, NotStarted) as error:
            message = f"reload: refused as a whole, nothing has changed: {error}"
            if not (self._quietly and message == self._refused):
                logs.event(log, logging.ERROR, message)
            self._refused = message
            return
        except ShuttingDown:
            return
        except Exception:  # the boundary: what is served goes on, whatever a configuration sets off
            log.exception("reload: refused as a whole, nothing has changed: this is a defect")
            return
        self._refused = ""
        self.looks = change.looks
        changed = self._carry_out(change, started)
        if left := list(differences(self._settings, change.wanted)):
            message = f"reload: needs a restart of the gateway: {', '.join(left)}"
            logs.event(log, logging.WARNING, message)
        what = "done" if changed else "nothing has changed"
        logs.event(log, logging.INFO, f"reload: {what}")

    async def read_keys(self) -> None:
        """Read the keys of services and of callers again, and use them from now on."""
        try:
            services = await trio.to_thread.run_sync(
                self._with_keys, self._settings, self._settings.run_here, _key_files(self._settings)
            )
            keys = await trio.to_thread.run_sync(read_keys, self._settings, os.environ)
        except (ConfigError, SandboxError) as error:
            logs.event(log, logging.ERROR, f"keys: the last ones stay in use: {error}")
            return
        except Exception:  # the boundary: as for a reload
            log.exception("keys: the last ones stay in use: this is a defect")
            return
        self._change_callers(keys)
        for name, those in services.items():
            self._change_services(name, those)

    # Checking: in a thread, and without a change

    def _prepare(self, again: frozenset[str]) -> _Change:
        """What is to be done, once all of it was checked. Raises ConfigError, SandboxError."""
        wanted = self._read()
        if wanted.fleet.role != self._settings.fleet.role:
            raise ConfigError("fleet.role has changed, which needs a restart of the gateway")
        old, new = self._settings.run_here, wanted.run_here
        looks = look_at(_files_of(wanted))
        keys = read_keys(wanted, os.environ)
        refuse_strangers(wanted.server, keys, self._addresses)
        both = [name for name in new if name in old]
        services = self._with_keys(wanted, both, _secret_files(wanted))
        replaced = frozenset(
            name
            for name in both
            if name in again
            or needs_new_workers(old[name], new[name])
            or not self._can_change(name, new[name], services[name])
        )
        for name in replaced:
            if self._served.generations(name) >= MAX_GENERATIONS:
                raise ConfigError(
                    f"agent {name!r} was replaced {MAX_GENERATIONS} times while requests that were "
                    "there before still run"
                )
        added = tuple(name for name in new if name not in old)
        changed = [*(name for name in both if name in replaced), *added]
        return _Change(
            wanted,
            services,
            replaced=replaced,
            added=added,
            removed=tuple(name for name in old if name not in new),
            # The server is as it is: its sandbox and its folders are those of the start.
            launchers=self._served.prepare(
                structs.replace(wanted, server=in_force(self._settings.server, wanted.server)),
                changed,
            )
            if changed
            else {},
            keys=keys,
            looks=looks,
        )

    def _with_keys(
        self, settings: Settings, names: Iterable[str], hidden: Iterable[str]
    ) -> Services:
        """The services of agents that are served, and whose workers see none of the files `hidden`.
        Raises ConfigError and SandboxError."""
        found: Services = {}
        for name in names:
            found[name] = read_services(settings, name, os.environ)
            try:
                self._served.launchers[name].check_services(found[name], hidden)
            except SandboxError as error:
                raise SandboxError(f"agent {name!r}: {error}") from None
        return found

    def _can_change(self, name: str, wanted: AgentSettings, services: Sequence[Service]) -> bool:
        return self._served.launchers[name].can_change(wanted.sandbox, services)

    # Carrying out: one step

    def _carry_out(self, change: _Change, started: Mapping[str, AgentSupervisor]) -> bool:
        """Put a change in force; returns whether anything is different now."""
        before, wanted = self._settings, change.wanted
        changed = False
        for name, services in change.services.items():
            if name not in change.replaced:
                changed |= self._change_network(name, wanted.agents[name])
                changed |= self._change_services(name, services)
        self._served.put(started.values())
        for name in change.removed:
            self._served.remove(name, wanted.server.drain_seconds)
        for names, what in (
            (sorted(change.replaced), "replaced"),
            (change.added, "added"),
            (change.removed, "removed"),
        ):
            for name in names:
                changed = True
                logs.event(log, logging.INFO, f"reload: {what}", agent=name)
        for launcher in (agent.launcher for agent in started.values()):
            launcher.meter.set_budgets(launcher.services)
        self._settings = self._now_in_force(change, started)
        changed |= self._change_callers(change.keys)
        if self._settings != before:
            changed = True
            self._tell()
        return changed

    def _change_callers(self, keys: CallerKeys) -> bool:
        changed = self._callers.change(keys)
        if changed:
            self._tell()
            names = ", ".join(keys.by_name) or "none"
            logs.event(log, logging.INFO, f"reload: keys of callers are now: {names}")
        return changed

    def _tell(self) -> None:
        for part in self._parts:
            part(self._settings, self._callers.keys)

    def _now_in_force(self, change: _Change, started: Mapping[str, AgentSupervisor]) -> Settings:
        wanted = change.wanted
        left = {
            name: agent for name, agent in self._settings.run_here.items() if name not in started
        }
        agents = {
            # What could not be changed in place is as it was.
            name: structs.replace(agent, sandbox=left[name].sandbox, services=left[name].services)
            if name in left
            else agent
            for name, agent in wanted.agents.items()
        }
        # A service stays known while an agent has it that could not be changed.
        had = [name for agent in agents.values() for name in agent.services]
        kept = {name: self._settings.services[name] for name in had if name not in wanted.services}
        return structs.replace(
            wanted,
            server=in_force(self._settings.server, wanted.server),
            fleet=self._settings.fleet,
            agents=agents,
            services={**kept, **wanted.services},
        )

    def _change_network(self, name: str, wanted: AgentSettings) -> bool:
        old, new = self._settings.agents[name], wanted.sandbox
        if new.network_rules == old.sandbox.network_rules:
            return False
        if not self._changed(name, "network", lambda each: each.change_network(new)):
            return False
        sandbox = structs.replace(old.sandbox, network=new.network, allow_local=new.allow_local)
        self._take_over(name, structs.replace(old, sandbox=sandbox))
        return True

    def _change_services(self, name: str, wanted: list[Service]) -> bool:
        if wanted == list(self._served.launchers[name].services):
            return False
        if not self._changed(name, "services", lambda each: each.change_services(wanted)):
            return False
        names = tuple(each.name for each in wanted)
        self._take_over(name, structs.replace(self._settings.agents[name], services=names))
        return True

    def _changed(self, name: str, what: str, change: Callable[[Launcher], None]) -> bool:
        try:
            change(self._served.launchers[name])
        except OSError as error:
            message = f"reload: {what} could not be changed: {error.strerror or error}"
            logs.event(log, logging.ERROR, message, agent=name)
            return False
        logs.event(log, logging.INFO, f"reload: {what} changed", agent=name)
        return True

    def _take_over(self, name: str, agent: AgentSettings) -> None:
        agents = {**self._settings.agents, name: agent}
        self._settings = structs.replace(self._settings, agents=agents)


def _files_of(settings: Settings) -> list[str]:
    """All that a configuration is read from."""
    path = [] if settings.path is None else [str(settings.path)]
    return list(dict.fromkeys([*path, *settings.files, *_key_files(settings)]))


def _secret_files(settings: Settings) -> list[str]:
    """All that no agent is to see: workers that run may be shown what was none at their start."""
    path = [] if settings.path is None else [str(settings.path)]
    return [*path, *settings.secret_files, *_key_files(settings)]


def _key_files(settings: Settings) -> list[str]:
    """Those of services and of callers."""
    of_callers = [settings.keys_file] if settings.keys_file else []
    return [*of_callers, *chain.from_iterable(map(key_files, settings.services.values()))]
