"""The requests that wait for a worker: in the order of arrival, and by the worker they wait for.

# Theory of operation

A *lane* holds the waiting requests of one conversation. Only the first request of a lane can be
next, so a lane moves as a whole and its length does not matter.

A *line* holds the lanes that wait for the same thing: for one worker, the home of their
conversations, or (`ANY`) for whichever worker has room. Each lane stands in one line, sorted by the
*stamp* of its first request. Stamps ascend in the order of arrival; a request that is put back gets
one below all others. So whoever knows which workers have room finds the request that is next by
looking at the head of one line for each, whatever else waits.

A lane changes lines when its conversation is given a home (`bind`) or loses it (`release`). Sorted
lists are enough for lines: to enter or leave one takes a binary search, and moves pointers in one
block. Nothing is removed lazily, so requests that come and leave again leave nothing behind.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from gateway.agents.pool_types import T

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

ANY = 0
"""The line for whichever worker has room; the ids of workers are greater."""


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    """The waiting requests of one conversation, first in first, with their stamps."""

    key: Hashable
    home: int
    """The line in which the lane stands: the id of a worker, or `ANY`."""
    requests: OrderedDict[T, int] = field(default_factory=OrderedDict)

    @property
    def first(self) -> T:
        return next(iter(self.requests))

    @property
    def stamp(self) -> int:
        return next(iter(self.requests.values()))


class Waiting(Generic[T]):
    """See the module's docstring. `key` is a conversation, `home` the worker that it waits for.

    The key `None` is of requests without a conversation; they wait for `ANY`.
    """

    def __init__(self) -> None:
        self._lane_of: dict[T, _Lane[T]] = {}
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._lines: dict[int, list[tuple[int, _Lane[T]]]] = {}
        self._lowest_stamp = 0
        self._highest_stamp = 0

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, ticket: T) -> bool:
        return ticket in self._lane_of

    def __iter__(self) -> Iterator[T]:
        """The requests, first in first."""
        return iter(
            sorted(self._lane_of, key=lambda ticket: self._lane_of[ticket].requests[ticket])
        )

    def conversations(self, home: int) -> int:
        """How many conversations wait for a worker, or for any."""
        return len(self._lines.get(home, ()))

    @property
    def independent(self) -> int:
        """How many workers could be given something at once of what waits for any.

        That is one for each conversation, whose requests go to one worker, and one for each request
        of the lane `None`, which has no conversation.
        """
        unrelated = self._lanes.get(None)
        return self.conversations(ANY) + (len(unrelated.requests) - 1 if unrelated else 0)

    def first(self, homes: Iterable[int]) -> T | None:
        """The request that is next if these workers have room, or also any (`ANY`)."""
        heads = [line[0] for home in homes if (line := self._lines.get(home))]
        return min(heads)[1].first if heads else None

    def home(self, ticket: T) -> int:
        """What a request waits for. Raises KeyError if it does not wait."""
        return self._lane_of[ticket].home

    def add(self, ticket: T, key: Hashable, home: int) -> None:
        """Let a request wait behind all others. `home` counts if none of its conversation waits."""
        self._highest_stamp += 1
        lane = self._lane(key, home)
        self._lane_of[ticket] = lane
        lane.requests[ticket] = self._highest_stamp
        if len(lane.requests) == 1:
            self._enter(lane)

    def put_back(self, ticket: T, key: Hashable, home: int) -> None:
        """Let a request wait before all others. `home` is as in `add`."""
        self._lowest_stamp -= 1
        lane = self._lane(key, home)
        if lane.requests:
            self._leave(lane)
        self._lane_of[ticket] = lane
        lane.requests[ticket] = self._lowest_stamp
        lane.requests.move_to_end(ticket, last=False)
        self._enter(lane)

    def remove(self, ticket: T) -> None:
        """A request waits no more. If it did not: nothing."""
        lane = self._lane_of.pop(ticket, None)
        if lane is None:
            return
        if lane.first is not ticket:
            del lane.requests[ticket]
            return
        self._leave(lane)
        del lane.requests[ticket]
        if lane.requests:
            self._enter(lane)
        else:
            del self._lanes[lane.key]

    def bind(self, key: Hashable, home: int) -> None:
        """A conversation goes on at a worker: what waits of it waits for that one."""
        lane = self._lanes.get(key)
        if lane is not None and lane.home != home:
            self._leave(lane)
            lane.home = home
            self._enter(lane)

    def release(self, home: int) -> None:
        """A worker takes nothing any more: what waited for it waits for any."""
        for _, lane in self._lines.pop(home, ()):
            lane.home = ANY
            self._enter(lane)

    def clear(self) -> list[T]:
        """Let nothing wait any more; returns what did, first in first."""
        waited = list(self)
        for each in (self._lane_of, self._lanes, self._lines):
            each.clear()
        return waited

    def _lane(self, key: Hashable, home: int) -> _Lane[T]:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, home)
        return lane

    def _enter(self, lane: _Lane[T]) -> None:
        insort(self._lines.setdefault(lane.home, []), (lane.stamp, lane))

    def _leave(self, lane: _Lane[T]) -> None:
        line = self._lines[lane.home]
        # Shorter than the lane's own entry, and thus just before it.
        del line[bisect_left(line, (lane.stamp,))]
        if not line:
            del self._lines[lane.home]
