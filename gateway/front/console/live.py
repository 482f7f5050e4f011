"""The stream of Server-Sent Events that one reader of the console follows.

A *topic* finds out what is new to this reader, and remembers what it has told. The stream asks each
of its topics after a look of the `Watch`, sends what they say, and asks again when that was sent.
So there is at most one step on its way to a reader, however slow it is. A large step is sent in
pieces, so that neither the gateway's other tasks nor the page have to wait for it as a whole.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio
from quart.wrappers.response import ResponseBody

from gateway.front.console.agents import SeenAgents
from gateway.front.console.fleet import SeenHosts
from gateway.front.console.requests import Ended, id_of, progress, running, view_running
from gateway.front.console.series import BUCKET
from gateway.front.console.workers import SeenWorkers
from gateway.front.event_stream import KEEP_ALIVE
from gateway.front.slices import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from gateway.exchange import Exchange
    from gateway.front.console.console import Console
    from gateway.front.console.fleet import Fleet
    from gateway.front.console.lines import Line, LineFilter
    from gateway.front.console.requests import RequestView
    from gateway.front.console.rights import Rights
    from gateway.front.console.watch import Reader

QUIET_SECONDS = 15.0
"""Of silence before a comment says that the stream lives, as with agents' streams."""

MOST_RUNNING = 200
"""Running requests that are shown."""

MOST_NEW_LINES = 500
"""Lines of the log that are told at once."""

MOST_LINES, MOST_REQUESTS, MOST_POINTS = 100, 100, 240
"""In one event: making it takes a millisecond or so, and a page as long to take it over."""

_encode = msgspec.json.encode


