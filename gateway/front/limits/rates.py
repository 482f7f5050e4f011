"""Requests per second and per minute, in a moving window.

There are no more than so many requests in *any* second or minute, and the time until the next one
may come is exact, so that a client that waits as long as it is told is not refused again. What is
kept for that are the times of the requests that count, of which one takes 32 bytes, and there are
at most as many as the rate allows. They are on trio's clock, which nobody can set back.

The package `limits` has the same window (`MovingWindowRateLimiter`), and a test compares the two.
It is not used here, because a request would cost eight calls more: it makes the key of a rate anew
each time, reads the clock each time, and its memory copies all times and starts threads.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from gateway import clock
from gateway.front.limits.places import Met, requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Owner

_UNITS = {"second": 1, "minute": 60}
"""In seconds."""


def rates_of(owner: Owner, settings: LimitSettings) -> Iterator[Rate]:
    """The rates of one table of settings, of which nothing was counted yet."""
    for unit in _UNITS:
        most = getattr(settings, f"requests_per_{unit}")
        if most:
            yield Rate(owner, unit, most)


class Rate:
    """Requests per second or per minute, to one agent or with one key."""

    def __init__(self, owner: Owner, unit: str, most: int) -> None:
        self._owner = owner
        self._unit = unit
        self.most = most
        self._seconds = _UNITS[unit]
        self.times: deque[float] = deque()
        """Those of the requests that count, the oldest first. To count one is to append its time.
        Old ones may stand there yet; while there are fewer than `most`, `has_room` need not be
        asked."""
        name = f'"{owner.kind}-per-{unit}"'
        self.policy = f"{name};q={self.most};w={self._seconds}"
        """As `RateLimit-Policy` lists it."""
        self.left_form = f"{name};r=%d;t=%d"
        """What is left, as `RateLimit` lists it, for the numbers that `left` returns."""

    def __repr__(self) -> str:
        return f"<Rate of {self._owner}: {self.most} per {self._unit}>"

    def has_room(self) -> bool:
        """Whether one more request is allowed now."""
        if len(self.times) >= self.most:  # seldom: old ones need not be looked at before
            self.left(clock.trio_now())  # forgets old ones
        return len(self.times) < self.most

    def met(self, now: float) -> Met:
        """The limit, where it has no room."""
        sentence = f"{self._owner} allows {requests(self.most)} per {self._unit}"
        setting = f"{self._owner.table}.requests_per_{self._unit}"
        wait = self.times[0] + self._seconds - now
        return Met(sentence, setting, wait, self.policy, self.left_form % self.left(now))

    def left(self, now: float) -> tuple[int, int]:
        """How many requests are left, and in how many seconds there is one more."""
        times, since = self.times, now - self._seconds
        while times and times[0] <= since:
            times.popleft()
        return self.most - len(times), ceil(times[0] - since) if times else 0
