"""What a caller is told when a pool does not admit its request, or gives it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.agents.pool_types import CircuitOpenError, NotServingError, QueueFullError
from gateway.errors import AgentUnavailable, Overloaded, ShuttingDown

if TYPE_CHECKING:
    from gateway.agents.pool_types import RefusedError
    from gateway.agents.status import LastFailure
    from gateway.errors import GatewayError


def as_error(
    refused: RefusedError, agent: str, waiting: int, last_failure: LastFailure | None
) -> GatewayError:
    """The error for a refusal; `waiting` is how many requests wait for the agent."""
    if isinstance(refused, QueueFullError):
        return Overloaded(
            f"{waiting} requests are waiting for agent {agent!r} already",
            retry_after=refused.retry_after,
        )
    if isinstance(refused, CircuitOpenError):
        return unavailable(agent, last_failure, refused.retry_after)
    assert isinstance(refused, NotServingError)
    return ShuttingDown("the gateway is shutting down", retry_after=refused.retry_after)


def unavailable(
    agent: str, last_failure: LastFailure | None, retry_after: float
) -> AgentUnavailable:
    """The error while the circuit breaker is open."""
    reason = f"; its last failure: {last_failure.message}" if last_failure else ""
    return AgentUnavailable(
        f"agent {agent!r} has failed too often and is not restarted for now{reason}",
        retry_after=retry_after,
    )
