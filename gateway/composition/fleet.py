"""A process as a member of its fleet: the connection to NATS, and what a front or a host does with
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gateway.composition.member import Alone, Member

if TYPE_CHECKING:
    from gateway.agents.dispatcher import Dispatcher
    from gateway.composition.member import Join
    from gateway.config import FleetSettings, Settings
    from gateway.fleet.nats_bus import NatsBus
    from gateway.observe.metrics.readings import FleetReading


def membership(settings: Settings) -> Join:
    """How the process takes part in its fleet, if these settings name one."""
    fleet = settings.fleet
    if fleet.role is None:
        return Alone
    return lambda dispatcher: _join(fleet, dispatcher, settings.server.runs.ttl)


def _join(settings: FleetSettings, dispatcher: Dispatcher, runs_ttl: float) -> Member:
    # nats-py is an extra: a gateway without a fleet imports nothing of this.
    from gateway.fleet.background import Store  # noqa: PLC0415
    from gateway.fleet.front.front import Front  # noqa: PLC0415
    from gateway.fleet.host.host import Host  # noqa: PLC0415
    from gateway.fleet.nats_bus import NatsBus  # noqa: PLC0415
    from gateway.fleet.subjects import Peer, Subjects  # noqa: PLC0415

    this, subjects = Peer.new(settings.process_name), Subjects(settings.prefix)
    bus = NatsBus(settings, name=f"{settings.role} {this}", inbox=f"{subjects.prefix}.nr.{this}.j")
    store = Store(bus, subjects.prefix, ttl=runs_ttl)
    part: Member
    if settings.role == "front":
        part = Front(bus, subjects, this, dispatcher, settings, store=store)
    else:
        part = Host(bus, subjects, this, dispatcher, grace=settings.grace, store=store)
    return _Connected(bus, part)


class _Connected:
    """A front or a host together with its connection to NATS."""

    def __init__(self, bus: NatsBus, part: Member) -> None:
        self._bus = bus
        self._part = part
        self.background = part.background
        self.fleet = part.fleet

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Member.run`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bus.keep)
            await nursery.start(self._part.run)
            task_status.started()

    async def end(self) -> None:
        """As `Member.end`."""
        await self._part.end()

    @property
    def reading(self) -> FleetReading | None:
        """As `Member.reading`."""
        return self._part.reading
