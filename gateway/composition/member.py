"""What makes a process a member of a fleet, as `server` runs it beside HTTP and its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.fleet.front.jobs import Jobs
    from gateway.front.console.fleet import Fleet
    from gateway.observe.metrics.readings import FleetReading


class Member(Protocol):
    """A front's part of a fleet, or a host's."""

    @property
    def background(self) -> Jobs | None:
        """A front's requests that outlive it."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part, until cancelled. Begun while the dispatcher runs and before HTTP is served,
        which waits for `started`: that must come soon, also where NATS is away."""

    async def end(self) -> None:
        """Say what is still to be said, within two seconds. Every request has ended by then."""

    @property
    def reading(self) -> FleetReading | None:
        """What the metrics are told; None: there is no fleet."""

    @property
    def fleet(self) -> Fleet | None:
        """What the console and the list of agents are told; None: there is no fleet, or it is not
        known here."""


class Alone:
    """What a gateway without a fleet is."""

    background = fleet = None

    def __init__(self, dispatcher: Dispatcher) -> None:
        del dispatcher

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Member.run`."""
        task_status.started()

    async def end(self) -> None:
        """As `Member.end`."""

    @property
    def reading(self) -> None:
        """As `Member.reading`."""


Join: TypeAlias = "Callable[[Dispatcher], Member]"
"""Makes the member that a gateway with this dispatcher is. The dispatcher does not run yet."""
