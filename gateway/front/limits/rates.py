"""Requests per second and per minute, counted by the package `limits`.

The strategy is the moving window: no more than so many requests in *any* second or minute, and the
time until the next one may come is exact, so that a client that waits as long as it is told is not
refused again.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from gateway.front.limits.places import Met, requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Owner

_UNITS = {"second": 1, "minute": 60}
"""In seconds."""


class _Times(MemoryStorage):
    """The times of the requests that count, by the key of their rate.

    The package's own memory starts a thread for each request that comes after 10 ms without one,
    copies all times of a rate for each request, and goes by the time of day, which can be set back.
    Here a request costs the same however many there were. A time takes 32 bytes, and there are at
    most as many of a rate as the rate allows.
    """

    STORAGE_SCHEME = ["gateway"]  # noqa: RUF012 - the base class declares it like this

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, deque[float]] = {}

    def of(self, key: str) -> deque[float]:
        """The times of a rate, in which old ones may stand yet."""
        return self._times.setdefault(key, deque())

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests that come now, if that many are allowed."""
        times = self.of(key)
        now = trio.current_time()
        _forget_until(now - expiry, times)
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest request that counts, and how many there are."""
        del limit
        times = self.of(key)
        now = trio.current_time()
        _forget_until(now - expiry, times)
        return (times[0], len(times)) if times else (now, 0)

    def clear(self, key: str) -> None:
        self._times.pop(key, None)


def _forget_until(time: float, times: deque[float]) -> None:
    while times and times[0] <= time:
        times.popleft()


class _Item(RateLimitItemPerSecond):
    """So many requests in so many seconds. The package makes the key anew for each request."""

    __slots__ = ("_key",)

    def __init__(self, amount: int, seconds: int, key: str) -> None:
        super().__init__(amount, seconds)
        self._key = key

    def key_for(self, *identifiers: bytes | str | float) -> str:
        del identifiers
        return self._key


class Rates:
    """All rates that are counted, in one memory."""

    def __init__(self) -> None:
        self._times = _Times()
        self._strategy = MovingWindowRateLimiter(self._times)

    def of(self, owner: Owner, settings: LimitSettings) -> Iterator[Rate]:
        """The rates of one table of settings."""
        for unit, seconds in _UNITS.items():
            most = getattr(settings, f"requests_per_{unit}")
            if most:
                item = _Item(most, seconds, f"{owner.table}.{most}/{unit}")
                yield Rate(self._strategy, self._times, item, owner, unit)


class Rate:
    """Requests per second or per minute, to one agent or with one key.

    Times are on trio's clock.
    """

    def __init__(
        self,
        strategy: MovingWindowRateLimiter,
        memory: _Times,
        item: _Item,
        owner: Owner,
        unit: str,
    ) -> None:
        self._strategy = strategy
        self._memory = memory
        self._item = item
        self._owner = owner
        self._unit = unit
        self._most = item.amount
        self._seconds = item.get_expiry()
        self._times = memory.of(item.key_for())
        name = f'"{owner.kind}-per-{unit}"'
        self.policy = f"{name};q={self._most};w={self._seconds}"
        """As `RateLimit-Policy` lists it."""
        self.left_form = f"{name};r=%d;t=%d"
        """What is left, as `RateLimit` lists it, for the numbers that `left` returns."""

    def __repr__(self) -> str:
        return f"<Rate of {self._owner}: {self._most} per {self._unit}>"

    def count(self) -> None:
        """Count a request that comes now, if it is allowed."""
        self._strategy.hit(self._item)

    def has_room(self, now: float) -> bool:
        """Whether one more request is allowed."""
        times = self._times
        if len(times) < self._most:  # mostly so, and old ones need not be looked at
            return True
        _forget_until(now - self._seconds, times)
        return len(times) < self._most

    def met(self, now: float) -> Met:
        """The limit, where it has no room."""
        sentence = f"{self._owner} allows {requests(self._most)} per {self._unit}"
        setting = f"{self._owner.table}.requests_per_{self._unit}"
        wait = self._times[0] + self._seconds - now
        return Met(sentence, setting, wait, self.policy, self.left_form % self.left(now))

    def left(self, now: float) -> tuple[int, int]:
        """How many requests are left, and in how many seconds there is one more."""
        times = self._times
        _forget_until(now - self._seconds, times)
        reset = math.ceil(times[0] + self._seconds - now) if times else 0
        return self._most - len(times), reset

    def forget(self) -> None:
        """Free what was counted."""
        self._memory.clear(self._item.key_for())
