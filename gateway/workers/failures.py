"""What a worker's errors and violations are to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import (
    MAX_MESSAGE,
    AgentFailed,
    GatewayError,
    HandlerNotImplemented,
    InvalidAgentResponse,
    InvalidRequest,
)
from gateway.observe.harmless import shortened
from protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.symptoms import Diagnosis
    from protocol import Failure, RemoteProtocolError


def agents_error(failure: Failure, diagnose: Callable[[str], Diagnosis | None]) -> GatewayError:
    """What a worker answered instead of a result. `diagnose` finds the limit that it speaks of."""
    if failure.code == ErrorCode.HANDLER_NOT_IMPLEMENTED:
        return HandlerNotImplemented(failure.message or "the agent has no such handler")
    if failure.code == ErrorCode.INVALID_INPUT:
        return InvalidRequest(failure.message or "the agent refused the input")
    message = failure.message or "the agent's handler failed"
    # No more than the client is told: to look through a line of megabytes takes a second.
    found = diagnose(shortened(message, MAX_MESSAGE))
    if found is None:
        return AgentFailed(message, code=failure.code)
    return AgentFailed(
        f"{message} ({found.sentence})",
        code=failure.code,
        limit=found.limit,
        setting=found.setting,
    )


def invalid_response(error: RemoteProtocolError) -> InvalidAgentResponse:
    """What a violation of the protocol is to the client."""
    return InvalidAgentResponse(
        f"the agent's answer is invalid: {error.message}", violation=error.violation.value
    )
