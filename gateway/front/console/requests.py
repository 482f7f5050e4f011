"""Requests as the console shows them: those that are running, and the last that have ended.

Which ones run, the dispatcher knows, and nothing is kept of them here. Those that have ended are
kept for each key and each agent by themselves, so that no caller can push out what another one has
to see, nor a busy agent what is to be seen of others.
"""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct

from gateway import clock
from gateway.agents.status import setting_for
from gateway.errors import Cancelled
from gateway.exchange import RequestPhase
from gateway.front.console.journal import Entry, Journal, Noted
from gateway.front.console.rings import Rings
from gateway.observe.harmless import printable, shortened
from gateway.observe.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange

MOST_KEPT = 200
"""Requests with one key to one agent that have ended."""

MOST_SHOWN = 500
"""Of all that a caller may see."""

MOST_BYTES = 1024 * 1024
"""Of the kept ones, estimated."""

MOST_BYTES_IN_ALL = 32 * 1024 * 1024

MOST_MESSAGE = 2000
"""Characters of an error's message."""

_COST = 1000
"""Bytes of a request beside its error, its bodies and its journal."""

_RUNNING = {
    RequestPhase.QUEUED: "queued",
    RequestPhase.STARTING: "starting",
    RequestPhase.GIVEN: "given",
    RequestPhase.SPEAKING: "speaking",
    RequestPhase.ENDED: "sending",
}


class ErrorView(Struct, frozen=True, kw_only=True):
    """An error; `setting` is the path of one that would help."""

    type: str
    message: str
    setting: str | None

    @classmethod
    def of(cls, error: GatewayError) -> ErrorView:
        message = printable(shortened(error.message, MOST_MESSAGE))
        return cls(type=error.type, message=message, setting=setting_for(error))


class RequestView(Struct, frozen=True, kw_only=True):
    """REQUEST, as the README has it."""

    id: str
    request_id: str
    run: str | None
    agent: str
    handler: str
    dialect: str | None
    key: str | None
    stream: bool
    state: str
    status: int | None
    error: ErrorView | None
    began: float
    ended: float | None
    queue: float | None
    first: float | None
    total: float | None
    words: int
    bytes_in: int | None
    bytes_out: int | None
    client_left: bool
    pid: int | None
    worker: str | None


class Ended(Struct, frozen=True, gc=False):
    """A request that has ended, from which its view is made when somebody asks for it. There is one
    for every request, whether the console is open or not: an observation that is there anyway, and
    nothing that is reckoned before it is shown."""

    n: int
    seen: Observation
    """Without its error, which may hold as much as the request did, and its spans."""
    offset: float
    """What running time lacked to Unix time when it ended, to within a hundredth of a second."""
    cost: int
    error: ErrorView | None = None
    cancelled: bool = False

    @property
    def id(self) -> str:
        seen = self.seen
        began = seen.began if seen.admitted_at is None else seen.admitted_at
        return _id(began, seen.request_id)

    @property
    def view(self) -> RequestView:
        seen = self.seen
        is_request = seen.kind == "request"
        return RequestView(
            id=self.id,
            request_id=seen.request_id,
            run=seen.run or None,
            agent=seen.agent,
            handler=seen.handler,
            dialect=seen.dialect or None,
            key=seen.key or None,
            stream=seen.stream,
            state=self._state,
            status=seen.status or None,
            error=self.error,
            began=round(seen.began + self.offset, 3),
            ended=round(seen.ended + self.offset, 3),
            queue=_since(seen.given_at, seen.began),
            first=None if seen.first is None else round(seen.first, 6),
            total=_since(seen.ended, seen.began),
            words=seen.chunks,
            bytes_in=seen.bytes_in if is_request else None,
            bytes_out=seen.bytes_out if is_request else None,
            client_left=seen.client_left,
            pid=seen.pid,
            worker=None,
        )

    @property
    def _state(self) -> str:
        if self.cancelled or (self.error is None and self.seen.client_left):
            return "cancelled"
        if self.error is None:
            return "completed"
        return "refused" if self.seen.admitted_at is None else "failed"

    def show(self) -> dict[str, Any]:
        """Its events and payloads, as JSON."""
        seen = self.seen
        events = []
        if seen.admitted_at is not None:
            events.append(Entry(seen.admitted_at, "admitted"))
            if seen.given_at is not None:
                events.append(Entry(seen.given_at, "given"))
            events.append(Entry(seen.ended, self._state))
        journal = seen.journal if isinstance(seen.journal, Journal) else None
        payloads = None
        if seen.request_body or seen.response_body:
            payloads = {"request": _text(seen.request_body), "response": _text(seen.response_body)}
        return show_events(events, journal, seen.began) | {"payloads": payloads}


def show_events(events: list[Entry], journal: Journal | None, began: float) -> dict[str, Any]:
    words = [] if journal is None else journal.entries
    both = sorted((*events, *words), key=lambda entry: entry.at)
    return {
        "events": [entry.show(began) for entry in both],
        "left_out": 0 if journal is None else journal.left_out,
        "recorded": journal is not None,
    }


