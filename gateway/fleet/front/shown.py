"""A fleet's hosts as people and metrics are shown them. Pure."""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from gateway.agents.status import HostSummary
from gateway.observe.metrics.readings import HostReading, PlaceReading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gateway.fleet.front.hosts import At, Host

MOST_VERSIONS = 64
"""Versions that are labels for as long as a front lives, and of these, the first ones of which
hosts of one name have told `MOST_OF_ONE`: a host that was broken into may have another at each
scrape, and every label is a time series that Prometheus keeps."""

MOST_OF_ONE = 16

OTHER_VERSIONS = "(others)"


class ShownPlace(NamedTuple):
    """An agent at a host: numbers of requests, as its last beat has them."""

    state: str
    capacity: int
    in_flight: int
    waiting: int
    given: int
    """By this front, of `in_flight` and `waiting`."""


class ShownHost(Struct, frozen=True, kw_only=True):
    """One host."""

    id: str
    """Of the process: a host that is started again has another."""
    name: str
    version: str
    """Of agent-gateway; anything that the host has said, of a bounded length."""
    draining: bool
    heard_at: float
    """Running time of the last sign of life."""
    agents: Mapping[str, ShownPlace]


def show_host(host: Host, heard_at: float) -> ShownHost:
    """The host as it is now."""
    return ShownHost(
        id=str(host.peer),
        name=host.peer.name,
        version=host.gateway,
        draining=host.draining,
        heard_at=heard_at,
        agents={
            name: ShownPlace(at.state.value, at.capacity, at.in_flight, at.waiting, at.mine)
            for name, at in host.agents.items()
        },
    )


def summarize_place(at: At) -> HostSummary:
    """An agent at a host, as those are told who ask for the agent or the list of all."""
    in_flight, waiting = at.now
    return HostSummary(
        name=at.host.peer.name,
        id=str(at.host.peer),
        state=at.state,
        draining=at.host.draining,
        version=at.host.gateway,
        capacity=at.capacity,
        in_flight=in_flight,
        waiting=waiting,
        given=at.mine,
    )


def summarize_places(places: Collection[At], most: int) -> tuple[list[HostSummary], int]:
    """The first `most` of these, in the order of their names, and how many are left out."""
    first = nsmallest(most, places, key=lambda at: at.host.peer)
    return [summarize_place(at) for at in first], len(places) - len(first)


class Versions:
    """What the metrics are told of the versions of hosts, so that labels are bounded."""

    def __init__(self) -> None:
        self._told_by: dict[str, str] = {}
        """The versions that are labels, and the name of the host that told of each first."""

    def read(self, hosts: Iterable[Host]) -> list[HostReading]:
        """Each name of a host with its version. Hosts of one name may have several."""
        found = {(host.peer.name, self._label(host)) for host in hosts}
        return [HostReading(host=name, version=version) for name, version in sorted(found)]

    def _label(self, host: Host) -> str:
        name, version = host.peer.name, host.gateway
        if version not in self._told_by:
            of_one = sum(each == name for each in self._told_by.values())
            if len(self._told_by) >= MOST_VERSIONS or of_one >= MOST_OF_ONE:
                return OTHER_VERSIONS
            self._told_by[version] = name
        return version


def read_place(agent: str, at: At) -> PlaceReading:
    """An agent at a host, as metrics count it."""
    return PlaceReading(
        agent=agent,
        host=at.host.peer.name,
        draining=at.host.draining,
        capacity=at.capacity,
        in_flight=at.in_flight,
        waiting=at.waiting,
        given=at.mine,
    )
