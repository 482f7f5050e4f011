"""All agents of one gateway: finds the one that a request is for, and drains them together.

Knows no HTTP; what HTTP knows of agents goes through here.

# Agents come and go

    start ─> (tried by its owner) ─> put ─> gets the requests for its name ─┬─> put of another ─┐
                                                                            └─> remove ─────────┤
                                              stop <─ its last request was left <─ winds down <─┘

An agent runs from `start` on, in a task of its own with everything that belongs to it. `put` is one
step: what came before it is served by the agent that had the name until then, what comes after it
by the new one, and no request is between the two. The earlier one *winds down*: each of its workers
ends as soon as it has nothing to do, and with its last request it is stopped. Nothing limits that
but the clocks of its requests. `remove` is the same without a successor, and with a time limit.

A conversation that has a request at the earlier agent is still served there, so that two processes
are never at work on one conversation, or in its folder. Once it has none, it goes on at the new
agent, and is told that its worker is lost (`X-Agent-Session: lost`).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import trio

from gateway import clock
from gateway.agents.status import AgentState
from gateway.errors import AgentNotFound, AgentUnavailable, ShuttingDown
from gateway.exchange import Exchange
from gateway.stopping import UntilStop
from gateway.workers.memory import measure_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from gateway.agents.agent import Agent
    from gateway.call import Call
    from gateway.observe.metrics.readings import AgentReading

    Run: TypeAlias = Callable[..., Awaitable[None]]

TURNS_PER_CPU = 2
"""Agents whose first workers start at the same time."""

TURN_SECONDS = 0.1
"""Until the next agent's turn: about what an interpreter takes to start."""

WARM_UP_SECONDS = 1.0
"""Before requests are taken although not every agent has had its turn."""

_ENDING = "the gateway is shutting down"


async def _run_itself(agent: Agent, *, task_status: trio.TaskStatus[None]) -> None:
    await agent.run(task_status=task_status)


_NONE: Mapping[str, Agent] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class _Leaving:
    """An agent that winds down."""

    agent: Agent
    open: int = 0
    """Its requests whose callers have not had their answers."""
    conversations: Counter[str] = field(default_factory=Counter)
    """How many of them each conversation has."""
    left: trio.Event = field(default_factory=trio.Event)
    """There are none any more."""

    def admitted(self, call: Call) -> None:
        self.open += 1
        if call.conversation is not None:
            self.conversations[call.conversation] += 1

    def was_left(self, call: Call) -> None:
        self.open -= 1
        if call.conversation is not None:
            self.conversations[call.conversation] -= 1
        if not self.open:
            self.left.set()


