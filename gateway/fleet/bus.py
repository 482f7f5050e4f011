"""What a fleet needs of NATS. `nats_bus.NatsBus` is one; tests have another, in memory.

A bus has one connection at a time and makes the next one itself when that breaks. A subscription
and what was published belong to a connection: whoever is told `connected` subscribes again. What is
published without a connection is dropped. Nothing here waits, and nothing raises for the state of
the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest payload: NATS's own default."""


class Delivery(Struct, frozen=True, gc=False):
    """A message that has arrived."""

    subject: str
    data: bytes
    reply: str = ""
    """Where an answer is expected; empty: nowhere."""
    nobody: bool = False
    """Whether NATS says that nobody listens on the subject of what was published with `subject` as
    its `reply` (503, "no responders")."""


class Bus(Protocol):
    """A connection to NATS with `no_echo`: what is published is not received by the one who
    published it, and does not count as received.

    All methods are called, and every callback is called, in trio's thread. A callback may call any
    method. `connected` and `lost` follow one another.
    """

    @property
    def connected(self) -> bool: ...

    @property
    def heard_at(self) -> float:
        """The running time at which anything has come from the server, which is asked for a sign of
        life every 0.2 s. Who is silent for longer than that is silent itself; else it may be the
        network of this process. Without a connection: when anything came last."""

    def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send a message. What is published in one turn of the loop leaves together, in order."""

    def publish_all(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Send these messages (subject, data, reply) now, rather than at the end of the turn."""

    def subscribe(self, subject: str, receive: Callable[[Delivery], None]) -> int:
        """Receive what is published on a subject or a pattern, in order; returns an id for
        `unsubscribe`. Takes effect before what is published afterwards."""

    def unsubscribe(self, subscription: int) -> None:
        """What was on its way may still be received. Unknown ids, and those of an earlier
        connection, are ignored."""

    def watch(self, connected: Callable[[], None], lost: Callable[[], None]) -> None:
        """Be told of each connection, and of the end of each. Told at once if there is one."""
