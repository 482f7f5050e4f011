"""A reload: the configuration is read again, checked as a whole, and what can change while the
gateway runs does change.

# Theory of operation

    SIGHUP ─> read and check ─> wrong: refused as a whole, nothing has changed
                             └> compare with what is in force
                                  ├─> can change now: told to the agents' processes of the network
                                  └─> cannot: named in the log, takes effect at the next start

What is in force is kept as settings, into which each change that was carried out is taken over: so
what was not is named again at the next reload. Reloads take turns: signals that come meanwhile are
one more reload afterwards.

Keys, of services and of callers, are read again at a reload, and when a file that holds some has
changed, which is looked at every few seconds: whoever rotates a key may not be who may signal the
gateway. Then the keys alone change, and the configuration is left unread: it may be half edited. A
variable of the gateway's cannot change while it runs.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct, structs

from gateway.config import ConfigError, read_keys, read_services
from gateway.config.services import Service, key_files
from gateway.front.sockets import refuse_strangers
from gateway.observe import logs
from gateway.sandbox import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gateway.config import AgentSettings, CallerKeys, Settings
    from gateway.front.auth import Keys
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")

LOOK_SECONDS = 2.0
"""Between two looks at the files of keys."""


Services = dict[str, list[Service]]
"""The services of each agent, with their keys."""


class Reloader:
    """Reloads the configuration when it is asked to, and keys when their files have changed.
    `run` must be running."""

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        launchers: Mapping[str, Launcher],
        *,
        callers: Keys,
        addresses: Sequence[str] = (),
    ) -> None:
        """`read` reads and checks the configuration, in a thread; it raises ConfigError. `settings`
        are those that `launchers` were made from. `callers` are told of other keys, and `addresses`
        are where the gateway listens."""
        self._read = read
        self._settings = settings
        self._launchers = launchers
        self._callers = callers
        self._addresses = addresses
        self._asked = trio.Event()

    def __repr__(self) -> str:
        return f"<Reloader {'asked' if self._asked.is_set() else 'waiting'}>"

    def ask(self) -> None:
        """Have the configuration read again soon."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is due, until cancelled."""
        seen = await trio.to_thread.run_sync(_look_at, _key_files(self._settings))
        if seen:
            await self.read_keys()  # one may have changed since the launchers were made
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._asked.wait()
            if self._asked.is_set():
                self._asked = trio.Event()
                await self.reload()
            if not (files := _key_files(self._settings)):
                continue
            now = await trio.to_thread.run_sync(_look_at, files)
            if any(seen.get(path, look) != look for path, look in now.items()):
                await self.read_keys()
            seen = {**seen, **now}

    async def reload(self) -> None:
        """Read the configuration, and carry out what can be. Says in the log what came of it."""
        try:
            wanted, services, keys = await trio.to_thread.run_sync(self._look)
        except (ConfigError, SandboxError) as error:
            logs.event(
                log, logging.ERROR, f"reload: refused as a whole, nothing has changed: {error}"
            )
            return
        changed = self._change_callers(keys)
        for name in self._launchers:
            if name in wanted.agents:
                changed |= self._change_network(name, wanted.agents[name])
                changed |= self._change_services(name, services[name])
        # A service stays known while an agent has it that could not be changed.
        had = [name for agent in self._settings.agents.values() for name in agent.services]
        kept = {name: self._settings.services[name] for name in had}
        self._settings = structs.replace(
            self._settings,
            services={**kept, **wanted.services},
            keys=wanted.keys,
            keys_file=wanted.keys_file,
            server=structs.replace(
                self._settings.server, allow_anonymous=wanted.server.allow_anonymous
            ),
        )
        if left := list(differences(self._settings, wanted)):
            message = f"reload: needs a restart of the gateway: {', '.join(left)}"
            logs.event(log, logging.WARNING, message)
        what = "done" if changed else "nothing has changed"
        logs.event(log, logging.INFO, f"reload: {what}")

    async def read_keys(self) -> None:
        """Read the keys of services and of callers again, and use them from now on."""
        try:
            services = await trio.to_thread.run_sync(self._with_keys, self._settings)
            keys = await trio.to_thread.run_sync(read_keys, self._settings, os.environ)
        except (ConfigError, SandboxError) as error:
            logs.event(log, logging.ERROR, f"keys: the last ones stay in use: {error}")
            return
        self._change_callers(keys)
        for name, those in services.items():
            self._change_services(name, those)

    def _look(self) -> tuple[Settings, Services, CallerKeys]:
        """The configuration as it is now, as a whole. Raises ConfigError, SandboxError."""
        wanted = self._read()
        keys = read_keys(wanted, os.environ)
        refuse_strangers(wanted.server, keys, self._addresses)
        return wanted, self._with_keys(wanted), keys

    def _change_callers(self, keys: CallerKeys) -> bool:
        changed = self._callers.change(keys)
        if changed:
            names = ", ".join(keys.by_name) or "none"
            logs.event(log, logging.INFO, f"reload: keys of callers changed: {names}")
        return changed

    def _with_keys(self, settings: Settings) -> Services:
        hidden = _key_files(settings)
        found: Services = {}
        for name, launcher in self._launchers.items():
            if name in settings.agents:
                found[name] = read_services(settings, name, os.environ)
                try:
                    launcher.check_services(found[name], hidden)
                except SandboxError as error:
                    raise SandboxError(f"agent {name!r}: {error}") from None
        return found

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
        if wanted == list(self._launchers[name].services):
            return False
        if not self._changed(name, "services", lambda each: each.change_services(wanted)):
            return False
        names = tuple(each.name for each in wanted)
        self._take_over(name, structs.replace(self._settings.agents[name], services=names))
        return True

    def _changed(self, name: str, what: str, change: Callable[[Launcher], bool]) -> bool:
        try:
            if not change(self._launchers[name]):
                return False
        except OSError as error:
            message = f"reload: {what} could not be changed: {error.strerror or error}"
            logs.event(log, logging.ERROR, message, agent=name)
            return False
        logs.event(log, logging.INFO, f"reload: {what} changed", agent=name)
        return True

    def _take_over(self, name: str, agent: AgentSettings) -> None:
        agents = {**self._settings.agents, name: agent}
        self._settings = structs.replace(self._settings, agents=agents)


def _key_files(settings: Settings) -> list[str]:
    """Those of services and of callers."""
    of_callers = [settings.keys_file] if settings.keys_file else []
    return [*of_callers, *chain.from_iterable(map(key_files, settings.services.values()))]


def _look_at(paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What of each file is different once it was written to or replaced. A file that cannot be
    looked at is left out: it is about to be replaced."""
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found[path] = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
    return found


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The paths, with dots, of the settings that differ. No value is told: it may be a secret."""
    if isinstance(old, Struct) and type(old) is type(new):
        old, new = structs.asdict(old), structs.asdict(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield f"{below} (removed)"
            elif key not in old:
                yield f"{below} (added)"
            else:
                yield from differences(old[key], new[key], below)
    elif old != new:
        yield path
