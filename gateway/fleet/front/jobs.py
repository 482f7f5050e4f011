"""Background runs as a front sees them: left in JetStream, and awaited from there.

The exchange of such a request belongs to no agent of this process: what becomes of it is read from
what its host has written (`gateway.fleet.background`), with the connection that reads hosts
anyway. Any front can have one for the same request, also after the one that had it first is gone.
"""

from __future__ import annotations

import itertools
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from gateway import clock
from gateway.errors import Cancelled, Overloaded
from gateway.exchange import Exchange
from gateway.fleet import background
from gateway.fleet.background import TTL, AwayError, Key, Outcome
from gateway.fleet.front.described import BACKSTOP
from gateway.fleet.front.errors import broke_the_protocol, forgotten, lost, made_anew
from gateway.fleet.front.request import RemoteRequest
from gateway.fleet.jetstream import FullError
from gateway.fleet.lookup import Lookup
from gateway.fleet.messages import Error
from gateway.fleet.subjects import Peer
from gateway.observe import logs
from gateway.workers.failures import agents_error
from protocol import Burst, Chunk, End, Event, Failure, Result
from protocol.gateway_side import GatewayConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.call import Call
    from gateway.fleet.background import Record, Store
    from gateway.fleet.bus import Bus, Delivery
    from protocol import FromWorker

log = logging.getLogger("gateway.fleet")

LOOK_SECONDS = 3.0
"""Until JetStream is asked again what became of a request: news may have been missed."""

GONE_LOOKS = 2
"""Looks at which nobody was there who would tell of a request, until it is given up."""

ANNOUNCE_LOOKS = 8
"""Looks, and any power of two after that, at which hosts are told again of a request that none has
taken: 24 s, and a dozen times in a day."""

PREPARE_SECONDS = 5.0
"""Until JetStream is asked again that could not be used."""

READ_AT_ONCE = 4
"""Outcomes: each may have 24 MiB, and is in memory three times while it is put together."""

READ_BYTES = 256 * 1024
"""Of the lines of an outcome that are read before others have their turn: 3 ms at most."""

SOMEBODY = Peer("host", "0")
"""A host whose name is not known any more."""


class _Awaited:
    """One background run. Only `Jobs._follow` looks at what became of it: two that read an outcome
    at once would tell its words twice."""

    def __init__(self, token: str, exchange: Exchange) -> None:
        self.token = token
        self.exchange = exchange
        self.request = RemoteRequest(exchange, Lookup())
        self.looked = trio.Event()
        """Set once the first look is over."""
        self.news = trio.Event()
        self.looks = 0
        self.unseen = 0
        """Looks at which nobody was there who would tell of it."""
        self.told = False
        """Whether it has ended as its host, or another front, has written."""