class Topic(Protocol):
    """What one reader is told of one thing."""

    def news(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        """The events that are new: their names and data. At first, everything.

        Each is made when it is asked for, and is small enough that this takes no time that others
        would miss; they may run in between. None is no event, but a time for them to do so."""


def _events(
    name: str, pieces: Iterable[dict[str, Any]], nothing: dict[str, Any] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """These pieces of one step as events, each but the last with `more`. Where the topic begins,
    the first of them has `reset`; or `nothing` has, if there is none. It is None later on."""
    begins = nothing is not None
    last = None
    for piece in pieces:
        if last is not None:
            yield name, {**last, "more": True}
        last = {"reset": True, **piece} if begins else piece
        begins = False
    if last is not None:
        yield name, last
    elif nothing is not None:
        yield name, {"reset": True, **nothing}


class AgentsTopic:
    """`agents` and `series`, of one agent or of all that the caller may see."""

    def __init__(self, console: Console, rights: Rights, agent: str | None) -> None:
        self._console = console
        self._rights = rights
        self._agent = agent
        self._seen = SeenAgents(self._shows, keys=rights.keys)
        self._last_point: dict[str, int] = {}
        self._over = 0
        """The end of the last bucket that was told of."""

    def _shows(self, name: str) -> bool:
        return self._agent in {None, name} and self._rights.may_call(name)

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        begins = self._over == 0
        pieces = (
            {"at": time.time(), **each} for each in self._seen.news(self._console.watch.views)
        )
        nothing = {"at": time.time(), "agents": [], "removed": []} if begins else None
        yield from _events("agents", pieces, nothing)
        over = int(time.time()) // BUCKET * BUCKET
        if over != self._over:
            self._over = over
            yield from _events("series", self._series(over), {"series": {}} if begins else None)

    def _series(self, over: int) -> Iterator[dict[str, Any]]:
        """The points of buckets that are over, and have not been told."""
        found: dict[str, Any] = {}
        count = 0
        for name in filter(self._shows, self._console.watch.views):
            since = self._last_point.get(name, -BUCKET) + BUCKET
            points = [each for each in self._console.series.read(name, since) if each[0] < over]
            if points:
                self._last_point[name] = points[-1][0]
                found[name] = points
                count += len(points)
            if count >= MOST_POINTS:
                yield {"series": found}
                found, count = {}, 0
        if found:
            yield {"series": found}


class WorkersTopic:
    """`workers`, of one agent."""

    def __init__(self, console: Console, agent: str) -> None:
        self._watch = console.watch
        self._agent = agent
        self._seen = SeenWorkers()
        self._begun = False

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        views = self._watch.workers.get(self._agent)
        if views is None:  # there has been no look since it was opened
            return
        pieces = ({"workers": each} for each in self._seen.news(views))
        nothing: dict[str, Any] | None = None if self._begun else {"workers": {}}
        self._begun = True
        yield from _events("workers", pieces, nothing)


class HostsTopic:
    """`hosts`, of the fleet that this is a front of."""

    def __init__(self, console: Console, rights: Rights, fleet: Fleet, agent: str | None) -> None:
        self._watch = console.watch
        self._fleet = fleet
        self._seen = SeenHosts(rights, agent)
        self._connected: bool | None = None
        """What was told."""

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        before, self._connected = self._connected, self._fleet.connected
        nothing: dict[str, Any] | None = {} if before is None else None
        yield from _events("hosts", self._pieces(before), nothing)

    def _pieces(self, before: bool | None) -> Iterator[dict[str, Any]]:
        connected = {"connected": self._connected}
        told = False
        for piece in self._seen.news(self._watch.hosts):
            told = True
            yield connected | piece
        if not told and before != self._connected:
            yield connected | {"hosts": [], "removed": []}


class RequestsTopic:
    """`requests`."""

    def __init__(self, console: Console, rights: Rights, agent: str | None) -> None:
        self._console = console
        self._rights = rights
        self._agent = agent
        self._running: dict[str, tuple[object, ...]] = {}
        """How far each running request was that was told."""
        self._ended: dict[str, None] = {}
        self._count = -1
        self._next = 0
        self._begun = False

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        before = {*self._running, *self._ended}
        new: list[Ended | Exchange] = [*self._new_ended(), *self._changed_running()]
        gone = sorted(before.difference(self._running, self._ended))
        count, changed = self._count_running()
        nothing = None if self._begun else {"running": count, "requests": [], "gone": []}
        self._begun = True

        def told() -> Iterator[dict[str, Any]]:
            left = gone
            for piece in pieces(new, MOST_REQUESTS):
                yield {"running": count, "requests": [_view(each) for each in piece], "gone": left}
                left = []
            if left or (changed and not new):
                yield {"running": count, "requests": [], "gone": left}

        yield from _events("requests", told(), nothing)

    def _shows(self, agent: str, began: float) -> bool:
        return (
            self._agent in {None, agent}
            and (not agent or self._rights.may_call(agent))
            and self._rights.may_see(began)
        )

    def _new_ended(self) -> list[Ended]:
        requests = self._console.requests
        if self._next == requests.next and self._begun:
            return []
        every = requests.of(self._rights.owner, self._agent)
        kept = [each for each in every if self._shows(each.seen.agent, each.seen.began)]
        new = [each for each in kept if each.n >= self._next]
        self._next = requests.next
        self._ended = dict.fromkeys(each.id for each in kept)
        return new

    def _changed_running(self) -> list[Exchange]:
        found: dict[str, tuple[object, ...]] = {}
        changed = []
        for exchange in running(self._console.dispatcher.open, self._rights.owner):
            if self._shows(exchange.call.agent, exchange.admitted_at):
                key, now = id_of(exchange), progress(exchange)
                found[key] = now
                if self._running.get(key) != now:
                    changed.append(exchange)
                if len(found) == MOST_RUNNING:
                    break
        self._running = found
        return changed

    def _count_running(self) -> tuple[int, bool]:
        """How many there are, and whether that is another number than was told."""
        every = running(self._console.dispatcher.open, self._rights.owner)
        count = sum(self._shows(exchange.call.agent, exchange.admitted_at) for exchange in every)
        changed, self._count = count != self._count, count
        return count, changed


class LogTopic:
    """`log`."""

    def __init__(self, console: Console, rights: Rights, wanted: LineFilter) -> None:
        self._lines = console.lines
        self._rights = rights
        self._wanted = wanted
        self._next = 0
        self._begun = False

    def news(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        if self._next == self._lines.next and self._begun:
            return
        found = yield from self._lines.after(self._next, self._is_for_reader, MOST_NEW_LINES)
        self._next = found.next
        skipped = found.passed_over if self._begun else 0  # what was before is not missed
        nothing = None if self._begun else {"lines": [], "skipped": 0}
        self._begun = True
        yield from _events("log", self._pieces(found.lines, skipped), nothing)

    def _pieces(self, found: list[Line], skipped: int) -> Iterator[dict[str, Any]]:
        for piece in pieces(found, MOST_LINES):
            yield {
                "lines": [each.show(keys=self._rights.keys) for each in piece],
                "skipped": skipped,
            }
            skipped = 0
        if skipped:
            yield {"lines": [], "skipped": skipped}

    def _is_for_reader(self, line: Line) -> bool:
        return self._wanted.takes(line) and self._rights.may_read(line)


def _view(request: Ended | Exchange) -> RequestView:
    return request.view if isinstance(request, Ended) else view_running(request)


class LiveBody(ResponseBody):
    """The body of the response with these topics. `opened` is the agent whose workers are one."""

    def __init__(
        self, console: Console, rights: Rights, topics: Sequence[Topic], opened: str | None = None
    ) -> None:
        """Raises Overloaded and ShuttingDown."""
        console.watch.check_room(rights.caller.name)
        self._console = console
        self._watch = console.watch
        self._rights = rights
        self._topics = topics
        self._opened = opened
        self._generation = console.watch.generation
        self._reading = ExitStack()
        self._reader: Reader | None = None

    async def __aenter__(self) -> LiveBody:
        reading = self._watch.reader(self._rights.caller.name, self._opened)
        self._reader = self._reading.enter_context(reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        quiet_since = trio.current_time()
        if not self._watch.current:
            await self._watch.next_look()
        while not self._is_over:
            self._console.catch_up()
            for topic in self._topics:
                for event in topic.news():
                    if event is not None:
                        name, data = event
                        yield b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))
                        quiet_since = trio.current_time()
                    await trio.lowlevel.checkpoint()
            if trio.current_time() - quiet_since >= QUIET_SECONDS:
                yield KEEP_ALIVE
                quiet_since = trio.current_time()
            await self._watch.next_look()

    @property
    def _is_over(self) -> bool:
        watch, reader = self._watch, self._reader
        return (
            watch.closed
            or self._generation != watch.generation
            or (reader is not None and reader.displaced)
            or self._expired
        )

    @property
    def _expired(self) -> bool:
        """Whether the caller's key is not good any more."""
        key = self._rights.caller.settings
        return (
            key is not None and key.expires is not None and key.expires.timestamp() <= time.time()
        )
