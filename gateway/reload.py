"""A reload: the configuration is read again, checked as a whole, and what can change while the
gateway runs does change.

# Theory of operation

    SIGHUP ─> read and check ─> wrong: refused as a whole, nothing has changed
                             └> compare with what is in force
                                  ├─> can change now: told to the agents' processes of the network
                                  └─> cannot: named in the log, takes effect at the next start

What is in force is kept as settings, into which each change that was carried out is taken over: so
what was not is named again at the next reload. A reload takes turns with none: signals that come
meanwhile are one more reload afterwards.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct, structs

from gateway.config import ConfigError
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gateway.config import AgentSettings, Settings
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")


class Reloader:
    """Reloads the configuration when it is asked to. `run` must be running."""

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        launchers: Mapping[str, Launcher],
    ) -> None:
        """`read` reads and checks the configuration, in a thread; it raises ConfigError. `settings`
        are those that `launchers` were made from."""
        self._read = read
        self._settings = settings
        self._launchers = launchers
        self._asked = trio.Event()

    def __repr__(self) -> str:
        return f"<Reloader {'asked' if self._asked.is_set() else 'waiting'}>"

    def ask(self) -> None:
        """Have the configuration read again soon."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it was asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self.reload()

    async def reload(self) -> None:
        """Read the configuration, and carry out what can be. Says in the log what came of it."""
        try:
            wanted = await trio.to_thread.run_sync(self._read)
        except ConfigError as error:
            logs.event(
                log, logging.ERROR, f"reload: refused as a whole, nothing has changed: {error}"
            )
            return
        changed = [name for name in self._settings.agents if self._change(name, wanted)]
        left = list(differences(self._settings, wanted))
        if left:
            logs.event(
                log, logging.WARNING, f"reload: needs a restart of the gateway: {', '.join(left)}"
            )
        agents = ",".join(changed) or None
        what = "network changed" if changed else "nothing has changed"
        logs.event(log, logging.INFO, f"reload: {what}", agents=agents)

    def _change(self, name: str, wanted: Settings) -> bool:
        """Change what can be of one agent; returns whether anything was."""
        old, new = self._settings.agents[name], wanted.agents.get(name)
        if new is None or new.sandbox.network_hosts == old.sandbox.network_hosts:
            return False
        try:
            if not self._launchers[name].change_network(new.sandbox.network_hosts):
                return False
        except OSError as error:
            message = f"reload: network could not be changed: {error.strerror or error}"
            logs.event(log, logging.ERROR, message, agent=name)
            return False
        sandbox = structs.replace(old.sandbox, network=new.sandbox.network)
        self._take_over(name, structs.replace(old, sandbox=sandbox))
        return True

    def _take_over(self, name: str, agent: AgentSettings) -> None:
        agents = {**self._settings.agents, name: agent}
        self._settings = structs.replace(self._settings, agents=agents)


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
