"""The seam for client protocols that know runs: see `dialect`, of whose seam this is a part.

A run is a request that outlives its connection: see `runs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from gateway.front.dialect import Codec, Response

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.errors import GatewayError


class Told(NamedTuple):
    """A run as its own codec tells it (`RunCodec.tell`)."""

    body: bytes
    ended: bool
    """Whether it had ended before the request that concerns it came."""


class Listed(Protocol):
    """A run in a list. What it tells is taken of those runs only that are shown."""

    @property
    def outline(self) -> bytes:
        """What its codec says in short (`RunReader.outline`) or, if it has ended, what it tells."""

    def tell(self) -> Told:
        """What it tells."""


@runtime_checkable
class KeptCodec(Codec, Protocol):
    """The codec of a protocol that refers to runs."""

    def kept_as(self, token: str) -> None:
        """The request is a run, and that is its id without a prefix. Called before anything is
        encoded."""


@runtime_checkable
class RunCodec(KeptCodec, Protocol):
    """The codec of a protocol that has objects of its own for what is a run here."""

    def tell(self, state: str, error: GatewayError | None = None) -> Response:
        """The object as it is now. `state` is "queued", "running", "completed", "failed" or
        "cancelled"; "completed" only of a stream, whose encoder has ended."""


@runtime_checkable
class RunReader(RunCodec, Protocol):
    """The codec of a protocol in which every call is a run, whose stream is kept in a form that
    each reader's codec makes its own of. What a run tells need not be what clients are shown."""

    @property
    def reads(self) -> Literal["show", "end", "follow"]:
        """How a call is responded to: with what the run is now, with what it is at its end, or with
        its stream. The `Call` itself is always a stream, and `continues`."""

    @property
    def told_events(self) -> int:
        """How many events of the stream what `tell` returns covers. They may not have been added to
        the run yet."""

    def show(self, told: Told) -> Response:
        """Write what a run is. Raises GatewayError."""

    def outline(self, state: str) -> bytes:
        """What `tell` returns, or only its beginning: as much as `show_all` chooses by. `state` is
        as there."""

    def show_all(self, runs: Sequence[Listed]) -> Response:
        """Write what runs are, the one that began last first. Raises GatewayError."""

    def open(self, told: Told) -> bytes:
        """The events, and no comments, that come before those of the run's stream which are not
        covered by what is told. Raises GatewayError, if there is to be no stream."""

    def frame(self, events: bytes) -> bytes:
        """Events of the run's stream, whole ones with their `id:` lines, for this reader."""

    def go_on(self, told: Told) -> Call:
        """The call that goes on from a run, whose place and token it takes. Raises GatewayError."""

    def stays(self, told: Told) -> bool:
        """Whether a stream goes on though its run has ended: another may take the run's place."""

    def withdraw(self, told: Told) -> tuple[bytes, bytes]:
        """What is to be told of a run that has ended, now that its client cancels it, and the event
        that tells so, without its blank line. Raises GatewayError, if that is nothing new."""
