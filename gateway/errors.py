"""Every way in which a request can end badly, and the one table that maps them to HTTP statuses.

A `GatewayError` is an immutable value: its type, a sentence for a person, and the details that help
to find the cause. One is made where the cause is known, and several requests may share it: all that
a crash ended, for example. What differs between those requests stands on their exchanges. This
module knows no format: only a dialect (see `front/dialect.py`) makes a response of an error.
"""

from __future__ import annotations

import signal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from gateway.observe.harmless import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MESSAGE = 4096
"""Characters of a message, or of a detail that is a text: either may quote an agent or a client,
who may say any amount. The reason of a failure stands at its beginning or at its end, which are
kept."""


class GatewayError(Exception):
    """A request's bad end. Subclasses fix `type`, the name that clients see, and the HTTP `status`.

    No attribute can be set after construction. The names between double underscores are the
    interpreter's: raising an error records its traceback. Copies are equal values without one.
    """

    type: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    message: str
    """One sentence, for a person; at most about `MAX_MESSAGE` characters."""
    retry_after: float | None
    """When a retry may succeed, in seconds from now; None: nothing is known of that."""
    details: Mapping[str, Any]
    """What else helps to find the cause, by name. Read-only; the values are JSON scalars."""

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        message = shortened(message, MAX_MESSAGE)
        details = {
            name: shortened(value, MAX_MESSAGE) if isinstance(value, str) else value
            for name, value in details.items()
        }
        super().__init__(message)
        self._fix(message=message, retry_after=retry_after, details=MappingProxyType(details))

    def _fix(self, **attributes: Any) -> None:
        """Set attributes during construction."""
        self.__dict__.update(attributes)

    def __setattr__(self, name: str, value: object) -> None:
        if not _is_interpreters(name):
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not _is_interpreters(name):
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")
        super().__delattr__(name)

    def unquoted(self) -> GatewayError:
        """The error without what it quotes of the answer that was wrong: for callers whose answer
        that need not have been."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the subclass with `args`, which is not how each is constructed.
        public = {k: v for k, v in self.__dict__.items() if not _is_interpreters(k)}
        return _restore, (type(self), {**public, "details": dict(self.details)})


def _is_interpreters(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _restore(kind: type[GatewayError], attributes: dict[str, Any]) -> GatewayError:
    error = kind.__new__(kind, attributes["message"])
    details = MappingProxyType(attributes["details"])
    error.__dict__.update({**attributes, "details": details})
    return error


class InvalidRequest(GatewayError):
    type, status = "invalid_request", 400


class Unauthorized(GatewayError):
    """The request has no key that is good (RFC 9110, 15.5.2)."""

    type, status = "unauthorized", 401


class Forbidden(GatewayError):
    """The request's key may not be used for this agent."""

    type, status = "forbidden", 403


class AgentNotFound(GatewayError):
    type, status = "agent_not_found", 404


class NotFound(GatewayError):
    type, status = "not_found", 404


class MethodNotAllowed(GatewayError):
    type, status = "method_not_allowed", 405

    allow: str
    """The methods that are supported, as the `Allow` header lists them (RFC 9110, 10.2.1)."""

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self._fix(allow=allow)


class RunGone(GatewayError):
    """A run, or a part of it, that was there and is not kept any more (RFC 9110, 15.5.11)."""

    type, status = "run_gone", 410


class IdempotencyKeyReused(GatewayError):
    """An Idempotency-Key came again with another request: 2.7 of
    draft-ietf-httpapi-idempotency-key-header."""

    type, status = "idempotency_key_reused", 422


class RequestTimeout(GatewayError):
    """The client did not send the whole request in time (RFC 9110, 15.5.9)."""

    type, status = "request_timeout", 408


class RequestTooLarge(GatewayError):
    type, status = "request_too_large", 413

    @classmethod
    def beyond(cls, most: float, setting: str | None) -> RequestTooLarge:
        """A body has more bytes than the setting with this path allows; None: no setting does."""
        message = f"the body is larger than {most:.0f} bytes"
        return cls(message) if setting is None else cls(message, setting=setting)


