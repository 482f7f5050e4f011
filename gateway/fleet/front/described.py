"""What hosts say of an agent, as the settings and the declaration that a front goes by.

All of it is a host's word, and is checked as a worker's is: sizes and forms by the readers of the
worker protocol, names and numbers here.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from gateway.config import AgentSettings, Clocks, Workers
from gateway.fleet.messages import MOST_DESCRIPTION, NO_MESSAGE, AgentDescription
from protocol import Ready
from protocol.gateway_side import GatewayConnection

if TYPE_CHECKING:
    from protocol import FromWorker

BACKSTOP = 2.0
"""Seconds after a request's total time in which its host can say itself that this has run out."""

MOST_BYTES = 640 * 1024
"""The longest description of an agent: with all texts and schemas that it may have, at their
longest."""

MOST_WORKERS = 1_000_000

MOST_SECONDS = 1e9

_decode = msgspec.msgpack.Decoder(AgentDescription).decode


class Digests(NamedTuple):
    """By which two descriptions are known to be the same."""

    whole: bytes
    ready: bytes
    """Of what workers declare, by which requests are checked."""


class Described(msgspec.Struct, frozen=True):
    """An agent as one of its hosts describes it."""

    settings: AgentSettings
    """Defaults where nothing is told. The clocks that a host keeps are off here."""
    known: bool
    """Whether any worker has spoken."""
    ready: Ready | None
    """What workers declare; None: they have no handshake, or none has spoken."""
    digests: Digests


def read_description(body: bytes) -> Described | None:
    """None: it is none."""
    if len(body) > MOST_BYTES:
        return None
    try:
        told = _decode(body)
    except NO_MESSAGE:
        return None
    ready = None
    if told.ready is not None:
        ready = _read_ready(told.ready)
        if ready is None:
            return None
    sessions = {"none", "sticky", "exclusive"}
    by = {"conversation", "user", "key"}
    if told.session not in sessions or told.session_by not in by:
        return None
    workers = min(max(1, told.most_workers), MOST_WORKERS)
    settings = AgentSettings(
        command="at hosts of the fleet",
        description=None if told.description is None else told.description[:MOST_DESCRIPTION],
        workers=Workers(min=0, max=workers),
        queue=min(max(0, told.queue), MOST_WORKERS),
        session=cast("Any", told.session),
        session_by=cast("Any", told.session_by),
        on_disconnect="continue" if told.continues else "cancel",
        clocks=Clocks(
            start="off",
            queue="off",
            first="off",
            idle="off",
            total=_clock(told.total, more=BACKSTOP),
            write=_clock(told.write),
        ),
    )
    digests = Digests(sha256(body).digest(), sha256(told.ready or b"").digest())
    return Described(settings, told.known, ready, digests)


def _clock(seconds: float, *, more: float = 0.0) -> Any:
    in_bounds = math.isfinite(seconds) and 0 < seconds < MOST_SECONDS
    return seconds + more if in_bounds else "off"


def _read_ready(line: bytes) -> Ready | None:
    events: list[FromWorker] = GatewayConnection().receive_data(line)
    return events[0] if len(events) == 1 and isinstance(events[0], Ready) else None
