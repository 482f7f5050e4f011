"""One request of a front at a host: what is said of it, and how far ahead of its client. Pure.

    Submit ─> [Given] ─> [Lines]… ─> Lines with its result or its end, or Failed
         └──> Refused (no worker was given it)

`Given` of a stream is said at once; of others together with the first word, or with the end if that
is all there is, and before that, if it takes long (`tell_given`). The words of a stream are at most
`WINDOW_BYTES` ahead of what its client has taken; beyond that they stay in the exchange, where what
holds back a worker whose client is slow sees them. An answer that is not a stream is held whole by
the front, whatever its client does: its words are sent when it is whole, but for the first, which
show that it has begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import (
    AgentNotFound,
    AgentUnavailable,
    Cancelled,
    Overloaded,
    ShuttingDown,
    WorkerCrashed,
)
from gateway.fleet.host.lines import answer as encode_answer
from gateway.fleet.host.lines import words as encode_words
from gateway.fleet.messages import Error, Failed, Given, Refused

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.fleet.conversation import Conversation, Elsewhere
    from gateway.fleet.host.exchange import ForwardedExchange
    from gateway.fleet.messages import Down

WINDOW_BYTES = 256 * 1024
"""Words of a stream that are sent ahead of its client, `CHUNK_COST` included."""

_ELSEWHERE = (AgentNotFound, AgentUnavailable, Overloaded, ShuttingDown, WorkerCrashed)
"""What says something about this host rather than about the request: before a worker had it,
another host may be asked."""


class Forwarded:
    """See the module's docstring. `advance` says what there is to say now."""

    __slots__ = ("_abandoned", "_ahead", "_given_at", "checking", "conversation", "exchange", "id")

    def __init__(
        self, request_id: int, exchange: ForwardedExchange, conversation: Conversation | None = None
    ) -> None:
        self.id = request_id
        self.exchange = exchange
        self.conversation = conversation
        """The one that it is of, which this host owns; None: it is of none."""
        self._ahead = 0
        """What was sent and the client has not taken, in bytes."""
        self._given_at: float | None = None
        """When the worker got it that the front was told of."""
        self._abandoned = False
        self.checking = False
        """Whether its input is being checked, which is to be known before its answer is told."""

    def __repr__(self) -> str:
        return f"<Forwarded {self.id} {self.exchange}, {self._ahead} bytes ahead>"

    def took(self, size: int) -> bool:
        """The client has taken words. Returns whether more can be sent now."""
        self._ahead = max(0, self._ahead - max(0, size))
        return self.exchange.buffered_bytes > 0 or self.exchange.ended

    def abandon(self) -> None:
        """Nobody takes its words any more; its end is still told."""
        self._abandoned = True

    def give_up(self) -> None:
        """End it here: its words and its result cannot be told."""
        self.abandon()
        self.exchange.fail(Cancelled())
        self.exchange.take()

    @property
    def over(self) -> bool:
        """Whether `advance` has nothing to say any more once it was called."""
        return self.exchange.drained

    def tell_given(self, messages: list[Down]) -> None:
        """Say which worker has the request, if one has and that was not said."""
        exchange = self.exchange
        if exchange.given_at == self._given_at or exchange.carrier is None:
            return
        self._given_at = given_at = exchange.given_at
        assert given_at is not None
        messages.append(
            Given(self.id, exchange.carrier.pid, exchange.session, given_at - exchange.admitted_at)
        )

    def advance(self, messages: list[Down], lines: list[bytes], ends: list[Down]) -> None:
        """Say what has happened: `messages`, then `lines`, then `ends`."""
        exchange = self.exchange
        words = self._words()
        if words or exchange.ended or exchange.call.stream:
            self.tell_given(messages)
        if words:
            lines.append(encode_words(self.id, words))
        if not exchange.drained:
            return
        if exchange.error is not None:
            ends.append(self.failure(exchange.error))
        else:
            lines.append(
                encode_answer(self.id, exchange.call.method, exchange.result, exchange.outcome)
            )

    def _words(self) -> list[bytes]:
        exchange = self.exchange
        if not exchange.buffered_bytes:
            return []
        if self._abandoned:
            exchange.take()
            return []
        if not exchange.call.stream:
            return exchange.take()
        cost = exchange.buffered_bytes
        words = exchange.take_within(WINDOW_BYTES - self._ahead)
        if not words and not self._ahead:
            words = exchange.take_one()
        self._ahead += cost - exchange.buffered_bytes
        return words

    @property
    def left_unread(self) -> bool:
        """Whether it has ended without a worker, for a reason that does not hold at other hosts."""
        return not self.exchange.handed_over and isinstance(self.exchange.error, _ELSEWHERE)

    def failure(self, error: GatewayError) -> Failed | Refused:
        """What is said of its bad end."""
        if self.left_unread:
            return Refused(self.id, as_said(error), elsewhere=True)
        return Failed(self.id, as_said(error), self.exchange.handed_over)


def refusal(request_id: int, error: GatewayError, *, bound: bool = False) -> Refused:
    """What is said of a request that was not admitted. `bound`: it is of a conversation that this
    host has, and keeps."""
    return Refused(request_id, as_said(error), not bound and isinstance(error, _ELSEWHERE))


def referral(request_id: int, elsewhere: Elsewhere) -> Refused:
    """What is said of a request whose conversation another host has."""
    error = AgentUnavailable(
        "another host of the fleet has the conversation, and does not answer", retry_after=1.0
    )
    owner = elsewhere.owner
    if owner is None:
        return Refused(request_id, as_said(error), elsewhere=False)
    return Refused(request_id, as_said(error), elsewhere=True, owner=str(owner))


def as_said(error: GatewayError) -> Error:
    """An error for a front, which makes it anew."""
    return Error(error.type, error.message, error.retry_after, dict(error.details))
