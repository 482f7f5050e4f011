"""A front's part of its fleet: the hosts that there are, the ways to them, and their agents.

# Theory of operation

    beats ──> Hosts: who is there, and how loaded ──> RemoteAgent: which host gets a request
                └──> a Link for each host                            │
                └──> agents come and go with them      Link ── Wire ─┴─> the host

A host is there from its first beat on. It is *given up* when NATS says that nobody listens to what
it is sent, or when nothing has come from it for the `link` clock: then its requests end, or go to
another host if it has certainly not received them. A host that was given up and beats again is
there again.

**Who may be judged.** Nobody is without a connection to NATS, nor for a moment after a new one or
after a silence of all: those who were away at the same time need as long. Silence counts against
the last time at which anything at all came from NATS (`Bus.heard_at`), so that a network that is
away here is not taken for hosts that are. After the process itself stood still, what was sent
meanwhile has to be read first: a beat that comes late judges nobody.

Without NATS for longer than `grace`, every request that is at a host ends.

An agent is served from its first description on. When its last host has gone it stays for
`LINGER_SECONDS`, during which its requests are refused with a 503: a host that is started again has
it again. After that it does not exist.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.errors import ShuttingDown
from gateway.fleet.front.agent import RemoteAgent
from gateway.fleet.front.budget import REFILL, Budget
from gateway.fleet.front.described import read_description
from gateway.fleet.front.hosts import Hosts
from gateway.fleet.front.jobs import Jobs
from gateway.fleet.front.link import Link
from gateway.fleet.front.shown import Versions, read_place, show_host, summarize_places
from gateway.fleet.front.status import ask_all, merge
from gateway.fleet.front.troubles import Troubles
from gateway.fleet.lookup import Lookup
from gateway.fleet.messages import MOST_AGENTS as MOST_OF_HOST
from gateway.fleet.subjects import Peer
from gateway.fleet.wire import BEAT, Wires
from gateway.observe import logs
from gateway.observe.metrics.readings import FleetReading
from gateway.workers.checker_places import CheckerPlaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.agents.dispatcher import Dispatcher
    from gateway.agents.status import AgentStatus, HostSummary
    from gateway.config.fleet import FleetSettings
    from gateway.errors import GatewayError
    from gateway.fleet.background import Store
    from gateway.fleet.bus import Bus, Delivery
    from gateway.fleet.front.described import Described
    from gateway.fleet.front.request import RemoteRequest
    from gateway.fleet.front.shown import ShownHost
    from gateway.fleet.subjects import Subjects

log = logging.getLogger("gateway.fleet")

MOST_AGENTS = 2000
"""Agents of a fleet."""

MOST_LEFT = 100
"""Hosts that have ended in order, and are remembered."""

LINGER_SECONDS = 60.0
"""An agent whose last host has gone is known for so long."""

REMOVE_SECONDS = 30.0
"""For the last requests of an agent that is not known any more: none of them is at a host."""

GRACE_AFTER_RETURN = 2.0
"""Seconds after a new connection, or after a silence of all, in which no host is judged."""

ALL_SILENT = 1.0
"""Seconds without anything from NATS, which gives a sign of life five times in it."""

LATE = 0.15
"""Seconds by which a beat may be late and judge."""

ASK_SECONDS = 2.0
"""Until a host is asked again that does not describe an agent."""

ROOM_SECONDS = 60.0
"""Until it is asked again for a description for which there was no room."""

AVOID_SECONDS = 5.0
"""For which a host gets no requests that broke the protocol."""

FIRST_SECONDS = 1.0
"""Before HTTP is served, for the first hosts to be heard and their agents to be described."""

END_SECONDS = 1.0
"""At the end: for the last cancels to be received."""


class Front:
    """See the module's docstring. `run` must be running, and the dispatcher's, too."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        this: Peer,
        dispatcher: Dispatcher,
        settings: FleetSettings,
        *,
        store: Store | None = None,
    ) -> None:
        """`store` has background runs."""
        self.hosts = Hosts(settings.may_serve)
        self._bus = bus
        self._subjects = subjects
        self._this = this
        self._dispatcher = dispatcher
        self._settings = settings
        self._wires = Wires(bus, subjects, this, role="front")
        dispatcher.blind = True
        self._lookup = Lookup()
        self._versions = Versions()
        self._checker_places = CheckerPlaces()
        self.background: Jobs | None = None
        if store is not None:
            self.background = Jobs(bus, store, dispatcher, is_there=self._is_there)
        self._links: dict[Peer, Link] = {}
        self._agents: dict[str, RemoteAgent] = {}
        """Those that are served, or are about to be."""
        self._budget = Budget()
        self._away_since: dict[str, float] = {}
        """Agents whose last host has gone, and when."""
        self._judging_from = self._known_from = -math.inf
        self._troubles = Troubles()
        self._warn = self._troubles.warn
        self._lost_at: float | None = clock.now()
        """When the connection was lost; None while there is one."""
        self._lost_count = 0
        """Hosts that were given up."""
        self._left: deque[Peer] = deque(maxlen=MOST_LEFT)
        """Of them, the last ones that were draining."""
        self._again = 0
        """Requests that were to be given to another host."""
        self._came = trio.Event()
        """An agent has come."""
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Front {self._this}: {len(self.hosts)} hosts, {len(self._agents)} agents>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `composition.member.Member.run`."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._wires.run)
            self._bus.watch(self._connected, self._lost)
            self._nursery.start_soon(self._beat)
            if self.background is not None:
                self._nursery.start_soon(self.background.run)
            with trio.move_on_after(FIRST_SECONDS):
                await self._came.wait()
                await trio.sleep(BEAT)  # others, too
            task_status.started()

    async def end(self) -> None:
        """As `composition.member.Member.end`."""
        with trio.move_on_after(END_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in self._links.values():
                    nursery.start_soon(link.wire.settled)
        for link in list(self._links.values()):
            link.wire.close()
        self._wires.flush()

    # The connection

    def _connected(self) -> None:
        if self._lost_at is not None and self._links:
            self._judging_from = clock.now() + GRACE_AFTER_RETURN
        self._lost_at = None
        self._known_from = clock.now() + 2 * BEAT
        self._bus.subscribe(self._subjects.beats(), self._heard)
        self._bus.subscribe(self._subjects.all_owned(), self._heard_owner)

    def _lost(self) -> None:
        self._lost_at = clock.now()

    # Hosts

    def _heard(self, delivery: Delivery) -> None:
        peer = self._subjects.peer_at_end(delivery.subject)
        if peer is None or delivery.subject != self._subjects.beat(peer):
            return  # a fleet's whose prefix begins with this one's
        host = self.hosts.heard(peer, delivery.data)
        if host is None:
            self._warn("ignored", peer, f"a host is ignored: it {self.hosts.ignored}")
            return
        if host.announced > MOST_OF_HOST:
            message = (
                f"a host has {host.announced} agents, expected at most {MOST_OF_HOST}: the rest is "
                "not served; give it fewer, and others to more hosts"
            )
            self._warn("agents", peer, message)
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = Link(
                host,
                self._wires,
                elsewhere=self._elsewhere,
                described=self._described,
                unheard=self._unheard,
                broken=self._avoid,
            )
            message = f"a host has come, with {len(host.agents)} agents"
            self._troubles.news(logging.INFO, peer, message)
        link.beat_at = now = clock.now()
        for name, at in host.agents.items():
            agent = self._agents.get(name)
            served = None if agent is None else agent.digests
            if at.ask_from <= now and self.hosts.is_to_describe(at, name, served):
                if not self._budget.has_credit(peer.name, now):
                    break
                at.ask_from = now + ASK_SECONDS
                answer = partial(self._described, peer, name, at.beat.revision)
                link.ask("describe", name, answer)

    def _heard_owner(self, delivery: Delivery) -> None:
        """A host has come to own conversations."""
        peer = self._subjects.peer_at_end(delivery.subject)
        agent = delivery.subject.rsplit(".", 3)[1]
        if peer is None or agent not in self._agents:
            return  # what is not served would be remembered for ever
        if self.hosts.at(agent, peer) is not None:
            self._lookup.heard(agent, peer, delivery.data)

    def _described(self, peer: Peer, name: str, revision: int, body: bytes | None) -> None:
        host = self.hosts.get(peer)
        at = None if host is None else host.agents.get(name)
        if at is None or body is None:
            return  # it is asked again, if it is there
        now = clock.now()
        if not self._budget.spend(peer.name, len(body), now):
            message = (
                f"a host describes its agents anew faster than a front reads ({REFILL >> 10} KiB/s)"
                ": they stay as they were described before"
            )
            self._warn("changes", peer, message, agent=name)
            return
        at.ask_from = now
        described = read_description(body)
        if described is None:
            at.revision = revision
            self._warn("unusable", peer, "what a host says of an agent cannot be used", agent=name)
            return
        agent = self._agents.get(name)
        if agent is None and len(self._agents) >= MOST_AGENTS:
            at.revision = revision
            message = f"an agent is not served: a front has {MOST_AGENTS} at most"
            self._warn("full", peer, message, agent=name)
            return
        no_room = self._budget.hold(name, peer.name, len(body))
        if no_room is not None:
            at.ask_from = now + ROOM_SECONDS
            does = "is not served" if agent is None else "stays as it was described before"
            message = (
                f"an agent {does}: {no_room}; give agents less metadata and smaller schemas, or "
                "hosts names of their own (fleet.name)"
            )
            self._warn("room", peer, message, agent=name)
            return
        at.revision, at.digests = revision, described.digests
        if agent is None:
            self._come(name, described)
        else:
            agent.describe(described)

    def _elsewhere(self, request: RemoteRequest, error: GatewayError) -> None:
        self._again += 1
        agent = self._agents.get(request.exchange.call.agent)
        if agent is None:
            request.exchange.fail(error)
        else:
            agent.elsewhere(request, error)

    def _unheard(self, link: Link) -> None:
        if self._may_judge(clock.now()):
            self._give_up(link, "is gone")

    def _avoid(self, link: Link) -> None:
        link.host.avoided_until = clock.now() + AVOID_SECONDS

    def _give_up(self, link: Link, how: str) -> None:
        """A host cannot be reached any more; `how` is the predicate of a sentence."""
        peer = link.host.peer
        if self._links.get(peer) is not link:
            return
        message = f"a host {how}; it had {link.open_requests} requests"
        self._troubles.news(logging.WARNING, peer, message)
        self._lost_count += 1
        if link.host.draining:
            self._left.append(peer)
        del self._links[peer]
        self.hosts.lost(peer)
        link.give_up(how)

    def _may_judge(self, now: float) -> bool:
        return self._lost_at is None and now >= self._judging_from

    def _is_there(self, name: str) -> bool:
        """Whether a host is, by what `str` makes of it."""
        peer = Peer.parse(name)
        return peer is not None and self.hosts.get(peer) is not None

    # Agents

    def _come(self, name: str, described: Described) -> None:
        agent = self._agents[name] = RemoteAgent(
            name,
            self.hosts,
            described,
            lookup=self._lookup,
            connected=lambda: self.connected,
            link_to=lambda at: self._links[at.host.peer],
            status_of=self._status,
            places=self._checker_places,
        )
        assert self._nursery is not None
        self._nursery.start_soon(self._put, agent)

    async def _put(self, agent: RemoteAgent) -> None:
        try:
            await self._dispatcher.start(agent)
        except ShuttingDown:
            return
        self._dispatcher.put(agent)
        self._came.set()
        logs.event(log, logging.INFO, "an agent has come", agent=agent.name)

    # Time

    async def _beat(self) -> None:
        due = trio.current_time() + BEAT
        while True:
            await trio.sleep_until(due)
            late = trio.current_time() - due > LATE
            due = trio.current_time() + BEAT
            now = clock.now()
            if self._lost_at is not None and now - self._lost_at > self._settings.grace:
                for link in list(self._links.values()):
                    how = f"cannot be reached: no connection to NATS for {self._settings.grace:g} s"
                    self._give_up(link, how)
            for link in self._links.values():
                link.tick()
            if self._links and now - self._bus.heard_at > ALL_SILENT:
                self._judging_from = now + GRACE_AFTER_RETURN
            if not late and self._may_judge(now):
                self._judge(self._bus.heard_at)
            self._dispatcher.blind = self._lost_at is not None or now < self._known_from
            self._look_who_is_away(now)

    def _judge(self, at: float) -> None:
        """Give up hosts that were silent until then; end requests that they did not take."""
        for link in list(self._links.values()):
            if (silent := at - link.heard_at) > self._settings.link:
                self._give_up(link, f"has been silent for {silent:.1f} s")
            else:
                link.judge(at, self._settings.accept)

    def _look_who_is_away(self, now: float) -> None:
        for name in self._agents.keys() - self.hosts.agents:
            if self._lost_at is not None:
                self._away_since[name] = now
            elif now - self._away_since.setdefault(name, now) > LINGER_SECONDS:
                self._go(name)
        for name in self._away_since.keys() & self.hosts.agents:
            del self._away_since[name]

    def _go(self, name: str) -> None:
        del self._agents[name], self._away_since[name]
        self._lookup.forget(name)
        self._budget.forget(name)
        logs.event(log, logging.WARNING, "an agent is at no host any more", agent=name)
        if name in self._dispatcher.agents:
            self._dispatcher.remove(name, REMOVE_SECONDS)

    # What is told of it

    @property
    def reading(self) -> FleetReading:
        """As `composition.member.Member.reading`."""
        return FleetReading(
            connected=self.connected,
            peers=len(self.hosts),
            places=[read_place(name, at) for name, at in self.hosts.latest if name in self._agents],
            hosts=self._versions.read(self.hosts.all),
            lost=self._lost_count,
            again=self._again,
        )

    @property
    def fleet(self) -> Front:
        """As `composition.member.Member.fleet`."""
        return self

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS."""
        return self._lost_at is None

    def show_hosts(self) -> Iterator[ShownHost]:
        """The hosts that there are, each as it is when it is asked for."""
        for peer, link in tuple(self._links.items()):
            if peer in self._links:
                yield show_host(link.host, link.heard_at)

    def hosts_of(self, agent: str, most: int) -> tuple[list[HostSummary], int]:
        """So many of an agent's hosts at most, and how many are left out."""
        return summarize_places(self.hosts.of(agent), most)

    def has_left(self, host_id: str) -> bool:
        """Whether a host that is there no more had said that it ends; of the last ones."""
        return Peer.parse(host_id) in self._left

    async def _status(self, agent: RemoteAgent) -> AgentStatus:
        hosts = sorted(self.hosts.of(agent.name), key=lambda at: at.host.peer)
        places = [(at, self._links[at.host.peer]) for at in hosts]
        told = await ask_all(agent.name, places)
        return merge(agent.summary, agent.settings, agent.declared, [at for at, _ in places], told)
