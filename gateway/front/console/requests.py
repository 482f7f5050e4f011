"""Requests as the console shows them: those that are running, and the last that have ended.

Which ones run, the dispatcher knows, and nothing is kept of them here. Those that have ended are
kept for each key by itself, so that no caller can push out what another one has to see. Beside the
bounds on each there is one on all together, which takes from whoever has most.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct

from gateway import clock
from gateway.agents.status import setting_for
from gateway.errors import Cancelled
from gateway.exchange import RequestPhase
from gateway.front.console.journal import Journal, Noted, events_of
from gateway.observe.harmless import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.console.journal import Entry
    from gateway.observe.observation import Observation

MOST_KEPT = 500
"""Requests of one key that have ended."""

MOST_BYTES = 2 * 1024 * 1024
"""Of these, estimated."""

MOST_BYTES_IN_ALL = 32 * 1024 * 1024

MOST_MESSAGE = 2000
"""Characters of an error's message."""

_COST = 1000
"""Bytes of a request beside its texts and its journal."""

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


class Ended(Struct, frozen=True):
    """A request that has ended."""

    n: int
    view: RequestView
    events: list[Entry]
    """Without its words."""
    journal: Journal | None
    """None where nobody looked when it was admitted."""
    began: float
    """In running time."""
    payloads: dict[str, str] | None
    cost: int

    def show(self) -> dict[str, Any]:
        """Its events and payloads, as JSON."""
        return show_events(self.events, self.journal, self.began) | {"payloads": self.payloads}


def show_events(events: list[Entry], journal: Journal | None, began: float) -> dict[str, Any]:
    words = [] if journal is None else journal.entries
    both = sorted((*events, *words), key=lambda entry: entry.at)
    return {
        "events": [entry.show(began) for entry in both],
        "left_out": 0 if journal is None else journal.left_out,
        "recorded": journal is not None,
    }


class _OfKey:
    """Those of one key, the oldest first."""

    __slots__ = ("bytes", "kept")

    def __init__(self) -> None:
        self.kept: deque[Ended] = deque()
        self.bytes = 0

    def add(self, ended: Ended) -> None:
        self.kept.append(ended)
        self.bytes += ended.cost

    def drop(self) -> int:
        """Drop the oldest; returns what it took."""
        cost = self.kept.popleft().cost
        self.bytes -= cost
        return cost


class LastRequests:
    """See the module's docstring. `observe` is an `Observer`."""

    def __init__(
        self,
        *,
        most: int = MOST_KEPT,
        most_bytes: int = MOST_BYTES,
        most_in_all: int = MOST_BYTES_IN_ALL,
    ) -> None:
        self._most, self._most_bytes, self._most_in_all = most, most_bytes, most_in_all
        self._by_key: dict[str, _OfKey] = {}
        self._bytes = 0
        self.next = 0
        """The number of the next request that ends."""
        self.payloads = False
        """Whether the beginnings of bodies are kept, where they were observed."""

    def __repr__(self) -> str:
        return f"<LastRequests of {len(self._by_key)} keys, {self._bytes} bytes>"

    def observe(self, seen: Observation) -> None:
        """Keep a request or a run that has called an agent; of a request that has become a run,
        the run is kept."""
        if not seen.handler or (seen.run and seen.kind == "request"):
            return
        ended = _end(seen, self.next, payloads=self.payloads)
        self.next += 1
        of_key = self._by_key.get(seen.key)
        if of_key is None:
            of_key = self._by_key[seen.key] = _OfKey()
        of_key.add(ended)
        self._bytes += ended.cost
        while len(of_key.kept) > self._most or of_key.bytes > self._most_bytes:
            self._bytes -= of_key.drop()
        while self._bytes > self._most_in_all:
            self._bytes -= max(self._by_key.values(), key=lambda each: each.bytes).drop()

    def of(self, owner: str | None) -> list[Ended]:
        """Those of the key with that name, or of all for None, the oldest first; at most as many as
        are kept of one key."""
        if owner is not None:
            return list(self._by_key[owner].kept) if owner in self._by_key else []
        if len(self._by_key) == 1:
            return list(next(iter(self._by_key.values())).kept)
        every = [each for of_key in self._by_key.values() for each in of_key.kept]
        return sorted(every, key=lambda each: each.n)[-self._most :]

    def find(self, wanted: str, owner: str | None) -> Ended | None:
        """The one with that id, if it is one of the key's."""
        return next((each for each in self.of(owner) if each.view.id == wanted), None)

    def keep_keys(self, names: Collection[str]) -> None:
        """Forget what was asked for with any other keys: they were revoked."""
        for name in self._by_key.keys() - names - {""}:
            self._bytes -= self._by_key.pop(name).bytes


def _id(began: float, request_id: str) -> str:
    return f"{int(began * 1e6):x}-{crc32(request_id.encode()):x}"


def id_of(exchange: Exchange) -> str:
    """The id of a request that was admitted: the same while it runs and once it has ended."""
    return _id(exchange.admitted_at, exchange.call.request_id)


def _end(seen: Observation, n: int, *, payloads: bool) -> Ended:
    exchange, error = seen.exchange, seen.error
    journal = exchange.journal if isinstance(exchange, Noted) else None
    events = [] if exchange is None else list(events_of(exchange, (seen.ended, error)))
    now = time.time()
    view = RequestView(
        id=_id(seen.began, seen.request_id) if exchange is None else id_of(exchange),
        request_id=seen.request_id,
        run=seen.run or None,
        agent=seen.agent,
        handler=seen.handler,
        dialect=seen.dialect or None,
        key=seen.key or None,
        stream=seen.stream,
        state=_how(seen),
        status=seen.status or None,
        error=None if error is None else ErrorView.of(error),
        began=now - seen.total,
        ended=now,
        queue=_since(None if exchange is None else exchange.given_at, seen.began),
        first=_rounded(seen.first),
        total=_rounded(seen.total),
        words=seen.chunks,
        bytes_in=seen.bytes_in if seen.kind == "request" else None,
        bytes_out=seen.bytes_out if seen.kind == "request" else None,
        client_left=seen.client_left,
        pid=seen.pid,
        worker=None,
    )
    bodies = None
    if payloads:
        bodies = {"request": _text(seen.request_body), "response": _text(seen.response_body)}
    cost = _COST + len(seen.request_id) + (0 if view.error is None else 4 * len(view.error.message))
    cost += 0 if journal is None else journal.cost
    cost += 0 if bodies is None else 4 * sum(map(len, bodies.values()))
    return Ended(n, view, events, journal, seen.began, bodies, cost)


def _how(seen: Observation) -> str:
    if isinstance(seen.error, Cancelled):
        return "cancelled"
    if seen.error is not None:
        return "refused" if seen.exchange is None else "failed"
    return "cancelled" if seen.client_left else "completed"


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
    events = list(events_of(exchange, None))
    return show_events(events, journal, exchange.admitted_at) | {"payloads": None}


def progress(exchange: Exchange) -> tuple[object, ...]:
    """What changes of a running request: as long as it is equal, nothing has."""
    carrier = exchange.carrier
    pid = None if carrier is None else carrier.pid
    return exchange.phase, exchange.word_count, exchange.given_at, exchange.worker_id, pid


def _since(at: float | None, began: float) -> float | None:
    return None if at is None else round(max(0.0, at - began), 6)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")
