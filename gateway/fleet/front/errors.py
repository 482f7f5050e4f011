"""Errors of a request at a host: those that the host tells of, made anew, and the loss of the host.
Pure.

A host that was broken into can say whatever it likes here. So a front takes a type only out of its
own table, and the rest within bounds; what callers are told of keys, limits and their own requests'
form is said by the front alone.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from gateway.errors import (
    AgentFailed,
    AgentNotFound,
    AgentUnavailable,
    Cancelled,
    ClientTooSlow,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    InternalError,
    InvalidAgentResponse,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.observe.harmless import shortened

if TYPE_CHECKING:
    from gateway.fleet.messages import Detail, Error
    from gateway.fleet.subjects import Peer

MOST_DETAILS = 16
MOST_TEXT = 64 * 1024
"""Characters of the message, and of each detail: as much as the longest of a host has, which names
the mismatches of an input."""

MOST_RETRY_AFTER = 86_400.0
"""Seconds."""

_DETAIL = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")

_OTHERS = frozenset(
    {"message", "output_begun", "request_id", "retry_after", "self", "status", "type"}
)
"""What stands beside the details in an error's body."""

_PLAIN: dict[str, type[GatewayError]] = {
    kind.type: kind
    for kind in (
        AgentFailed,
        AgentNotFound,
        AgentUnavailable,
        HandlerNotImplemented,
        InternalError,
        InvalidAgentResponse,
        InvalidRequest,
        Overloaded,
        ShuttingDown,
        WorkerCrashed,
    )
}

_HOSTS_CLOCKS = frozenset({"start", "queue", "first", "idle", "total"})


class HostsClock(ClockRanOut):
    """A clock of a host ran out, which has said so in a sentence of its own."""

    def __init__(
        self, message: str, clock: str, *, retry_after: float | None, details: dict[str, Detail]
    ) -> None:
        GatewayError.__init__(self, message, retry_after=retry_after, **details)
        self._fix(clock=clock)


def made_anew(error: Error, host: Peer) -> GatewayError:
    """What a caller is told of an error at a host."""
    retry_after = error.retry_after
    if retry_after is not None:
        in_bounds = math.isfinite(retry_after) and 0 <= retry_after <= MOST_RETRY_AFTER
        retry_after = retry_after if in_bounds else None
    details = {
        name: shortened(value, MOST_TEXT) if isinstance(value, str) else value
        for name, value in list(error.details.items())[:MOST_DETAILS]
        if _DETAIL.match(name) and name not in _OTHERS and _is_good(value)
    }
    message = shortened(error.message, MOST_TEXT)
    match error.type:
        case Cancelled.type:
            return Cancelled()
        case ClientTooSlow.type:
            return ClientTooSlow()
        case ClockRanOut.type if details.get("clock") in _HOSTS_CLOCKS:
            clock = str(details["clock"])
            return HostsClock(message, clock, retry_after=retry_after, details=details)
    kind = _PLAIN.get(error.type)
    if kind is None:
        return broke_the_protocol(host)
    return kind(message, retry_after=retry_after, **details)


def _is_good(value: Detail) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def broke_the_protocol(host: Peer) -> InvalidAgentResponse:
    """The host has said what it may not."""
    return InvalidAgentResponse(
        f"the host {host.name!r} of the agent broke the protocol; the gateway's log says how",
        host=host.name,
    )


def lost(host: Peer, how: str) -> WorkerCrashed:
    """The host is gone, or cannot be reached, and may have run the request. `how` is the predicate
    of a sentence."""
    return WorkerCrashed(
        f"the host {host.name!r}, which had the request, {how}; whether the agent has finished it "
        "is not known",
        host=host.name,
    )


def not_received(host: Peer, how: str) -> AgentUnavailable:
    """The host is gone, or cannot be reached, and has certainly not run the request. `how` is as
    in `lost`."""
    return AgentUnavailable(
        f"the host {host.name!r} {how}; it has not received the request",
        retry_after=1.0,
        host=host.name,
    )


def forgotten() -> WorkerCrashed:
    """JetStream does not have a background run any more, nor what became of it."""
    return WorkerCrashed(
        "the JetStream of NATS has lost the run; whether the agent has finished it is not known"
    )


def not_accepted(host: Peer, elapsed: float, limit: float) -> ClockRanOut:
    """The host did not say in time that it has the request."""
    return ClockRanOut("accept", elapsed, limit, host=host.name)


def nowhere(agent: str) -> AgentUnavailable:
    """No host can be asked."""
    return AgentUnavailable(f"no host of the fleet serves agent {agent!r} now", retry_after=1.0)


def cut_off() -> AgentUnavailable:
    """There is no connection to NATS."""
    return AgentUnavailable(
        "the gateway has no connection to the hosts of its agents", retry_after=1.0
    )
