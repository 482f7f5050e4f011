"""Pipes on a bus: one `Wire` for each pair of a front and a host, and all `Wires` of a process.

INTERFACE ONLY: what stands here is coded against; the implementation follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from gateway.fleet.bus import Bus
from gateway.fleet.messages import Down, Up
from gateway.fleet.pipe import Ended
from gateway.fleet.subjects import Peer, Subjects

BEAT = 0.2
"""Seconds between two beats of a wire."""

WINDOW_BYTES = 4 * 1024 * 1024
"""Of what was sent and not acknowledged, on one wire: `Wire.room` waits beyond it."""


class Owner(Protocol):
    """What becomes of a wire. Every method is called in trio's thread and must not wait; it may
    call any method of the wire, `close` as well."""

    def receive(self, messages: list[Up] | list[Down]) -> None:
        """What has arrived, in order: at a host `Up`, at a front `Down`."""

    def ended(self, ended: Ended) -> None:
        """The epoch is over, also by `Wire.end` and `Wire.close`. At a front the next one has
        begun: what is sent from now on belongs to it. At a host the front begins it."""

    def unheard(self) -> None:
        """NATS says that nobody listens to what was just sent: the peer is dead, or has no
        connection at the moment. Said for each message; nothing has ended yet."""


class Wire:
    """See the module's docstring."""

    peer: Peer
    owner: Owner
    heard_at: float
    """Running time (`clock.now`) of the last message of the peer; at first, of the beginning."""

    @property
    def heard(self) -> bool:
        """Whether the peer has said anything in this epoch."""
        raise NotImplementedError

    @property
    def acknowledged(self) -> int:
        """How far the peer has received what was sent in this epoch: compare with what `send`
        returned."""
        raise NotImplementedError

    @property
    def full(self) -> bool:
        """Whether `room` would wait."""
        raise NotImplementedError

    def send(self, *messages: Up | Down) -> int:
        """Send messages in order; returns a position in the epoch's stream. What is sent in one
        turn of the loop leaves together in the next one.

        The peer has received all of it once `acknowledged` reaches the position, and has certainly
        not received the last message, and never will, when the position is beyond `Ended.reached`.
        Never refuses, whatever waits: who sends much waits for `room` first.
        """
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until at most `WINDOW_BYTES` are unacknowledged, or the epoch has ended."""

    async def settled(self) -> None:
        """Wait until all that was sent is acknowledged, or the epoch has ended. Takes a beat."""

    def end(self, detail: str) -> None:
        """Give up the epoch: `detail` says why, for the log. The peer is told, and `Owner.ended` is
        called before this returns."""

    def close(self) -> None:
        """End the epoch, if one is open, and forget the wire. Nothing is received any more."""


class Wires:
    """All wires of one process, on one bus.

    A front opens one for each host that it has heard of. At a host, `accept` is called with each
    wire of a front that speaks for the first time, and returns its owner.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        this: Peer,
        *,
        role: Literal["front", "host"],
        accept: Callable[[Wire], Owner] | None = None,
    ) -> None: ...

    def open(self, peer: Peer, owner: Owner) -> Wire:
        """The wire of a front to a host. Raises ValueError if there is one already."""
        raise NotImplementedError

    async def run(self) -> None:
        """Flush and beat, until cancelled. What is sent before this runs, leaves when it does."""

    def flush(self) -> None:
        """Publish now what was sent: for the last words of a process."""