class Dispatcher:
    """The agents of one gateway. `run` must be running while requests are submitted."""

    def __init__(self, agents: Mapping[str, Agent] = _NONE, *, run: Run = _run_itself) -> None:
        """`run` is what runs one agent until it was stopped and has ended, a task of its own."""
        self.agents = dict(agents)
        """Those that requests are given to, by their names."""
        self._run = run
        self._running: dict[Agent, None] = {}
        self._leaving: dict[Agent, _Leaving] = {}
        self._nursery: trio.Nursery | None = None
        self._stopped = trio.Event()
        self._open: dict[Exchange, Agent] = {}
        """Requests whose callers have not had their answers. They outlast their time in a pool: a
        client may read for long what a worker wrote at once."""
        self._all_left: trio.Event | None = None
        self.until_stop = UntilStop()
        """For what `stop` ends beside the requests that agents were given."""
        self.new_exchange: Callable[..., Exchange] = Exchange
        """Makes what an admitted request becomes; one that keeps more, while anybody looks."""
        self.leaving = False
        """Whether load balancers are to send requests elsewhere, though they are still served."""
        self.cut_off = False
        """Of a host: whether it has no connection to its fronts, so that no request can arrive."""
        self.blind = False
        """Of a front: whether it has no connection to its hosts, so that an agent that it does not
        know may exist all the same."""
        self.drains = trio.Event()
        """Nothing is admitted any more."""

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return f"<Dispatcher {state}, {len(self.agents)} agents, {len(self._open)} requests>"

    @property
    def draining(self) -> bool:
        return self.drains.is_set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run every agent until `stop`."""
        async with trio.open_nursery() as self._nursery:
            for agent in self.agents.values():
                await self.start(agent)
            await self._nursery.start(self._warm_up)
            task_status.started()
            await self._stopped.wait()

    # Agents come and go

    @property
    def running(self) -> Collection[Agent]:
        """Every agent that has a process, or may have one: also those without requests as yet, and
        those that wind down."""
        return self._running.keys()

    def generations(self, name: str) -> int:
        """How many agents that had this name before are still winding down."""
        return sum(agent.name == name for agent in self._leaving)

    async def start(self, agent: Agent) -> None:
        """Run an agent, which gets no requests before `put`. Raises ShuttingDown."""
        if self.draining:
            raise ShuttingDown(_ENDING)
        assert self._nursery is not None
        self._running[agent] = None
        await self._nursery.start(self._run_one, agent)

    async def _run_one(
        self,
        agent: Agent,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            await self._run(agent, task_status=task_status)
        finally:
            del self._running[agent]

    def put(self, agent: Agent) -> None:
        """Give an agent that was started the requests for its name from now on."""
        before = self.agents.get(agent.name)
        self.agents[agent.name] = agent
        if before is not None:
            agent.inherit(before)
            self._wind_down(before, math.inf)
        if self.draining:
            agent.drain()

    def remove(self, name: str, seconds: float) -> None:
        """Let no agent have a name. Its requests have so much time to end."""
        self._wind_down(self.agents.pop(name), seconds)

    def _wind_down(self, agent: Agent, seconds: float) -> None:
        leaving = self._leaving[agent] = _Leaving(agent)
        for exchange, its in self._open.items():
            if its is agent:
                leaving.admitted(exchange.call)
        if not leaving.open:
            leaving.left.set()
        agent.wind_down()
        assert self._nursery is not None
        self._nursery.start_soon(self._see_off, leaving, seconds)

    async def _see_off(self, leaving: _Leaving, seconds: float) -> None:
        await clock.wait_within(leaving.left, seconds)
        leaving.agent.stop(ShuttingDown(f"agent {leaving.agent.name!r} is not served any more"))
        del self._leaving[leaving.agent]

    async def _warm_up(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the agents' first workers, a few at a time: with hundreds at once the machine would
        serve nobody. A request does not wait for its agent's turn.

        Says that it is started when it comes to the last agent, or after `WARM_UP_SECONDS`.
        """
        agents = iter(self.agents.values())
        last = trio.Event()

        async def take_turns() -> None:
            for agent in agents:
                if self.draining:
                    break
                agent.warm_up()
                await trio.sleep(TURN_SECONDS)
            last.set()

        async with trio.open_nursery() as nursery:
            for _ in range(TURNS_PER_CPU * len(os.sched_getaffinity(0))):
                nursery.start_soon(take_turns)
            with trio.move_on_after(WARM_UP_SECONDS):
                await last.wait()
            task_status.started()

    def agent(self, name: str) -> Agent:
        """Raises AgentNotFound, or AgentUnavailable while `blind`."""
        try:
            return self.agents[name]
        except KeyError:
            if self.blind:
                raise AgentUnavailable(
                    f"whether there is an agent {name!r} is not known: the gateway has no "
                    "connection to the hosts of its agents",
                    retry_after=1.0,
                ) from None
            raise AgentNotFound(f"there is no agent {name!r}") from None

    def submit(self, call: Call) -> Exchange:
        """Admit a request; `leave` must be called for it. Raises GatewayError."""
        agent = self.agent(call.agent)
        if self._leaving and call.conversation is not None:
            agent = self._at_work_on(call) or agent
        exchange = agent.submit(call, self.new_exchange)
        self._open[exchange] = agent
        if self._leaving and agent in self._leaving:
            self._leaving[agent].admitted(call)
        return exchange

    def _at_work_on(self, call: Call) -> Agent | None:
        """The earlier agent that has a request of the conversation and binds it to a worker."""
        for agent, leaving in self._leaving.items():
            bound = agent.name == call.agent and agent.settings.session != "none"
            if bound and leaving.conversations[call.conversation or ""]:
                return agent
        return None

    def leave(self, exchange: Exchange) -> None:
        """A request's answer was given, or nobody waits for it any more: then it is cancelled."""
        agent = self._open.pop(exchange, None)
        if agent is None:
            return  # it was left before
        agent.leave(exchange)
        if self._leaving and agent in self._leaving:
            self._leaving[agent].was_left(exchange.call)
        if self._all_left is not None and not self._open:
            self._all_left.set()

    @property
    def can_serve(self) -> bool:
        """Whether any agent can. One agent's trouble is its own: others are to be served."""
        return any(agent.state.can_serve for agent in self.agents.values())

    @property
    def warm(self) -> bool:
        """Whether no agent that keeps workers waits for its first: it has spoken, or failed."""
        keeping = (agent for agent in self.agents.values() if agent.settings.workers.min)
        return not any(agent.state in {AgentState.COLD, AgentState.STARTING} for agent in keeping)

    @property
    def ready(self) -> bool:
        """Whether load balancers are to send requests here."""
        return self.can_serve and not self.leaving and not self.cut_off

    # What the metrics and the console are told

    @property
    def open(self) -> Collection[Exchange]:
        """The requests whose callers have not had their answers, the oldest first."""
        return self._open.keys()

    @property
    def readings(self) -> list[AgentReading]:
        every = (agent.reading for agent in self.agents.values())
        return [reading for reading in every if reading is not None]

    @property
    def open_streams(self) -> Counter[str]:
        """By agent, how many streams there are whose callers have not had their ends."""
        return Counter(each.call.agent for each in self._open if each.call.stream)

    async def memory(self) -> Counter[str]:
        """By agent, the resident bytes of its workers' process trees together."""
        pids = {
            (name, worker_id): pid
            for name, agent in self.agents.items()
            for worker_id, pid in agent.pids().items()
        }
        held: Counter[str] = Counter()
        for (name, _), size in (await measure_all(pids)).items():
            held[name] += size
        return held

    async def drain(self, seconds: float = math.inf) -> bool:
        """Admit nothing more, and wait for open requests; whether all were answered in time."""
        self.drains.set()
        for agent in self._running:
            agent.drain()
        return await self._wait_until_all_left(seconds)

    async def stop(self, seconds: float) -> None:
        """Stop every agent, end open requests with `shutting_down` and whatever is `until_stop`;
        give the answers time."""
        self.drains.set()
        self._stopped.set()
        error = ShuttingDown(_ENDING)
        for agent in self._running:
            agent.stop(error)
        for leaving in self._leaving.values():
            leaving.left.set()
        self.until_stop.stop()
        await self._wait_until_all_left(seconds)

    async def _wait_until_all_left(self, seconds: float) -> bool:
        if self._open:
            self._all_left = trio.Event()
            await clock.wait_within(self._all_left, seconds)
        return not self._open
