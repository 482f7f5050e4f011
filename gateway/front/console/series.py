"""How many requests an agent has answered lately, and how fast: for the lines of the page.

Time is divided into buckets. A request is added to the bucket in which it ends, as an observer is
told of it, so that nothing is done for an agent that nobody calls.
"""

from __future__ import annotations

import random
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from gateway.observe.observation import Observation

BUCKET = 5
"""Seconds of one point."""

BUCKETS = 60
"""Points of an agent: five minutes."""

MOST_TIMES = 64
"""Durations that are kept of one bucket, a fair sample of all: enough for a 95th percentile, and
256 bytes."""

Point: TypeAlias = tuple[int, int, int, float, float]
"""Of a bucket: its beginning in Unix seconds, how many requests ended, how many of them with an
error, and the median and the 95th percentile of their durations in seconds."""


class _Bucket:
    __slots__ = ("at", "count", "errors", "times")

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = self.errors = 0
        self.times = array("f")

    def add(self, seconds: float, *, failed: bool) -> None:
        self.count += 1
        self.errors += failed
        if len(self.times) < MOST_TIMES:
            self.times.append(seconds)
        elif (place := int(random.random() * self.count)) < MOST_TIMES:  # noqa: S311 - a sample
            self.times[place] = seconds

    def point(self) -> Point:
        times = sorted(self.times)
        middle, high = times[len(times) // 2], times[int(len(times) * 0.95)]
        return self.at, self.count, self.errors, round(middle, 6), round(high, 6)


class Series:
    """Of all agents. `observe` is an `Observer`."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._buckets: dict[str, deque[_Bucket]] = {}

    def __repr__(self) -> str:
        return f"<Series of {len(self._buckets)} agents>"

    def observe(self, ended: Sequence[Observation]) -> None:
        """Add the requests and runs that were calls of agents."""
        at = int(self._now()) // BUCKET * BUCKET
        for seen in ended:
            if not (seen.agent and seen.handler) or (seen.run and seen.kind == "request"):
                continue
            buckets = self._buckets.get(seen.agent)
            if buckets is None:
                buckets = self._buckets[seen.agent] = deque(maxlen=BUCKETS)
            if not buckets or buckets[-1].at != at:
                buckets.append(_Bucket(at))
            buckets[-1].add(seen.total, failed=seen.error is not None)

    def read(self, agent: str, since: int = 0) -> list[Point]:
        """The points of an agent whose buckets begin at `since` or later, the oldest first."""
        since = max(since, int(self._now()) - BUCKET * BUCKETS)
        buckets = self._buckets.get(agent, ())
        return [bucket.point() for bucket in buckets if bucket.at >= since]

    def keep(self, agents: Container[str]) -> None:
        """Forget any other agents."""
        self._buckets = {name: buckets for name, buckets in self._buckets.items() if name in agents}
