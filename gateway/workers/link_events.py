"""What a link tells its worker: some of the worker's own events, and some that it acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from gateway.workers.events import Answered, CancelIgnored, Paused, Spoke

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from protocol import RemoteProtocolError


class Violated(Struct, frozen=True, gc=False):
    """The worker broke the protocol. `fatal`: nothing more that it says can be used. `placed`: the
    line was for a request in flight, which has thereby ended."""

    error: RemoteProtocolError
    fatal: bool
    placed: bool


class FellBehind(Struct, frozen=True, gc=False):
    """A stream was ended: its client is too slow, and others wait for words of the same worker."""

    exchange: Exchange


class InputClosed(Struct, frozen=True, gc=False):
    """The worker takes no more input: it closed its stdin."""


LinkEvent: TypeAlias = (
    Spoke | Answered | CancelIgnored | Paused | Violated | FellBehind | InputClosed
)
