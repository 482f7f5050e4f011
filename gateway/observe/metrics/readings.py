"""What each room tells the metrics at a scrape: the values of one moment.

Counts only grow while their owner lives. Whoever is told keeps these values, which must therefore
not change later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.observe.metrics.distribution import Distribution
    from gateway.observe.metrics.requests import CallLabels, Sums


class TrafficReading(Struct, frozen=True, kw_only=True):
    """What an agent has sent to a service, or to the hosts of its network."""

    requests: Mapping[str, int]
    """By what was decided: allowed, refused, failed."""
    sent: int
    """Bytes from the agent."""
    received: int
    seconds: float = 0.0
    tokens: Mapping[str, int] = {}
    """By direction: input, output."""
    tokens_today: int = 0
    """What the budget was charged since midnight UTC."""
    tokens_per_day: int | None = None
    """The budget, if there is one."""


class AgentReading(Struct, frozen=True, kw_only=True):
    """One agent. Keys of the mappings are the same at all times, but for `services`."""

    name: str
    states: Mapping[str, bool]
    """Which of the states the agent is in."""
    waiting: int
    queue: int
    """How many requests may wait."""
    in_flight: int
    """Requests at workers."""
    workers: Mapping[str, int]
    """How many workers are in each state."""
    max_workers: int
    starts: int
    ends: Mapping[str, int]
    """By reason."""
    start_seconds: Distribution
    """From a worker's start to its `ready` or first line."""
    services: Mapping[str, TrafficReading]
    network: TrafficReading


class ConnectionsReading(Struct, frozen=True, kw_only=True):
    """Clients' connections."""

    open: int
    most: float
    refused: int
    """For want of room."""


class RunsReading(Struct, frozen=True, kw_only=True):
    """Requests that do not need their clients."""

    going_on: int
    kept: int
    """Those that have ended."""
    size: int
    """Bytes that are kept of their answers."""


class PlaceReading(Struct, frozen=True, kw_only=True):
    """One agent at one host, as a front sees it."""

    agent: str
    host: str
    draining: bool
    capacity: int
    in_flight: int
    waiting: int
    given: int
    """Requests of this front among them."""


class HostReading(Struct, frozen=True, kw_only=True):
    """A host of a fleet, as a front sees it."""

    host: str
    version: str
    """Of agent-gateway; one of a bounded number."""


class FleetReading(Struct, frozen=True, kw_only=True):
    """What a front or a host has to do with its fleet."""

    connected: bool
    """Whether there is a connection to NATS."""
    peers: int
    """Hosts of a front, fronts of a host."""
    places: list[PlaceReading] = []
    """Of a front."""
    hosts: list[HostReading] = []
    """Of a front: each pair once."""
    lost: int = 0
    """Of a front: how often a host was given up."""
    again: int = 0
    """Of a front: how often a request was given to another host."""


class Readings(Struct, frozen=True, kw_only=True):
    """Everything, at one moment."""

    requests: Mapping[CallLabels, Sums]
    keys: Mapping[str, Mapping[int, int]]
    """By the name of the caller's key and the status, how many requests there were."""
    agents: list[AgentReading]
    streams: Mapping[str, int]
    """By agent, how many streams there are whose callers have not had their ends."""
    memory: Mapping[str, int]
    """By agent, the resident bytes of its workers; measured a moment before."""
    connections: ConnectionsReading
    runs: RunsReading
    log_dropped: int
    """Lines of the log that could not be written."""
    loop_delay: Distribution
    fleet: FleetReading | None = None
    """None: the gateway is of no fleet."""
