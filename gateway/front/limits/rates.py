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
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from gateway.front.limits.places import Met, requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import LimitSettings
    from gateway.front.limits.places import Owner


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

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests that come now, if that many are allowed."""
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = deque()
        now = trio.current_time()
        _forget_until(now - expiry, times)
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest request that counts, and how many there are."""
        del limit
        return self.window(key, expiry, trio.current_time())

    def window(self, key: str, seconds: int, now: float) -> tuple[float, int]:
        """As `get_moving_window`, without what the package puts around each of its own methods."""
        times = self._times.get(key)
        if times:
            _forget_until(now - seconds, times)
        return (times[0], len(times)) if times else (now, 0)

    def clear(self, key: str) -> None:
        self._times.pop(key, None)


def _forget_until(time: float, times: deque[float]) -> None:
    while times and times[0] <= time:
        times.popleft()


class Rates:
    """All rates that are counted, in one memory."""

    def __init__(self) -> None:
        self._times = _Times()
        self._strategy = MovingWindowRateLimiter(self._times)

    def of(self, owner: Owner, settings: LimitSettings) -> Iterator[Rate]:
        """The rates of one table of settings."""
        per_second, per_minute = settings.requests_per_second, settings.requests_per_minute
        if per_second:
            yield Rate(self._strategy, self._times, owner, RateLimitItemPerSecond(per_second))
        if per_minute:
            yield Rate(self._strategy, self._times, owner, RateLimitItemPerMinute(per_minute))


class Rate:
    """Requests per second or per minute, to one agent or with one key."""

    def __init__(
        self, strategy: MovingWindowRateLimiter, times: _Times, owner: Owner, item: RateLimitItem
    ) -> None:
        self._strategy = strategy
        self._times = times
        self._owner = owner
        self._item = item
        self._table = owner.table
        self._most = item.amount
        self._seconds = item.get_expiry()
        self._key = item.key_for(self._table)
        self._name = f'"{owner.kind}-per-{item.GRANULARITY.name}"'
        self.policy = f"{self._name};q={self._most};w={self._seconds}"
        """As `RateLimit-Policy` lists it."""

    def __repr__(self) -> str:
        return f"<Rate of {self._owner}: {self._item}>"

    def count(self) -> None:
        """Count a request that comes now, if it is allowed."""
        self._strategy.hit(self._item, self._table)

    def met(self, now: float) -> Met | None:
        """The limit, if it leaves no room for one more request."""
        oldest, count = self._times.window(self._key, self._seconds, now)
        if count < self._most:
            return None
        unit = self._item.GRANULARITY.name
        sentence = f"{self._owner} allows {requests(self._most)} per {unit}"
        wait = oldest + self._seconds - now
        setting = f"{self._table}.requests_per_{unit}"
        return Met(sentence, setting, wait, self.policy, self.left(now))

    def left(self, now: float) -> str:
        """What is left, as `RateLimit` lists it: `t` is when there is one more."""
        oldest, count = self._times.window(self._key, self._seconds, now)
        reset = math.ceil(oldest + self._seconds - now)
        return f"{self._name};r={self._most - count};t={reset}"

    def forget(self) -> None:
        """Free what was counted."""
        self._times.clear(self._key)
