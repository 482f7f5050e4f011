"""Every way in which a request can end badly, and the one table that maps them to HTTP.

A `GatewayError` is data: its type, a sentence for a person, and what helps to find the cause. It is
made where the cause is known and turned into a response once, at the boundary.
"""

from __future__ import annotations

import signal
from typing import Any

import msgspec


class GatewayError(Exception):
    """A request's bad end. Subclasses fix `type` and `status`; see design.md, "HTTP"."""

    type = "internal_error"
    status = 500

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.details = details

    def body(self, request_id: str) -> bytes:
        """The JSON text of the answer: `{"error": {"type", "message", "request_id", …}}`."""
        error = {"type": self.type, "message": self.message, "request_id": request_id}
        return msgspec.json.encode({"error": {**error, **self.details}})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the response carries besides the headers that all have."""
        if self.retry_after is None:
            return []
        # Whole seconds, and never 0: "now" is what has just failed (RFC 9110, 10.2.3).
        return [(b"retry-after", b"%d" % max(1, -int(-self.retry_after // 1)))]


class InvalidRequest(GatewayError):
    type, status = "invalid_request", 400


class AgentNotFound(GatewayError):
    type, status = "agent_not_found", 404


class NotFound(GatewayError):
    type, status = "not_found", 404


class MethodNotAllowed(GatewayError):
    type, status = "method_not_allowed", 405

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"allow", self.allow.encode())]


class RequestTimeout(GatewayError):
    """The client did not send its whole request in time (RFC 9110, 15.5.9)."""

    type, status = "request_timeout", 408


class RequestTooLarge(GatewayError):
    type, status = "request_too_large", 413


class UnsupportedMediaType(GatewayError):
    type, status = "unsupported_media_type", 415


class AgentFailed(GatewayError):
    """The handler failed and said so."""

    type, status = "agent_error", 500


class InternalError(GatewayError):
    """A defect of the gateway."""


class HandlerNotImplemented(GatewayError):
    type, status = "handler_not_implemented", 501


class WorkerCrashed(GatewayError):
    """The worker died, closed its stdout, or could not be started."""

    type, status = "worker_crashed", 501


class InvalidAgentResponse(GatewayError):
    """The worker wrote something that is not the protocol."""

    type, status = "invalid_agent_response", 502


class Overloaded(GatewayError):
    type, status = "overloaded", 503


class AgentUnavailable(GatewayError):
    """Restarts were given up for now."""

    type, status = "agent_unavailable", 503


class Cancelled(GatewayError):
    """Nobody waits for the answer any more, so nobody is told."""

    type, status = "cancelled", 499

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class ClientTooSlow(GatewayError):
    """Only ever seen in a stream: what waited for this client was too much to keep."""

    type, status = "client_too_slow", 503

    def __init__(self) -> None:
        super().__init__(
            "the stream was ended because too much of it was waiting to be read, while other "
            "requests were waiting for the same worker"
        )


class ShuttingDown(GatewayError):
    type, status = "shutting_down", 503


class ClockRanOut(GatewayError):
    """`clock` is the name of the setting, `elapsed` the true time, in seconds."""

    type, status = "timeout", 504

    def __init__(self, clock: str, elapsed: float, limit: float, **details: Any) -> None:
        self.clock = clock
        super().__init__(
            f"{CLOCK_MEANINGS[clock]} took longer than the {clock!r} clock of {limit:g} s allows",
            clock=clock,
            elapsed=round(elapsed, 3),
            **details,
        )


CLOCK_MEANINGS = {
    "start": "the worker's start (spawn to its first line)",
    "queue": "waiting for a worker",
    "first": "waiting for the agent's first word",
    "idle": "waiting for the agent's next word",
    "total": "the request",
    "write": "waiting for the client to read",
}


def describe_exit(returncode: int) -> dict[str, Any]:
    """`{"exit_status": n}` or `{"signal": "SIGKILL"}`, from a `subprocess` return code."""
    if returncode >= 0:
        return {"exit_status": returncode}
    try:
        return {"signal": signal.Signals(-returncode).name}
    except ValueError:
        return {"signal": f"signal {-returncode}"}


def exit_sentence(returncode: int) -> str:
    """How a process ended, as the end of a sentence."""
    how = describe_exit(returncode)
    if "signal" in how:
        return f"was ended by {how['signal']}"
    return f"exited with status {how['exit_status']}"