class RateLimited(GatewayError):
    """The caller's requests are more than a limit allows (RFC 6585, 4)."""

    type, status = "rate_limited", 429

    policies: str
    """The limits that were met, as the `RateLimit-Policy` header lists them."""
    left: str
    """What is left of them, as the `RateLimit` header lists it."""

    def __init__(
        self, message: str, *, retry_after: float, setting: str, policies: str = "", left: str = ""
    ) -> None:
        super().__init__(message, retry_after=retry_after, setting=setting)
        self._fix(policies=policies, left=left)


class UnsupportedMediaType(GatewayError):
    type, status = "unsupported_media_type", 415


class MisdirectedRequest(GatewayError):
    """The request names a host that the gateway does not answer for (RFC 9110, 15.5.20)."""

    type, status = "misdirected_request", 421


class RequestHeadTooLarge(GatewayError):
    """RFC 6585, 5."""

    type, status = "request_header_fields_too_large", 431


class TransferCodingNotImplemented(GatewayError):
    """RFC 9112, 6.1: a transfer coding other than `chunked`."""

    type, status = "not_implemented", 501


class HTTPVersionNotSupported(GatewayError):
    type, status = "http_version_not_supported", 505


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

    def unquoted(self) -> GatewayError:
        return InvalidAgentResponse(
            "the agent's answer is invalid; the gateway's log says how", **self.details
        )


class Overloaded(GatewayError):
    type, status = "overloaded", 503


class AgentUnavailable(GatewayError):
    """The agent failed too often and is not restarted for now."""

    type, status = "agent_unavailable", 503


class Cancelled(GatewayError):
    """The client no longer waits for the answer. It is only seen by who reads a run that another
    request has cancelled; 499 is in no RFC, and what proxies log for a request that was left."""

    type, status = "cancelled", 499

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class ClientTooSlow(GatewayError):
    """Too much of a stream waited for its client. Only ever seen as the end of a stream."""

    type, status = "client_too_slow", 503

    def __init__(self) -> None:
        super().__init__(
            "the stream was ended because too much of it was waiting to be read, while other "
            "requests were waiting for the same worker"
        )


class ShuttingDown(GatewayError):
    type, status = "shutting_down", 503


class ClockRanOut(GatewayError):
    """A clock of the settings ran out.

    `clock` is the setting's name, `elapsed` the time that was really waited and `limit` the time
    that was allowed, both in seconds. `unheard`: the worker has read the request, and has never
    written anything that arrived.
    """

    type, status = "timeout", 504

    clock: str

    def __init__(
        self, clock: str, elapsed: float, limit: float, *, unheard: bool = False, **details: Any
    ) -> None:
        super().__init__(
            f"{CLOCK_MEANINGS[clock]} took longer than the {clock!r} clock of {limit:g} s allows"
            + (_BUFFERED if unheard else ""),
            clock=clock,
            elapsed=round(elapsed, 3),
            **details,
        )
        self._fix(clock=clock)


_BUFFERED = (
    ". The worker has read the request and never written a line: if it has answered, its answer is "
    "still in a buffer of its own; flush after each line (python -u, jq --unbuffered, stdbuf -oL)"
)

CLOCK_MEANINGS = {
    "start": "the worker's start (spawn to its first line)",
    "queue": "waiting for a worker",
    "first": "waiting for the agent's first word",
    "idle": "waiting for the agent's next word",
    "total": "the request",
    "write": "waiting for the client to read",
    "accept": "waiting for the agent's host to take the request",
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
    """How a process ended, as the predicate of a sentence: "exited with status 3"."""
    how = describe_exit(returncode)
    if "signal" in how:
        return f"was ended by {how['signal']}"
    return f"exited with status {how['exit_status']}"
