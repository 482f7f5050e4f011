"""The stream of Server-Sent Events that one reader of the console follows.

A *topic* finds out what is new to this reader, and remembers what it has told. The stream asks each
of its topics after a look of the `Watch`, sends what they say, and asks again when that was sent.
So there is at most one step on its way to a reader, however slow it is.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio
from quart.wrappers.response import ResponseBody

from gateway.front.console.agents import SeenAgents
from gateway.front.console.requests import id_of, progress, running, view_running
from gateway.front.console.series import BUCKET
from gateway.front.event_stream import KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from gateway.front.console.console import Console
    from gateway.front.console.lines import Line, LineFilter
    from gateway.front.console.requests import RequestView
    from gateway.front.console.rights import Rights

QUIET_SECONDS = 15.0
"""Of silence before a comment says that the stream lives, as with agents' streams."""

MOST_RUNNING = 200
"""Running requests that are shown."""

MOST_NEW_LINES = 500
"""Lines of the log in one event."""

_encode = msgspec.json.encode


class Topic(Protocol):
    """What one reader is told of one thing."""

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events that are new: their names and data. At first, everything."""


class AgentsTopic:
    """`agents` and `series`."""

    def __init__(self, console: Console, rights: Rights) -> None:
        self._console = console
        self._may_call = rights.may_call
        self._seen = SeenAgents(rights.may_call, keys=rights.keys)
        self._last_point: dict[str, int] = {}
        self._begun = False

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        reset = {} if self._begun else {"reset": True}
        news = self._seen.news(self._console.watch.views)
        if news is not None or reset:
            yield "agents", reset | {"at": time.time()} | (news or {"agents": [], "removed": []})
        series = self._series()
        if series or reset:
            yield "series", reset | {"series": series}
        self._begun = True

    def _series(self) -> dict[str, Any]:
        """The points of buckets that are over, and have not been told."""
        over = int(time.time()) // BUCKET * BUCKET
        found = {}
        for name in self._console.watch.views:
            if self._may_call(name):
                since = self._last_point.get(name, -BUCKET) + BUCKET
                points = [each for each in self._console.series.read(name, since) if each[0] < over]
                if points:
                    self._last_point[name] = points[-1][0]
                    found[name] = points
        return found


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
        gone = {*self._running, *self._ended}
        views = [*self._new_ended(), *self._changed_running()]
        gone -= {*self._running, *self._ended}
        count, changed = self._count_running()
        if views or gone or changed or not self._begun:
            reset = {} if self._begun else {"reset": True}
            yield "requests", reset | {"running": count, "requests": views, "gone": sorted(gone)}
        self._begun = True

    def _shows(self, agent: str) -> bool:
        return (self._agent is None or agent == self._agent) and (
            not agent or self._rights.may_call(agent)
        )

    def _new_ended(self) -> list[RequestView]:
        requests = self._console.requests
        if self._next == requests.next and self._begun:
            return []
        every = requests.of(self._rights.owner, self._agent)
        kept = [each for each in every if self._shows(each.seen.agent)]
        new = [each.view for each in kept if each.n >= self._next]
        self._next = requests.next
        self._ended = dict.fromkeys(each.id for each in kept)
        return new

    def _changed_running(self) -> list[RequestView]:
        found: dict[str, tuple[object, ...]] = {}
        changed = []
        for exchange in running(self._console.dispatcher.open, self._rights.owner):
            if self._shows(exchange.call.agent):
                key, now = id_of(exchange), progress(exchange)
                found[key] = now
                if self._running.get(key) != now:
                    changed.append(view_running(exchange))
                if len(found) == MOST_RUNNING:
                    break
        self._running = found
        return changed

    def _count_running(self) -> tuple[int, bool]:
        """How many there are, and whether that is another number than was told."""
        every = running(self._console.dispatcher.open, self._rights.owner)
        count = sum(self._shows(exchange.call.agent) for exchange in every)
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

    def news(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._next == self._lines.next and self._begun:
            return
        found, skipped = self._lines.after(self._next, self._is_for_reader, MOST_NEW_LINES)
        self._next = self._lines.next
        if found or skipped or not self._begun:
            lines = [line.show(keys=self._rights.keys) for line in found]
            reset = {} if self._begun else {"reset": True}
            skipped = skipped if self._begun else 0  # what was before is not missed
            yield "log", reset | {"lines": lines, "skipped": skipped}
        self._begun = True

    def _is_for_reader(self, line: Line) -> bool:
        return self._wanted.takes(line) and self._rights.may_read(line)


class LiveBody(ResponseBody):
    """The body of the response with these topics."""

    def __init__(self, console: Console, rights: Rights, topics: Sequence[Topic]) -> None:
        """Raises Overloaded and ShuttingDown."""
        console.watch.check_room(rights.caller.name)
        self._console = console
        self._rights = rights
        self._topics = topics
        self._generation = console.watch.generation
        self._reading = ExitStack()

    async def __aenter__(self) -> LiveBody:
        self._reading.enter_context(self._console.watch.reader(self._rights.caller.name))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch = self._console.watch
        quiet_since = trio.current_time()
        while not watch.closed and self._generation == watch.generation and not self._expired:
            events = b"".join(
                b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))
                for topic in self._topics
                for name, data in topic.news()
            )
            if not events and trio.current_time() - quiet_since >= QUIET_SECONDS:
                events = KEEP_ALIVE
            if events:
                yield events
                quiet_since = trio.current_time()
            await watch.next_look()

    @property
    def _expired(self) -> bool:
        """Whether the caller's key is not good any more."""
        key = self._rights.caller.settings
        return (
            key is not None and key.expires is not None and key.expires.timestamp() <= time.time()
        )
