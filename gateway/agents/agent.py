"""An agent as the dispatcher and the front see it, wherever its workers are.

`supervisor.AgentSupervisor` is one whose workers are processes of this gateway. In a fleet a front
has another kind, whose workers are at hosts (`gateway.fleet.front`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio

from gateway.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.agents.declared import Declared
    from gateway.agents.pool_types import PoolWorker
    from gateway.agents.status import AgentState, AgentStatus, AgentSummary, LastFailure, LimitMet
    from gateway.call import Call
    from gateway.config import AgentSettings
    from gateway.errors import GatewayError
    from gateway.observe.metrics.readings import AgentReading


class Agent(Protocol):
    """One agent. Compared by identity. `run` must be running while requests are submitted."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> AgentSettings:
        """Where the workers are elsewhere: what is known of the settings there, else defaults."""

    @property
    def declared(self) -> Declared:
        """What the workers declare of themselves."""

    # Its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the agent until `stop` was called and everything that belongs to it has ended."""

    def warm_up(self) -> None:
        """Start the workers that are always kept."""

    def inherit(self, other: Agent) -> None:
        """Take the place of an earlier agent of the same name and kind, before any request."""

    def wind_down(self) -> None:
        """Let each worker end as soon as it has no request. Those that come are served still."""

    def displace(self, session: str) -> None:
        """Another host of a fleet has had a session (`call.session_key`) since: what is known of it
        here counts no more, and it is told that it was lost."""

    def drain(self) -> None:
        """Admit nothing more; what is running goes on."""

    def stop(self, error: GatewayError) -> None:
        """End what is still running with `error`, and the agent itself."""

    # Requests

    def submit(self, call: Call, new: Callable[..., Exchange] = Exchange) -> Exchange:
        """Admit a request; `new` makes its exchange. Raises GatewayError."""

    def leave(self, exchange: Exchange) -> None:
        """Nobody waits for a request any more: it is cancelled if it has not ended."""

    # What is told of it

    @property
    def state(self) -> AgentState: ...

    @property
    def summary(self) -> AgentSummary:
        """The agent's entry in the list of all."""

    async def status(self) -> AgentStatus:
        """Everything about the agent."""

    @property
    def reading(self) -> AgentReading | None:
        """What the metrics are told; None where the agent's hosts tell theirs."""

    @property
    def started(self) -> int:
        """How many workers were ever started, as far as is known here."""

    @property
    def last_failure(self) -> LastFailure | None: ...

    @property
    def last_limit(self) -> LimitMet | None: ...

    # Its processes on this machine

    @property
    def workers(self) -> Sequence[PoolWorker[Any]]:
        """The workers that have not been reaped."""

    def pids(self) -> Mapping[int, int | None]:
        """The pid of each of them, None before its spawn, by its id."""

    @property
    def processes(self) -> Iterable[tuple[int, str | None]]:
        """The pid and the mark, if any, of every process that is the agent's."""
