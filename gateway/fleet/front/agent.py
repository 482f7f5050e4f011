"""An agent whose workers are at hosts: `gateway.agents.agent.Agent` for a front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio
from msgspec import structs

from gateway import clock
from gateway.agents.declared import Declared
from gateway.agents.status import AgentState, AgentStatus, AgentSummary
from gateway.errors import Cancelled, ShuttingDown
from gateway.exchange import Exchange
from gateway.fleet.front.described import BACKSTOP
from gateway.fleet.front.errors import cut_off, nowhere
from gateway.fleet.front.hosts import merged_state
from gateway.fleet.front.request import RemoteRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.agents.agent import Agent
    from gateway.agents.pool_types import PoolWorker
    from gateway.agents.status import LastFailure, LimitMet
    from gateway.call import Call
    from gateway.errors import GatewayError
    from gateway.fleet.front.described import Described, Digests
    from gateway.fleet.front.hosts import At, Hosts
    from gateway.fleet.front.link import Link
    from gateway.fleet.lookup import Lookup
    from gateway.workers.checker_places import CheckerPlaces
    from gateway.workers.input_checker import InputChecker

MOST_HOSTS_ASKED = 3
"""Hosts that are given one request, one after the other."""

MOST_REFERRALS = 2
"""Hosts that are given it beyond these because another one has said that they have its session."""


class _HostsDeclared(Declared):
    """What the workers at hosts declare. While one version of an agent takes the place of another,
    hosts declare different things: then each checks its requests itself."""

    def __init__(self, agent: str, places: CheckerPlaces, agree: Callable[[], bool]) -> None:
        super().__init__(agent, places)
        self._agree = agree

    @property
    def checks(self) -> InputChecker | None:
        return self.inputs if self.inputs is not None and self._agree() else None


class RemoteAgent:
    """See the module's docstring.

    `connected` says whether there is a connection to NATS; `link_to` gives the way to a host. Both
    are looked at for each request. `status_of` makes the body of `GET /agent/{name}`.
    """

    def __init__(
        self,
        name: str,
        hosts: Hosts,
        described: Described,
        *,
        lookup: Lookup,
        connected: Callable[[], bool],
        link_to: Callable[[At], Link],
        status_of: Callable[[RemoteAgent], Awaitable[AgentStatus]],
        places: CheckerPlaces,
    ) -> None:
        """`places` are those for what checks inputs, of all agents together."""
        self.name = name
        self.declared = _HostsDeclared(name, places, self._agree)
        self.settings = described.settings
        self.last_failure: LastFailure | None = None
        self.last_limit: LimitMet | None = None
        self._hosts = hosts
        self._lookup = lookup
        self._connected = connected
        self._link_to = link_to
        self._status_of = status_of
        self._described = described
        self._requests: dict[Exchange, RemoteRequest] = {}
        """Those that were not left."""
        self._ending: GatewayError | None = None
        self._draining = False
        self._stopped = trio.Event()

    def __repr__(self) -> str:
        return f"<RemoteAgent {self.name} {self.state.value}, {len(self._requests)} requests>"

    # Its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Agent.run`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.declared.run)
            self.describe(self._described)
            task_status.started()
            await self._stopped.wait()
            nursery.cancel_scope.cancel()

    def describe(self, described: Described) -> None:
        """A host has described the agent anew."""
        self._described = described
        if self.settings != described.settings:
            self.settings = described.settings
        if described.known:
            self.declared.heard(described.ready)

    @property
    def digests(self) -> Digests:
        """Of the description that it goes by."""
        return self._described.digests

    def _agree(self) -> bool:
        """Whether its hosts all declare what it goes by."""
        return self._hosts.declare_the_same(self.name, self.digests)

    def warm_up(self) -> None:
        """Hosts do."""

    def inherit(self, other: Agent) -> None:
        """There is nothing to take over."""

    def wind_down(self) -> None:
        """Hosts do."""

    def displace(self, session: str) -> None:
        """Hosts do."""

    def drain(self) -> None:
        """As `Agent.drain`."""
        self._draining = True

    def stop(self, error: GatewayError) -> None:
        """As `Agent.stop`."""
        self._draining = True
        for exchange, request in list(self._requests.items()):
            if not exchange.ended:
                exchange.fail(error)
                self._cancel(request)
        self._stopped.set()

    # Requests

    def submit(self, call: Call, new: Callable[..., Exchange] = Exchange) -> Exchange:
        """As `Agent.submit`."""
        if self._draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=1.0)
        checked_by = None
        if self._agree():
            self.declared.check(call)  # what is not known yet, its host looks at
            checked_by = self.digests
        if not math.isinf(call.total):
            call = structs.replace(call, total=call.total + BACKSTOP)
        settings = self.settings
        exchange = new(call, settings.clocks, clock.now(), settings.session_by)
        session = None if settings.session == "none" else exchange.conversation
        request = RemoteRequest(exchange, self._lookup, session, checked_by)
        if not self._place(request):
            raise nowhere(self.name) if self._connected() else cut_off()
        self._requests[exchange] = request
        if call.stream:
            exchange.on_taken = request.client_took
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """As `Agent.leave`."""
        request = self._requests.pop(exchange, None)
        if request is not None:
            exchange.fail(Cancelled())
            self._cancel(request)

    def _cancel(self, request: RemoteRequest) -> None:
        if request.link is not None:
            request.link.cancel(request)

    def elsewhere(self, request: RemoteRequest, error: GatewayError) -> None:
        """A host has not run a request: give it to another, or end it with `error`."""
        if request.exchange.ended:
            return
        most = MOST_HOSTS_ASKED if request.owner is None else MOST_HOSTS_ASKED + MOST_REFERRALS
        if len(request.tried) >= most or not self._place(request):
            request.exchange.fail(error)

    def _place(self, request: RemoteRequest) -> bool:
        """Give a request to a host; False: there is none that can be asked."""
        if not self._connected():
            return False
        if request.session is not None:
            request.had = self._lookup.last(self.name, request.session)
        at = None
        if request.owner is not None:  # which is asked even if it drains
            at, request.owner = self._hosts.at(self.name, request.owner), None
        without = list(request.tried)
        while at is None or self._link_to(at).full:
            if at is not None:
                without.append(at.host.peer)
            at = self._hosts.choose(
                self.name,
                clock.now(),
                session=request.session,
                last=request.had,
                without=without,
            )
            if at is None:
                return False
        self._link_to(at).submit(request, at)
        return True

    # What is told of it

    @property
    def state(self) -> AgentState:
        if self._draining:
            return AgentState.DRAINING
        if not self._connected():
            return AgentState.AWAY
        return merged_state(self._hosts.of(self.name))

    @property
    def summary(self) -> AgentSummary:
        ready = self.declared.ready
        places = self._hosts.of(self.name)
        counts = [at.now for at in places]
        return AgentSummary(
            name=self.name,
            description=self.settings.description or (None if ready is None else ready.description),
            handlers=None if ready is None else ready.handlers,
            state=self.state,
            in_flight=sum(in_flight for in_flight, _ in counts),
            waiting=sum(waiting for _, waiting in counts),
            failures=0,
            workers=sum(at.workers for at in places),
        )

    async def status(self) -> AgentStatus:
        """As `Agent.status`, of all hosts together."""
        return await self._status_of(self)

    @property
    def reading(self) -> None:
        """Its hosts tell the metrics themselves; a front has families of the fleet."""

    @property
    def started(self) -> int:
        return 0

    # Its processes on this machine

    @property
    def workers(self) -> Sequence[PoolWorker[Any]]:
        return ()

    def pids(self) -> Mapping[int, int | None]:
        """It has no workers here."""
        return {}

    @property
    def processes(self) -> list[tuple[int, str | None]]:
        return [(pid, None) for pid in self.declared.processes]
