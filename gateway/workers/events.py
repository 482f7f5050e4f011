"""What a worker tells its supervisor: values, put into an inbox one after the other.

    Spawned ── Spoke ── Answered, Paused, Retires, HalfClosed, CancelIgnored ── Ended
       └───────────────────────────────────────────────────────────────────────────┘

`Ended` is the last event of every worker; a worker that could not be started tells nothing else.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from protocol import Ready


class Reason(Enum):
    """Why a worker ends."""

    ASKED = "it was asked to"
    EXITED = "it exited"
    STDOUT_CLOSED = "it closed its stdout and did not exit"
    STDIN_CLOSED = "it closed its stdin and did not exit"
    VIOLATION = "it broke the protocol"
    UNRESPONSIVE = "it did not react in time"
    OVER_MEMORY = "it used more memory than sandbox.memory allows"
    OVER_STATE = "its folder holds more than state.size allows"
    START_TIMEOUT = "it said nothing since its start"
    NOT_STARTED = "it could not be started"


class Spawned(Struct, frozen=True, gc=False):
    """The worker's process runs, and can be sent requests."""


class Spoke(Struct, frozen=True, gc=False):
    """The worker's first line has come; None if that was not the handshake."""

    ready: Ready | None


class ReadsSilently(Struct, frozen=True, gc=False):
    """The worker has read a request before its first line: it does not speak the handshake."""


class Answered(Struct, frozen=True, gc=False):
    """The worker is done with a request. `served`: what it said was an answer."""

    exchange: Exchange
    served: bool


class Paused(Struct, frozen=True, gc=False):
    """Whether the worker's stdout is not read, because its only client reads too slowly."""

    paused: bool


class Retires(Struct, frozen=True, gc=False):
    """The worker is to be given nothing more: it broke the protocol, or is about to end."""


class HalfClosed(Struct, frozen=True, gc=False):
    """The worker closed its stdin, and goes on with the requests that it has read."""

    unread: tuple[Exchange, ...]
    """The requests that it has not read, and will not: they are its no longer."""


class CancelIgnored(Struct, frozen=True, gc=False):
    """The worker did not end a cancelled request within the `cancel` clock, or has declared nothing
    within the `start` clock to a request that needs a declaration."""

    exchange: Exchange


class Ended(Struct, frozen=True, gc=False):
    """Nothing more comes of the worker; what is left of its process is being ended."""

    reason: Reason
    error: GatewayError
    """What its requests end with."""
    lost: tuple[Exchange, ...] = ()
    """The requests that it still owed an answer to, oldest first."""
    unread: tuple[Exchange, ...] = ()
    """Those of them that no process can have read."""


WorkerEvent: TypeAlias = (
    Spawned
    | ReadsSilently
    | Spoke
    | Answered
    | Paused
    | Retires
    | HalfClosed
    | CancelIgnored
    | Ended
)
