"""What a host says of itself: every 200 ms how its agents are, and when asked, what they are."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.fleet.messages import MOST_DESCRIPTION, VERSION, AgentBeat, AgentDescription, Beat
from protocol.worker_side import WorkerConnection

if TYPE_CHECKING:
    from gateway.agents.agent import Agent
    from gateway.agents.dispatcher import Dispatcher
    from protocol import Ready

_GATEWAY = version("agent-gateway")

_AT_REST_PER_BEAT = 60
"""Agents at rest that are looked at for one beat: each takes 5 µs, and there may be hundreds. So
fronts know within a second what has become of any of 300 that have no requests."""

_encode_beat = msgspec.msgpack.Encoder().encode


class _Revision(NamedTuple):
    """What the description of an agent was made of, and how often that has changed."""

    agent: Agent
    ready: Ready | None
    number: int


class Beats:
    """The beats of one host. `draining` is said as it is."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._revisions: dict[str, _Revision] = {}
        self._last: dict[str, AgentBeat] = {}
        self._busy: set[str] = set()
        """Agents that had requests at the last beat."""
        self._at_rest: list[str] = []
        """Agents that are to be looked at although they have no requests."""

    def encode(self, *, draining: bool) -> bytes:
        """The beat of this moment."""
        agents = self._dispatcher.agents
        busy = {exchange.call.agent for exchange in self._dispatcher.open}
        if not self._at_rest:
            self._at_rest = list(agents)
        due = busy | self._busy | set(self._at_rest[-_AT_REST_PER_BEAT:])
        del self._at_rest[-_AT_REST_PER_BEAT:]
        self._busy, last = busy, self._last
        self._last = {
            name: self._beat(agent) if name in due or name not in last else last[name]
            for name, agent in agents.items()
        }
        if len(self._revisions) > len(agents):
            self._revisions = {name: self._revisions[name] for name in agents}
        return _encode_beat(Beat(VERSION, _GATEWAY, draining, self._last))

    def _beat(self, agent: Agent) -> AgentBeat:
        summary = agent.summary
        return AgentBeat(
            summary.state,
            capacity(agent),
            summary.in_flight,
            summary.waiting,
            self.revision(agent),
            summary.workers,
        )

    def revision(self, agent: Agent) -> int:
        """Of what `describe` says of the agent now."""
        last = self._revisions.get(agent.name)
        ready = agent.declared.ready
        if last is None or last.agent is not agent or (last.ready is not ready != last.ready):
            number = 1 if last is None else last.number + 1
            last = self._revisions[agent.name] = _Revision(agent, ready, number)
        return last.number


def capacity(agent: Agent) -> int:
    """How many requests all workers that there may be can have at a time."""
    ready = agent.declared.ready
    each = 1 if ready is None else min(ready.concurrency, agent.settings.concurrency)
    return agent.settings.workers.max * each


def describe(agent: Agent) -> bytes:
    """The answer to the question "describe"."""
    settings, declared = agent.settings, agent.declared
    return msgspec.msgpack.encode(
        AgentDescription(
            ready=None if declared.ready is None else ready_line(declared.ready),
            known=declared.known,
            description=settings.description and settings.description[:MOST_DESCRIPTION],
            session=settings.session,
            session_by=settings.session_by,
            continues=settings.on_disconnect == "continue",
            most_workers=settings.workers.max,
            queue=settings.queue,
            total=settings.clocks.seconds("total"),
            write=settings.clocks.seconds("write"),
        )
    )


def ready_line(ready: Ready) -> bytes:
    """The line of the worker protocol that says this."""
    return WorkerConnection().send_ready(
        handlers=ready.handlers,
        concurrency=ready.concurrency,
        description=ready.description,
        metadata=ready.metadata,
        input=ready.input,
        output=ready.output,
        modes=ready.modes,
        tools=ready.tools,
        asks=ready.asks,
    )