class Jobs:
    """The background runs that a front waits for. `run` must be running.

    `is_there` says whether a host is, by what `str` makes of a `Peer`.
    """

    def __init__(
        self, bus: Bus, store: Store, dispatcher: Dispatcher, *, is_there: Callable[[str], bool]
    ) -> None:
        self.available = False
        """Whether there is JetStream."""
        self.store = store
        self._bus = bus
        self._dispatcher = dispatcher
        self._is_there = is_there
        self._awaited: dict[Exchange, _Awaited] = {}
        self._by_token: dict[str, _Awaited] = {}
        self._reading = trio.CapacityLimiter(READ_AT_ONCE)
        self._said = False
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Jobs {len(self._awaited)} awaited>"

    async def run(self) -> None:
        """Wait for what becomes of them, until cancelled."""
        self._bus.watch(self.on_connected, lambda: None)
        async with trio.open_nursery() as self._nursery:
            while True:
                with trio.move_on_after(math.inf if self.available else PREPARE_SECONDS):
                    await self._news.wait()
                self._news = trio.Event()
                if self._bus.connected:
                    await self._prepare()

    def on_connected(self) -> None:
        """There is a new connection, with which JetStream may be another."""
        for subject in self.store.news:
            self._bus.subscribe(subject, self._on_news)
        self._news.set()
        for awaited in self._awaited.values():
            awaited.news.set()

    async def _prepare(self) -> None:
        try:
            await self.store.prepare()
        except (AwayError, FullError) as error:
            self.available = False
            if self._bus.connected and not self._said:
                self._said = True
                message = f"NATS has no JetStream: background runs end with their front ({error})"
                logs.event(log, logging.WARNING, message)
        else:
            self.available, self._said = True, False

    def _on_news(self, delivery: Delivery) -> None:
        awaited = self._by_token.get(delivery.subject.split(".")[-1])
        awaited = awaited or self._by_token.get(delivery.subject.split(".")[-2])
        if awaited is not None:
            awaited.news.set()

    # Requests

    async def submit(self, token: str, record: Record, call: Call) -> Exchange | None:
        """Leave a request for the hosts, and wait for it; None: its Idempotency-Key is used for
        another one. Raises GatewayError."""
        if not math.isinf(call.total):
            call = structs.replace(call, total=call.total + BACKSTOP)
        exchange = self._exchange(call)
        job = RemoteRequest(exchange, Lookup()).message()
        try:
            await self.store.keep(token, record, job)
            key = Key(token, record.fingerprint)
            if record.key is not None and not await self.store.keep_key(record.key, key):
                return None
            await self.store.announce(call.agent, token)
        except FullError as error:
            raise Overloaded(
                f"JetStream takes no more background runs: {error}", retry_after=1.0
            ) from None
        except AwayError as error:
            self._news.set()  # there may be no streams any more
            raise Overloaded(
                f"the run could not be left in JetStream: {error}", retry_after=1.0
            ) from None
        exchange.forget_payload()
        self._await(token, exchange)
        return exchange

    async def attach(self, token: str, call: Call) -> Exchange:
        """Wait for a request that was left before, perhaps by another front. What is known of it
        already is known when this returns. All who wait for it at a time get the same exchange."""
        awaited = self._by_token.get(token)
        if awaited is None or awaited.exchange.ended:
            exchange = self._exchange(call)
            exchange.forget_payload()
            awaited = self._await(token, exchange)
        await awaited.looked.wait()
        return awaited.exchange

    def cancel(self, exchange: Exchange) -> bool:
        """Nobody wants a request any more. Returns whether it is one of these."""
        awaited = self._awaited.get(exchange)
        if awaited is None:
            return False
        exchange.fail(Cancelled())
        awaited.news.set()
        return True

    def _exchange(self, call: Call) -> Exchange:
        settings = self._dispatcher.agent(call.agent).settings
        # It may wait for a day: the host that takes it has the agent's own clocks.
        clocks = structs.replace(settings.clocks, total=TTL)
        return Exchange(call, clocks, clock.now(), settings.session_by)

    def _await(self, token: str, exchange: Exchange) -> _Awaited:
        awaited = _Awaited(token, exchange)
        self._awaited[exchange] = self._by_token[token] = awaited
        assert self._nursery is not None
        self._nursery.start_soon(self._follow, awaited)
        return awaited

    async def _follow(self, awaited: _Awaited) -> None:
        try:
            while not awaited.exchange.ended:
                awaited.news = trio.Event()
                await self._look(awaited)
                awaited.looked.set()
                if awaited.exchange.ended:
                    break
                with trio.move_on_after(LOOK_SECONDS):
                    await awaited.news.wait()
            if awaited.told or await self._end(awaited):
                with suppress(AwayError, FullError):  # it is taken away after a day
                    await self.store.tidy(awaited.exchange.call.agent, awaited.token)
        except Exception:  # the boundary: a defect of ours is logged, and ends the request alone
            log.exception("internal error")
            awaited.exchange.fail(broke_the_protocol(SOMEBODY))
        finally:
            awaited.looked.set()
            del self._awaited[awaited.exchange]
            if self._by_token.get(awaited.token) is awaited:
                del self._by_token[awaited.token]

    async def _look(self, awaited: _Awaited) -> None:
        """See what has become of a request."""
        async with self._reading:
            await self._look_alone(awaited)

    async def _look_alone(self, awaited: _Awaited) -> None:
        exchange, token = awaited.exchange, awaited.token
        agent = exchange.call.agent
        try:
            host = await self.store.taken_by(agent, token)
            outcome = await self.store.outcome(agent, token)
            if outcome is None and await self._is_lost(awaited, host):
                outcome = await self._give_up(awaited, host)
            elif outcome is None and host is None:
                await self._announce_again(awaited)
        except (AwayError, FullError):
            return
        if host is not None and not exchange.handed_over and outcome is None:
            awaited.request.given(None)
        if outcome is not None and not exchange.ended:
            awaited.told = True
            await read_outcome(outcome, awaited.request, Peer.parse(host or "") or SOMEBODY)

    async def _is_lost(self, awaited: _Awaited, host: str | None) -> bool:
        """Whether nobody will tell any more what has become of a request without an outcome."""
        match host:
            case None:
                gone = not await self.store.has(awaited.token)
            case background.ENDED:
                gone = True
            case _:
                gone = not self._is_there(host)
        awaited.unseen = awaited.unseen + 1 if gone else 0
        return awaited.unseen >= GONE_LOOKS and self._bus.connected

    async def _give_up(self, awaited: _Awaited, host: str | None) -> Outcome:
        """End a request for everybody, if nobody has; its outcome."""
        agent, token = awaited.exchange.call.agent, awaited.token
        peer = None if host is None else Peer.parse(host)
        error = forgotten() if peer is None else lost(peer, "is gone")
        told = Error(error.type, error.message, None, dict(error.details))
        outcome = Outcome(b"", told, handed_over=True)
        await self.store.finish(agent, token, outcome)
        return await self.store.outcome(agent, token) or outcome

    async def _announce_again(self, awaited: _Awaited) -> None:
        awaited.looks += 1
        if awaited.looks >= ANNOUNCE_LOOKS and awaited.looks.bit_count() == 1:
            await self.store.announce(awaited.exchange.call.agent, awaited.token)

    async def _end(self, awaited: _Awaited) -> bool:
        """A request has ended here before there was an outcome: cancelled, or by a clock. Returns
        whether there is one now: without it, what the request was is still asked for."""
        error = awaited.exchange.error
        if error is None:
            return False
        agent, token = awaited.exchange.call.agent, awaited.token
        told = Error(error.type, error.message, error.retry_after, dict(error.details))
        outcome = Outcome(b"", told, handed_over=awaited.exchange.handed_over)
        self._bus.publish(self.store.stop(agent), token.encode())
        try:
            await self.store.finish(agent, token, outcome)
        except (AwayError, FullError) as problem:
            message = f"a background run could not be ended: {problem}"
            logs.event(log, logging.WARNING, message, agent=agent)
            return False
        return True


