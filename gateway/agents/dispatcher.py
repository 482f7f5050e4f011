"""All agents of one gateway: finds the one that a request is for, and drains them together.

Knows no HTTP; what HTTP knows of agents goes through here.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.agents.pool_types import Stage
from gateway.agents.status import AgentState
from gateway.agents.supervisor import AgentSupervisor
from gateway.errors import AgentNotFound, ShuttingDown
from gateway.workers.memory import measure_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.call import Call
    from gateway.exchange import Exchange
    from gateway.observe.metrics.readings import AgentReading

TURNS_PER_CPU = 2
"""Agents whose first workers start at the same time."""

TURN_SECONDS = 0.1
"""Until the next agent's turn: about what an interpreter takes to start."""

WARM_UP_SECONDS = 1.0
"""Before requests are taken although not every agent has had its turn."""


class Dispatcher:
    """The agents of one gateway. `run` must be running while requests are submitted."""

    def __init__(self, agents: Mapping[str, AgentSupervisor]) -> None:
        self.agents = dict(agents)
        self._open: set[Exchange] = set()
        """Requests whose callers have not had their answers. They outlast their time in a pool: a
        client may read for long what a worker wrote at once."""
        self._all_left: trio.Event | None = None
        self.reading: set[trio.CancelScope] = set()
        """In each of them a request is being read that is not submitted yet. `stop` ends them."""
        self.leaving = False
        """Whether load balancers are to send requests elsewhere, though they are still served."""

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return f"<Dispatcher {state}, {len(self.agents)} agents, {len(self._open)} requests>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run every agent until `stop`."""
        async with trio.open_nursery() as nursery:
            for agent in self.agents.values():
                await nursery.start(agent.run)
            await nursery.start(self._warm_up)
            task_status.started()

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

    def agent(self, name: str) -> AgentSupervisor:
        """Raises AgentNotFound."""
        try:
            return self.agents[name]
        except KeyError:
            raise AgentNotFound(f"there is no agent {name!r}") from None

    @property
    def draining(self) -> bool:
        """Whether nothing is admitted any more."""
        return any(agent.stage is not Stage.SERVING for agent in self.agents.values())

    def submit(self, call: Call) -> Exchange:
        """Admit a request; `leave` must be called for it. Raises GatewayError."""
        exchange = self.agent(call.agent).submit(call)
        self._open.add(exchange)
        return exchange

    def leave(self, exchange: Exchange) -> None:
        """A request's answer was given, or nobody waits for it any more: then it is cancelled."""
        self.agents[exchange.call.agent].leave(exchange)
        self._open.discard(exchange)
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
        return self.can_serve and not self.leaving

    # What the metrics are told

    @property
    def readings(self) -> list[AgentReading]:
        return [agent.reading for agent in self.agents.values()]

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
        for agent in self.agents.values():
            agent.drain()
        return await self._wait_until_all_left(seconds)

    async def stop(self, seconds: float) -> None:
        """Stop every agent, end open requests with `shutting_down`; give the answers time."""
        error = ShuttingDown("the gateway is shutting down")
        for agent in self.agents.values():
            agent.stop(error)
        for scope in self.reading:
            scope.cancel()
        await self._wait_until_all_left(seconds)

    async def _wait_until_all_left(self, seconds: float) -> bool:
        if self._open:
            self._all_left = trio.Event()
            await clock.wait_within(self._all_left, seconds)
        return not self._open
