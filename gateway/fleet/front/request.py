"""One request of a front whose worker is at a host."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from gateway import clock
from gateway.fleet.front.described import BACKSTOP
from gateway.fleet.messages import Submit

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.fleet.front.described import Digests
    from gateway.fleet.front.hosts import At
    from gateway.fleet.lookup import Lookup
    from gateway.fleet.subjects import Peer

TELL_TAKEN = 64 * 1024
"""Bytes that a client takes before its host is told at once; of less it is told at the next beat.
A quarter of what a host may be ahead."""


class Way(Protocol):
    """The way to a host: `gateway.fleet.front.link.Link`."""

    def cancel(self, request: RemoteRequest) -> None:
        """Nobody waits for a request any more."""

    def client_took(self, request: RemoteRequest) -> None:
        """The client of a request has taken words: `request.taken` has grown."""


class RemoteRequest:
    """A request from its submission to its end, at one host after another. It is the `Carrier` of
    its exchange once a worker may have read it."""

    __slots__ = (
        "_checked_by",
        "_lookup",
        "_pid",
        "at",
        "exchange",
        "had",
        "id",
        "link",
        "owner",
        "position",
        "sent_at",
        "session",
        "taken",
        "tried",
    )

    def __init__(
        self,
        exchange: Exchange,
        lookup: Lookup,
        session: str | None = None,
        checked_by: Digests | None = None,
    ) -> None:
        """`lookup` is told which host has the session. `checked_by`: the description by which the
        front has checked it, if it has."""
        self.exchange = exchange
        self._checked_by = checked_by
        self._lookup = lookup
        self.session = session
        """What binds it to one host (`call.session_key`)."""
        self.had: Peer | None = None
        """The host that had its session last, as far as was known when it was sent."""
        self.owner: Peer | None = None
        """The host that has its session, as another one says."""
        self.link: Way | None = None
        """To the host that has it, or had it last; None: it was given to none."""
        self.at: At | None = None
        """Its agent there."""
        self.id = 0
        """On the pipe to that host."""
        self.position = 0
        """Of its end in what was sent to that host, see `Wire.send`."""
        self.sent_at = 0.0
        """When it was sent there, in running time."""
        self.taken = 0
        """What its client has taken and the host was not told of."""
        self.tried: list[Peer] = []
        """The hosts that it was given to."""
        self._pid: int | None = None

    def __repr__(self) -> str:
        return f"<RemoteRequest {self.id} {self.exchange} at {self.tried}>"

    def message(self) -> Submit:
        """What its host is sent. What is left of its total time is that of this moment."""
        call = self.exchange.call
        total = None
        if not math.isinf(call.total):
            left = call.total - BACKSTOP - (clock.now() - self.exchange.admitted_at)
            total = max(0.001, left)
        return Submit(
            id=self.id,
            agent=call.agent,
            method=call.method,
            payload=call.payload,  # type: ignore[arg-type]  # a view is written as bytes are
            stream=call.stream,
            context=call.context,
            conversation=call.conversation,
            user=call.user,
            owner=call.owner,
            request_id=call.request_id,
            total=total,
            events=call.events,
            tools=call.tools,
            resume=call.resume,
            trace=None if call.trace is None else (call.trace.parent, call.trace.state),
            needs=sorted(call.needs),
            continues=call.continues,
            described=self._described,
            had=None if self.had is None else str(self.had),
        )

    @property
    def _described(self) -> int | None:
        """As `Submit.described`: numbers are of the host that has it, as are descriptions."""
        at, checked_by = self.at, self._checked_by
        if at is None or at.digests is None or checked_by is None:
            return None
        return at.revision if at.digests.ready == checked_by.ready else None

    def given(self, pid: int | None, queued: float = math.inf) -> None:
        """A worker has it, and got it so many seconds after the host did."""
        self._pid = pid
        if self.session is not None:
            self._lookup.note(self.exchange.call.agent, self.session, self.tried[-1])
        at = min(clock.now(), self.sent_at + max(0.0, queued))
        self.exchange.given(at, self, worker_spoke=True)
        self.exchange.forget_payload()

    def client_took(self, size: int) -> None:
        """As `Exchange.on_taken`."""
        self.taken += size
        if self.link is not None:
            self.link.client_took(self)

    # As the exchange's `Carrier`

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def spoke(self) -> bool:
        return True  # a host says itself what is to be said of a worker that does not

    def has_read(self, exchange: Exchange) -> bool:
        return exchange is self.exchange

    def catch_up(self) -> None:
        """Nothing can be read here without waiting."""