class LastRequests:
    """See the module's docstring. `observe` is an `Observer`."""

    def __init__(
        self,
        *,
        most: int = MOST_KEPT,
        most_bytes: int = MOST_BYTES,
        most_in_all: int = MOST_BYTES_IN_ALL,
    ) -> None:
        self._kept: Rings[tuple[str, str], Ended] = Rings(
            most=most, most_cost=most_bytes, most_cost_in_all=most_in_all
        )
        """By the names of key and agent."""

    def __repr__(self) -> str:
        return f"<LastRequests {self._kept!r}>"

    @property
    def next(self) -> int:
        """The number of the next request that ends."""
        return self._kept.next

    def observe(self, ended: Sequence[Observation]) -> None:
        """Keep requests and runs that have called an agent; of a request that has become a run,
        the run is kept."""
        offset = time.time() - ended[-1].ended
        for seen in ended:
            if seen.handler and not (seen.run and seen.kind == "request"):
                kept = _keep(seen, self._kept.next, offset)
                self._kept.add((seen.key, seen.agent), kept, kept.cost)

    def of(self, owner: str | None, agent: str | None = None) -> list[Ended]:
        """The last `MOST_SHOWN` of the key with that name, or of all for None, to the agent or to
        any, the oldest first."""
        return self._kept.last(
            MOST_SHOWN, lambda of: owner in {None, of[0]} and agent in {None, of[1]}
        )

    def find(self, wanted: str, owner: str | None) -> Ended | None:
        """The one with that id, if it is one of the key's."""
        kept = self._kept.since(0, lambda of: owner in {None, of[0]})
        return next((each for _, each in kept if each.id == wanted), None)

    def keep(self, keys: Collection[str] | None, agents: Collection[str]) -> None:
        """Forget what was asked for with any other keys, which were revoked, or of any other
        agents. Without `keys` there are none any more: then nobody but everybody sees it."""
        self._kept.keep(
            lambda of: (
                (not of[0] or keys is None or of[0] in keys) and (not of[1] or of[1] in agents)
            )
        )


def _id(began: float, request_id: str) -> str:
    return f"{int(began * 1e6):x}-{crc32(request_id.encode()):x}"


def id_of(exchange: Exchange) -> str:
    """The id of a request that was admitted: the same while it runs and once it has ended."""
    return _id(exchange.admitted_at, exchange.call.request_id)


def _keep(seen: Observation, n: int, offset: float) -> Ended:
    cost = _COST + len(seen.request_body) + len(seen.response_body)
    if isinstance(seen.journal, Journal):
        cost += seen.journal.cost
    if seen.error is None and seen.trace is None:  # as nearly all of them
        return Ended(n, seen, offset, cost)
    kept = copy(seen)  # others are told of the same one
    kept.error = kept.trace = None
    if seen.error is None:
        return Ended(n, kept, offset, cost)
    error, cancelled = ErrorView.of(seen.error), isinstance(seen.error, Cancelled)
    return Ended(n, kept, offset, cost + 4 * len(error.message), error, cancelled)


def running(open_requests: Collection[Exchange], owner: str | None) -> Iterator[Exchange]:
    """Those of the key with that name, or all for None, the oldest first."""
    for exchange in open_requests:
        if owner is None or exchange.call.owner == owner:
            yield exchange


def view_running(exchange: Exchange) -> RequestView:
    """A request that has not ended, or whose client has not had its answer."""
    call, began = exchange.call, exchange.admitted_at
    return RequestView(
        id=id_of(exchange),
        request_id=call.request_id,
        run=None,
        agent=call.agent,
        handler=call.method,
        dialect=None,
        key=call.owner or None,
        stream=call.stream,
        state=_RUNNING[exchange.phase],
        status=None,
        error=None if exchange.error is None else ErrorView.of(exchange.error),
        began=round(time.time() - (clock.now() - began), 3),
        ended=None,
        queue=_since(exchange.given_at, began),
        first=_since(exchange.spoke_at, began),
        total=None,
        words=exchange.word_count,
        bytes_in=None,
        bytes_out=None,
        client_left=False,
        pid=None if exchange.carrier is None else exchange.carrier.pid,
        worker=None if exchange.worker_id is None else str(exchange.worker_id),
    )


def show_running(exchange: Exchange) -> dict[str, Any]:
    """Its events, as JSON."""
    journal = exchange.journal if isinstance(exchange, Noted) else None
    events = [Entry(exchange.admitted_at, "admitted")]
    if exchange.given_at is not None:
        events.append(Entry(exchange.given_at, "given"))
    return show_events(events, journal, exchange.admitted_at) | {"payloads": None}


def progress(exchange: Exchange) -> tuple[object, ...]:
    """What changes of a running request: as long as it is equal, nothing has."""
    carrier = exchange.carrier
    pid = None if carrier is None else carrier.pid
    return exchange.phase, exchange.word_count, exchange.given_at, exchange.worker_id, pid


def _since(at: float | None, began: float) -> float | None:
    return None if at is None else round(max(0.0, at - began), 6)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")
