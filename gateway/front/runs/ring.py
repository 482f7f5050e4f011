"""The events of one stream, numbered, with the oldest dropped: pure, without tasks or time.

An *event* is one block of Server-Sent Events as a dialect encodes it, with its blank line. The
n-th event of a stream has number n, from 0 on, which stands in it as its `id:` field. A comment (a
block whose every line begins with a colon) is not an event: it is for whoever is connected at that
moment, has no number, and is not kept.

A *position* is the number of the event that a reader needs next: 0 at the start, `n + 1` after
event `n`, and `next` once everything that there is was read. Reads from the same position give the
same bytes, however often and in whatever portions they are made, or say that the event there is
gone.

Costs are bytes, `EVENT_COST` for each event included, so that a bound in bytes is also one on the
number of events.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from protocol import on_one_line

if TYPE_CHECKING:
    from gateway.front.dialect import Response

EVENT_COST = 128
"""Bytes that an event takes beside its text: two objects and their places in lists. Without it, a
million empty events would cost nothing."""

DROPPED_AT_ONCE = 8
"""Drop a whole eighth of what may be kept. Taking from the front of a list moves all that is left:
this makes it a few moves for each event, however many there are."""


class Portion(NamedTuple):
    data: bytes
    position: int
    """Of the reader that has got this portion."""


class Ring:
    """See the module's docstring. Keeps events for at most `most`; of itself, always the newest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: list[bytes] = []
        self._ends: list[int] = []
        """For each event, what all events up to it have cost, dropped ones included."""
        self._start = 0
        """What the events that were dropped have cost."""
        self.first = 0
        """The number of the oldest event that is kept."""

    def __repr__(self) -> str:
        return f"<Ring events {self.first} to {self.next}, {self.cost} bytes>"

    @property
    def next(self) -> int:
        """The number that the next event will have."""
        return self.first + len(self._events)

    @property
    def cost(self) -> int:
        return self.written - self._start

    @property
    def written(self) -> int:
        """What all events have cost so far, dropped ones included."""
        return self._ends[-1] if self._ends else self._start

    def add(self, event: bytes) -> None:
        """Append one event, without its blank line. Drops the oldest if there is no room for it."""
        numbered = b"id: %d\n%b\n\n" % (self.next, event)
        self._ends.append(self.written + len(numbered) + EVENT_COST)
        self._events.append(numbered)
        if self.cost > self._most:
            self.drop(self.cost - self._most + self._most // DROPPED_AT_ONCE, keep=1)

    def drop(self, cost: int, *, keep: int = 0) -> None:
        """Drop the oldest events, until they have cost so much or only the `keep` newest are
        left."""
        count = bisect_left(self._ends, self._start + cost) + 1
        count = min(count, len(self._events) - keep)
        if count > 0:
            self._start = self._ends[count - 1]
            del self._events[:count], self._ends[:count]
            self.first += count

    def clear(self) -> None:
        """Drop every event. None may be added afterwards."""
        self.first, self._start = self.next, self.written
        self._events.clear()
        self._ends.clear()

    def read(self, position: int, most: int) -> Portion | None:
        """The events from a position on: as many as cost at most `most`, and at least one.

        None: the event there is gone. At the end, and beyond it, the portion is empty.
        """
        index = position - self.first
        if index < 0:
            return None
        before = self._cost_before(index)
        stop = max(bisect_right(self._ends, before + most), index + 1)
        events = self._events[index:stop]
        return Portion(b"".join(events), position + len(events))

    def lag(self, position: int) -> int:
        """What a reader at a position has not read yet of what is kept."""
        return self.written - self._cost_before(max(position - self.first, 0))

    def _cost_before(self, index: int) -> int:
        if index <= 0 or not self._ends:
            return self._start
        return self._ends[min(index, len(self._ends)) - 1]


def split_events(data: bytes) -> list[bytes]:
    """The events in what a stream encoder gave: whole blocks, each with its blank line.

    Given without the blank lines, and without comments.
    """
    return [block for block in data.split(b"\n\n") if block and not _is_comment(block)]


def error_event(response: Response) -> bytes:
    """An event that tells of an error which is not the stream's own, with that of an error
    response as its data. No stream looks whole that ends in one."""
    return b"event: error\ndata: " + on_one_line(response.event or response.body)


def _is_comment(block: bytes) -> bool:
    return block[:1] == b":" and all(line[:1] == b":" for line in block.split(b"\n"))
