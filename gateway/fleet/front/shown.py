"""A fleet's hosts as people and metrics are shown them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from gateway.observe.metrics.readings import PlaceReading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.fleet.front.hosts import At, Host


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
