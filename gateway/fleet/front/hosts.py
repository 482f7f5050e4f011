"""Which hosts there are, by what they say of themselves, and which of them gets a request. Pure.

A host is known from its first beat on, until `lost`. What it says is checked and bounded: it may be
broken into, and then it may say anything in its own name, and start over as often as it likes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from gateway.agents.status import AgentState
from gateway.config import AGENT_NAME
from gateway.fleet.messages import MOST_AGENTS, MOST_BEATEN, NO_MESSAGE, VERSION, Beat
from gateway.fleet.subjects import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gateway.fleet.front.described import Digests
    from gateway.fleet.messages import AgentBeat
    from gateway.fleet.subjects import Peer

MOST_HOSTS = 1000
"""Hosts of a fleet."""

MOST_STARTS = 32
"""Hosts of one name: those of one machine have its name if they are given none, and while one
drains, the next may be there already."""

MOST_NAME = 200
"""Characters of an agent's name."""

MOST_VERSION = 40
"""Characters of the version of agent-gateway that a host has."""

MOST_COUNT = 1_000_000
"""Requests, of any kind, or workers, that a host is believed to have."""

_STATES = {each.value: each for each in AgentState}

_NOT_NOW = frozenset({AgentState.OPEN, AgentState.BACKOFF, AgentState.DRAINING})

_NOT_YET = frozenset({AgentState.COLD, AgentState.STARTING})
"""A request would wait for a worker's start: as long as it would for a place at a busy host, or
longer. So a host that was just started gets the first ones when the others are full."""

_decode = msgspec.msgpack.Decoder(Beat).decode


class At:
    """One agent at one host."""

    __slots__ = (
        "ask_from",
        "beat",
        "counted",
        "digests",
        "host",
        "mine",
        "revision",
        "served",
        "state",
    )

    def __init__(self, host: Host) -> None:
        self.host = host
        self.beat: AgentBeat
        """The last one."""
        self.state = AgentState.COLD
        self.mine = 0
        """Requests that this front has given to it and that have not ended."""
        self.counted = 0
        """Of these, those that there were when it told of itself last."""
        self.served = 0
        """Requests that this front has ever given to it."""
        self.revision: int | None = None
        """Of the description that is known."""
        self.digests: Digests | None = None
        """Of the same."""
        self.ask_from = 0.0
        """Running time: it is not asked to describe itself before."""

    def __repr__(self) -> str:
        return f"<At {self.host.peer}: {self.state}, {self.mine} of ours>"

    def hear(self, beat: AgentBeat) -> None:
        """It has told of itself."""
        self.beat, self.state = beat, _STATES.get(beat.state, AgentState.OPEN)
        self.counted = self.mine

    @property
    def capacity(self) -> int:
        return min(max(1, self.beat.capacity), MOST_COUNT)

    @property
    def in_flight(self) -> int:
        return min(max(0, self.beat.in_flight), MOST_COUNT)

    @property
    def waiting(self) -> int:
        return min(max(0, self.beat.waiting), MOST_COUNT)

    @property
    def workers(self) -> int:
        return min(max(0, self.beat.workers), MOST_COUNT)

    @property
    def now(self) -> tuple[int, int]:
        """Requests that are in flight and that wait: those of the last beat, and what this front
        has given to it and got back since."""
        since = self.mine - self.counted
        open_requests = max(0, self.in_flight + self.waiting + since)
        in_flight = self.in_flight + max(0, since)
        in_flight = min(in_flight, max(self.in_flight, self.capacity), open_requests)
        return in_flight, open_requests - in_flight

    @property
    def load(self) -> tuple[bool, float, int]:
        """The smaller, the sooner a request is served. The last member takes turns."""
        busy = max(self.mine, self.in_flight + self.waiting) / self.capacity
        return (self.state in _NOT_NOW, busy + (self.state in _NOT_YET), self.served)