async def read_outcome(outcome: Outcome, request: RemoteRequest, host: Peer) -> None:
    """End the exchange of a request with what its host has written, which may be anything."""
    exchange = request.exchange
    if outcome.handed_over and not exchange.handed_over:
        request.given(None)
    if outcome.error is not None:
        exchange.fail(made_anew(outcome.error, host))
        return
    connection = GatewayConnection.of_host(ids=itertools.count(1))
    connection.open_request(exchange.call.method, events=exchange.call.events)
    lines = memoryview(outcome.lines)
    for start in range(0, len(lines), READ_BYTES):
        for event in connection.receive_batch(bytes(lines[start : start + READ_BYTES])):
            _tell(exchange, event)
        if exchange.ended or connection.broken:
            break
        await trio.lowlevel.checkpoint()
    if not exchange.ended:
        exchange.fail(broke_the_protocol(host))


def _tell(exchange: Exchange, event: FromWorker | Burst) -> None:
    now = clock.now()
    if isinstance(event, Burst):
        exchange.add_words(event.texts, now)
    elif isinstance(event, Chunk):
        exchange.add_words([event.text], now)
    elif isinstance(event, Event):
        exchange.add_words([event.event], now)
    elif isinstance(event, Result):
        exchange.end(event.value, event.outcome)
    elif isinstance(event, End):
        exchange.end(outcome=event.outcome)
    elif isinstance(event, Failure):
        exchange.fail(agents_error(event, lambda _: None))
