"""A host: what fronts ask for over NATS is submitted to the agents of this process.

Owns the fronts that there are, each with its wire, the clocks of their requests, and the beats by
which they know this host. What runs the agents is the same as without a fleet.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from gateway.errors import AgentNotFound
from gateway.fleet.host.beats import Beats, describe
from gateway.fleet.host.exchange import ForwardedExchange
from gateway.fleet.host.front import Front
from gateway.fleet.host.jobs import Jobs
from gateway.fleet.host.judge import Judge
from gateway.fleet.ownership import Claims
from gateway.fleet.wire import BEAT, Wires
from gateway.observe import logs
from gateway.observe.metrics.readings import FleetReading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.agents.dispatcher import Dispatcher
    from gateway.fleet.background import Store
    from gateway.fleet.bus import Bus
    from gateway.fleet.subjects import Peer, Subjects
    from gateway.fleet.wire import Wire

log = logging.getLogger("gateway.fleet")

FLUSH_SECONDS = 2.0
"""For the last messages of a host that ends to be received."""


class Host:
    """See the module's docstring. `run` must be running, and the dispatcher's, too."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        this: Peer,
        dispatcher: Dispatcher,
        *,
        grace: float,
        store: Store | None = None,
    ) -> None:
        """A front that says nothing for `grace` seconds is gone. `store` has background runs."""
        self.background = None
        self.this = this
        self.grace = grace
        self._bus = bus
        self._subjects = subjects
        self._dispatcher = dispatcher
        self._fronts: dict[Front, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._beats = Beats(dispatcher)
        self._judge = Judge(self._exchanges)
        self._jobs: Jobs | None = None
        if store is not None:
            self._jobs = Jobs(bus, store, this, dispatcher, see=self._judge.see)
        # Before the wires: what it hears has to begin before what is asked of it.
        self._claims = Claims(this, subjects, bus, displaced=self._displaced, moved=self._moved)
        self._wires = Wires(bus, subjects, this, role="host", accept=self._accept)
        dispatcher.new_exchange = ForwardedExchange
        dispatcher.cut_off = True
        bus.watch(self._connected, self._lost)

    def __repr__(self) -> str:
        return f"<Host {self.this} of {len(self._fronts)} fronts>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve fronts, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._claims.serve(self._dispatcher.agents)
            self._nursery.start_soon(self._wires.run)
            self._nursery.start_soon(self._judge.run)
            self._nursery.start_soon(self._beat)
            if self._jobs is not None:
                self._nursery.start_soon(self._jobs.run)
            task_status.started()

    async def end(self) -> None:
        """Take leave of the fronts, for a while at most: they have received what was said to them
        then, and everything that they had submitted has been answered."""
        with trio.move_on_after(FLUSH_SECONDS):
            async with trio.open_nursery() as nursery:
                for front in self._fronts:
                    nursery.start_soon(front.take_leave)
                if self._jobs is not None:
                    nursery.start_soon(self._jobs.settled)

    # Fronts

    def _accept(self, wire: Wire) -> Front:
        front = Front(
            wire,
            self._dispatcher,
            self._claims,
            answer=self._answer,
            revision=self._beats.revision,
            see=self._judge.see,
        )
        logs.event(log, logging.INFO, "a front has come", front=str(wire.peer))
        assert self._nursery is not None
        scope = self._fronts[front] = trio.CancelScope()
        self._nursery.start_soon(self._serve, front, scope)
        return front

    async def _serve(self, front: Front, scope: trio.CancelScope) -> None:
        with scope:
            await front.run()

    def _let_go(self, front: Front) -> None:
        logs.event(log, logging.INFO, "a front has gone", front=str(front.wire.peer))
        front.wire.close()
        self._fronts.pop(front).cancel()

    def _exchanges(self) -> Iterator[ForwardedExchange]:
        for front in self._fronts:
            for request in front.requests.values():
                yield request.exchange
        if self._jobs is not None:
            yield from self._jobs.open.values()

    def _displaced(self, agent: str, session: str) -> None:
        if agent in self._dispatcher.agents:
            self._dispatcher.agents[agent].displace(session)

    def _moved(self, agent: str, session: str) -> None:
        for front in self._fronts:
            front.moved(agent, session)

    async def _answer(self, what: str, name: str) -> bytes | None:
        try:
            agent = self._dispatcher.agent(name)
        except AgentNotFound:
            return None
        match what:
            case "describe":
                return describe(agent)
            case "status":
                return msgspec.json.encode(await agent.status())
        return None

    # What is said without being asked

    def _connected(self) -> None:
        self._dispatcher.cut_off = False

    def _lost(self) -> None:
        self._dispatcher.cut_off = True

    async def _beat(self) -> None:
        while True:
            self._claims.serve(self._dispatcher.agents)
            self._claims.tick()
            if self.draining:
                self._claims.drain(ending=self._dispatcher.draining)
            if self._bus.connected:
                beat = self._beats.encode(draining=self.draining)
                self._bus.publish(self._subjects.beat(self.this), beat)
            for front in [front for front in self._fronts if front.is_gone(self.grace)]:
                self._let_go(front)
            for front in self._fronts:
                front.tell_given()
            await trio.sleep(BEAT)

    @property
    def fleet(self) -> None:
        """As `composition.member.Member.fleet`: a host does not know the others."""

    @property
    def reading(self) -> FleetReading:
        """As `composition.member.Member.reading`."""
        return FleetReading(connected=self._bus.connected, peers=len(self._fronts))

    @property
    def draining(self) -> bool:
        """Whether fronts are to send requests elsewhere."""
        return self._dispatcher.leaving or self._dispatcher.draining