class Host:
    """One process, from its first beat on."""

    __slots__ = ("agents", "announced", "avoided_until", "draining", "gateway", "left", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.agents: dict[str, At] = {}
        self.draining = False
        """Whether it takes only requests of conversations that it has."""
        self.left = False
        """Whether it has said that it ends: nothing may be submitted to it any more."""
        self.gateway = ""
        """The version of agent-gateway."""
        self.announced = 0
        """How many agents it says that it has."""
        self.avoided_until = 0.0
        """Running time: it has broken the protocol, and gets no requests before."""

    def leaves(self) -> None:
        """It has said that it ends, which its beats may not have said yet."""
        self.draining = self.left = True

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return f"<Host {self.peer} {state}, {len(self.agents)} agents>"


class Hosts:
    """All hosts of a fleet. `may_serve` says whether the hosts of a name may serve an agent."""

    def __init__(self, may_serve: Callable[[str, str], bool] = lambda host, agent: True) -> None:
        self._may_serve = may_serve
        self.ignored = ""
        """Why the last host that was ignored was: the predicate of a sentence."""
        self._hosts: dict[Peer, Host] = {}
        self._at: dict[str, dict[Peer, At]] = {}

    def __repr__(self) -> str:
        return f"<Hosts {list(self._hosts.values())}>"

    def __len__(self) -> int:
        return len(self._hosts)

    def get(self, peer: Peer) -> Host | None:
        return self._hosts.get(peer)

    @property
    def all(self) -> Collection[Host]:
        return self._hosts.values()

    @property
    def latest(self) -> Collection[tuple[str, At]]:
        """Agents and where they are: of hosts of one name that have the same agent, at the one
        that has come last."""
        return {
            (host.peer.name, name): (name, at)
            for host in self._hosts.values()
            for name, at in host.agents.items()
        }.values()

    @property
    def agents(self) -> Collection[str]:
        """The names of agents that any host has."""
        return self._at.keys()

    def of(self, agent: str) -> Collection[At]:
        """Where an agent is, draining hosts included."""
        return self._at.get(agent, {}).values()

    def declare_the_same(self, agent: str, digests: Digests) -> bool:
        """Whether all hosts that are given requests of an agent are known to declare this of it, or
        not known at all."""
        return all(
            at.digests is None or at.digests.ready == digests.ready
            for at in self.of(agent)
            if not at.host.draining
        )

    def is_to_describe(self, at: At, agent: str, served: Digests | None) -> bool:
        """Whether a host is to be asked for its description of an agent: it has another one now,
        or the one by which the agent is `served` is of a host that is gone."""
        if at.revision != at.beat.revision:
            return True
        if served is None or at.digests in {None, served} or at.host.draining:
            return False
        return self._is_outdated(agent, served)

    def _is_outdated(self, agent: str, digests: Digests) -> bool:
        """Whether no host describes the agent so any more, and one describes it differently."""
        known = [at.digests for at in self.of(agent) if at.digests and not at.host.draining]
        return bool(known) and digests not in known

    def heard(self, peer: Peer, data: bytes) -> Host | None:
        """Take a beat. None: it was no beat, of another version, or there is no room for the host.

        Agents that the host may not serve, and those beyond what is believed, are left out.
        """
        host = self._hosts.get(peer)
        if host is None and not self._has_room(peer):
            return None
        try:
            beat = _decode(data)
        except NO_MESSAGE:
            self.ignored = f"says what is no beat, of at most {MOST_BEATEN} agents"
            return None
        if beat.version != VERSION:
            self.ignored = f"has version {beat.version} of the fleet's protocol, this has {VERSION}"
            return None
        if host is None:
            host = self._hosts[peer] = Host(peer)
        host.draining = beat.draining or host.left
        host.gateway = beat.gateway[:MOST_VERSION]
        host.announced = len(beat.agents)
        for name, told in beat.agents.items():
            at = host.agents.get(name)
            if at is None:
                at = self._come(host, name)
                if at is None:
                    continue
            at.hear(told)
        for name in host.agents.keys() - beat.agents.keys():
            self._go(host, name)
        return host

    def _has_room(self, peer: Peer) -> bool:
        if not (NAME.match(peer.name) and NAME.match(peer.nonce)):
            self.ignored = "has a name that is none"
        elif sum(each.name == peer.name for each in self._hosts) >= MOST_STARTS:
            self.ignored = f"has the name of {MOST_STARTS} others: give each its own (fleet.name)"
        elif len(self._hosts) >= MOST_HOSTS:
            self.ignored = f"is one more than {MOST_HOSTS}"
        else:
            return True
        return False

    def _come(self, host: Host, name: str) -> At | None:
        if not (
            len(host.agents) < MOST_AGENTS
            and len(name) <= MOST_NAME
            and AGENT_NAME.match(name)
            and self._may_serve(host.peer.name, name)
        ):
            return None
        at = host.agents[name] = At(host)
        self._at.setdefault(name, {})[host.peer] = at
        return at

    def _go(self, host: Host, name: str) -> None:
        del host.agents[name]
        those = self._at[name]
        del those[host.peer]
        if not those:
            del self._at[name]

    def lost(self, peer: Peer) -> None:
        """The host is gone. If it beats again, it is there again."""
        host = self._hosts.pop(peer, None)
        if host is not None:
            for name in list(host.agents):
                self._go(host, name)

    # Choice

    def at(self, agent: str, peer: Peer) -> At | None:
        """The agent at a host, which may be draining; None: it is not there, or has left."""
        at = self._at.get(agent, {}).get(peer)
        return None if at is None or at.host.left else at

    def candidates(self, agent: str, now: float, without: Collection[Peer] = ()) -> list[At]:
        """Where a request may be given to, in no order. `without` are hosts that have refused it.
        `now` is running time."""
        return [
            at
            for peer, at in self._at.get(agent, {}).items()
            if peer not in without and not at.host.draining and at.host.avoided_until <= now
        ]

    def choose(
        self,
        agent: str,
        now: float,
        *,
        session: str | None = None,
        last: Peer | None = None,
        without: Collection[Peer] = (),
    ) -> At | None:
        """The host for a request: the least loaded. If it has a session, the one that had this
        `last`, or else the first by rank."""
        found = self.candidates(agent, now, without)
        if not found:
            return None
        if session is not None:
            for at in found:
                if at.host.peer == last:
                    return at
            return min(found, key=lambda at: rank(at.host.peer, session))
        return found[0] if len(found) == 1 else min(found, key=lambda at: at.load)


def rank(peer: Peer, session: str) -> bytes:
    """The smallest is the host of a session (rendezvous hashing): all fronts find the same, and one
    that comes or goes moves no session that is not its own."""
    return sha256(f"{peer}\0{session}".encode("utf-8", "surrogatepass")).digest()


def merged_state(places: Iterable[At]) -> AgentState:
    """The state of an agent that is at these hosts: that of the best."""
    states = {at.state for at in places if not at.host.draining}
    return next((each for each in _BEST_FIRST if each in states), AgentState.AWAY)


_BEST_FIRST = (
    AgentState.READY,
    AgentState.COLD,
    AgentState.STARTING,
    AgentState.BUSY,
    AgentState.BACKOFF,
    AgentState.OPEN,
    AgentState.DRAINING,
)
