"""A reliable, ordered stream of bytes in each direction between one front and one host. Pure.

INTERFACE ONLY: what stands here is coded against; the implementation follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from msgspec import Struct


class Why(Enum):
    """Why an epoch has ended."""

    RESET = "reset"
    """The peer began anew, or asked to."""
    VIOLATION = "violation"
    """The peer said what is not the protocol."""
    GIVEN_UP = "given_up"
    """By this end: `Pipe.end`."""


class Ended(Struct, frozen=True):
    """An epoch is over at this end; what was sent in it, and not yet received, never will be."""

    epoch: int
    why: Why
    detail: str
    """A sentence for the log."""
    reached: int
    """Bytes that the peer may have received of what was sent in the epoch. What ends beyond it (see
    `Pipe.send`) has certainly not been received, and never will be."""


class Pipe:
    """One end. The front's end leads: it takes the number of each epoch from `epochs`, which
    increase. A host's end has none and follows; `ended` is the last epoch that it knows of, with
    which nothing is begun again."""

    def __init__(self, epochs: Iterator[int] | None = None, *, ended: int = 0) -> None: ...

    epoch: int
    open: bool
    """Whether what is sent now may arrive. False only at a host: the front has not begun an epoch,
    or the last one has ended; what is sent is dropped."""
    heard: bool
    """Whether the peer has said anything in this epoch."""
    sent: int
    """Bytes that `send` was given in this epoch."""
    acknowledged: int
    """Bytes of `sent` that the peer has certainly received."""

    def send(self, data: bytes) -> int:
        """Append to the stream; returns the position of its end: `sent`. Nothing leaves before
        `flush`."""
        raise NotImplementedError

    def flush(self) -> list[tuple[int, bytes]]:
        """What is to be published now, in order: the number of each message and its bytes. A number
        is 0 if the message bears no data."""
        raise NotImplementedError

    def beat(self) -> None:
        """To be called every `BEAT` seconds: the next `flush` has a message at least."""

    def connected(self) -> None:
        """This end's connection is another one now: what was on its way may be lost."""

    def receive(self, message: bytes) -> tuple[memoryview | Ended, ...]:
        """What a message of the peer brings, in order: at most an end of the epoch, then data."""
        raise NotImplementedError

    def undelivered(self, epoch: int, number: int) -> bool:
        """One copy of a message that `flush` returned reached nobody. Whether this concerns the
        epoch at hand."""
        raise NotImplementedError

    def end(self, why: Why, detail: str) -> Ended | None:
        """End the epoch, and at the front begin the next one; None: there was none to end."""
        raise NotImplementedError
