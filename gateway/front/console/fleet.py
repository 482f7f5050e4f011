"""The hosts of a fleet as the console shows them, and what is new to a reader.

As with agents, what has not changed of a host is the very object that it was the time before. A
host that is heard as it should be has no time at which it was heard, which would be another one at
each look. One that is there no more, and has not said that it ends, is shown as away for a while:
it may have crashed, and whoever watches is to see that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, structs

from gateway import clock
from gateway.front.slices import Slices, pieces
from gateway.observe.harmless import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.agents.status import HostSummary
    from gateway.fleet.front.shown import ShownHost, ShownPlace
    from gateway.front.console.rights import Rights

SILENT_SECONDS = 1.0
"""Since a host was heard: five of its beats."""

AWAY_SECONDS = 60.0
"""For which a host that has gone is shown."""

MOST_AWAY = 100
"""Hosts of those that are shown: one that is broken may start over as often as it likes."""

MOST_PLACES = 300
"""Agents of hosts that are told of in one event, about: each host counts as one, too."""


class Fleet(Protocol):
    """What the console must know of a front of a fleet, and what the list of agents must."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS."""

    def show_hosts(self) -> Iterable[ShownHost]:
        """The hosts that there are, each as it is when it is asked for."""

    def hosts_of(self, agent: str, most: int) -> tuple[list[HostSummary], int]:
        """So many of an agent's hosts at most, and how many are left out."""

    def has_left(self, host_id: str) -> bool:
        """Whether a host that is there no more had said that it ends."""


class HostView(Struct, frozen=True, kw_only=True):
    """HOST, as the README has it, with all members."""

    id: str
    name: str
    version: str
    state: str
    heard: float | None
    agents: Mapping[str, ShownPlace]


_MEMBERS = ("version", "state", "heard")


class HostGlances:
    """Of the hosts of one fleet."""

    def __init__(self) -> None:
        self._last: dict[str, HostView] = {}
        self._heard_at: dict[str, float] = {}
        """Of the hosts that were there the last time, in running time."""
        self._gone: dict[str, tuple[float, HostView]] = {}
        """Those that are shown as away, and until when."""

    def __repr__(self) -> str:
        return f"<HostGlances at {len(self._last)} hosts>"

    async def look(self, fleet: Fleet) -> Mapping[str, HostView]:
        """The views by id. Each is of one moment; other tasks run in between."""
        slices = Slices()
        offset = time.time() - clock.now()
        views, heard_at = {}, {}
        for host in fleet.show_hosts():
            views[host.id] = self._view(host, offset)
            heard_at[host.id] = host.heard_at
            await slices.pause()
        self._keep_gone(fleet, views, offset)
        self._heard_at = heard_at
        self._last = views | {key: view for key, (_, view) in self._gone.items()}
        return self._last

    def forget(self) -> None:
        """Nobody looks any more: who goes meanwhile is not seen to go."""
        self._last, self._heard_at, self._gone = {}, {}, {}

    def _view(self, host: ShownHost, offset: float) -> HostView:
        silent = clock.now() - host.heard_at >= SILENT_SECONDS
        last = self._last.get(host.id)
        heard = None
        if silent:  # the time at which the silence began stays what it was
            known = last is not None and self._heard_at.get(host.id) == host.heard_at
            heard = last.heard if last is not None and known else None
            heard = heard or round(host.heard_at + offset, 3)
        view = HostView(
            id=host.id,
            name=host.name,
            version=printable(host.version),
            state="silent" if silent else "draining" if host.draining else "beating",
            heard=heard,
            agents=host.agents,
        )
        return last if last is not None and last == view else view

    def _keep_gone(self, fleet: Fleet, views: Mapping[str, HostView], offset: float) -> None:
        names = {view.name for view in views.values()}
        now = clock.now()
        for key in self._heard_at.keys() - views.keys():
            if not fleet.has_left(key):
                heard = round(self._heard_at[key] + offset, 3)
                view = structs.replace(self._last[key], state="away", heard=heard)
                self._gone[key] = (now + AWAY_SECONDS, view)
        self._gone = {
            key: (until, view)
            for key, (until, view) in list(self._gone.items())[-MOST_AWAY:]
            if until > now and view.name not in names and key not in views
        }


class SeenHosts:
    """What one reader has been told. `agent` is the only one that is shown; None: all."""

    def __init__(self, rights: Rights, agent: str | None) -> None:
        self._rights = rights
        self._agent = agent
        self._told: dict[str, HostView] = {}

    def _shows_agent(self, name: str) -> bool:
        return self._agent in {None, name} and self._rights.may_call(name)

    def _shows(self, view: HostView) -> bool:
        """Hosts without agents are for those who may see every agent."""
        everything = self._agent is None and self._rights.caller.agents is None
        return everything or any(map(self._shows_agent, view.agents))

    def news(self, views: Mapping[str, HostView]) -> Iterator[dict[str, Any]]:
        """What has changed, and is told now, in pieces: `hosts` and `removed`."""
        before = self._told
        self._told = {key: view for key, view in views.items() if self._shows(view)}
        removed = [key for key in before if key not in self._told]
        told: list[dict[str, Any]] = []
        size = 0
        for key, view in self._told.items():
            last = before.get(key)
            if last is view:
                continue
            for change in self._changes(last, view):
                told.append(change)
                size += 1 + len(change["agents"])
                if size >= MOST_PLACES:
                    yield {"hosts": told, "removed": removed}
                    told, removed, size = [], [], 0
        if told or removed:
            yield {"hosts": told, "removed": removed}

    def _changes(self, last: HostView | None, view: HostView) -> Iterator[dict[str, Any]]:
        agents: dict[str, ShownPlace | None] = {
            name: place
            for name, place in view.agents.items()
            if (last is None or last.agents.get(name) != place) and self._shows_agent(name)
        }
        if last is not None:
            gone = last.agents.keys() - view.agents.keys()
            agents |= dict.fromkeys(filter(self._shows_agent, gone))
        change: dict[str, Any] = {} if last is not None else {"name": view.name}
        change |= {
            name: getattr(view, name)
            for name in _MEMBERS
            if last is None or getattr(last, name) != getattr(view, name)
        }
        for piece in pieces(agents.items(), MOST_PLACES):
            yield {"id": view.id, **change, "agents": dict(piece)}
            change = {}
        if change:
            yield {"id": view.id, **change, "agents": {}}
