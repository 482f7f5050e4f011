"""Whether a service's budget has room for one more request: pure, times are given.

One `Budget` belongs to one agent and one service; it lives in the agent's process (`door`).

# Theory of operation

`requests_per_minute` is exact: in no 60 seconds more requests are passed on than it says, by one
process. One that takes the place of another begins anew: the gateway learns of a request at its
end, and could not tell of those that were under way. So the times of as many requests are kept,
which is 32 bytes for each. A token bucket would take less and let twice as many through in some
minutes. What is refused does not count. The library `limits` has such a window, too; it takes 13
µs, a timer's thread, and a place among what the process is shown.

`tokens_per_day` is by the day of UTC, so that two numbers are all that there is to keep: the
gateway keeps them, from the records, and gives them to a process that takes the place of another.
They begin at zero when the gateway itself is started. What an answer takes is known at its end. So
the request that uses up the budget is answered, and so are those beside it: a budget is exceeded by
what was under way, and never by a request that came afterwards.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

MINUTE = 60.0
DAY = 86_400


class Exceeded(NamedTuple):
    """Why a request is not passed on, with the status 429."""

    setting: str
    """The setting that says so, without its table."""
    message: str
    """One line that names the service, the setting and when to come back."""
    retry_after: int
    """Seconds, for `Retry-After` (RFC 9110, 10.2.3)."""
    retry: bool
    """Whether it is worth the while of a client to wait that long."""


def day_of(at: float) -> int:
    """The day of a Unix time in seconds, in UTC."""
    return int(at // DAY)


class Budget:
    """See the module's docstring. 0 is no limit."""

    def __init__(
        self, service: str, *, requests_per_minute: int = 0, tokens_per_day: int = 0
    ) -> None:
        self._service = service
        self._passed: deque[float] = deque()
        """When the last requests were passed on, as many as the limit at most."""
        self._day = self._tokens = 0
        self._requests_per_minute = requests_per_minute
        self._tokens_per_day = tokens_per_day

    def __repr__(self) -> str:
        return (
            f"<Budget {self._service} {len(self._passed)} of {self._requests_per_minute} requests,"
            f" {self._tokens} of {self._tokens_per_day} tokens>"
        )

    def change(self, *, requests_per_minute: int = 0, tokens_per_day: int = 0) -> None:
        """Set other limits. What was used so far counts."""
        self._requests_per_minute = requests_per_minute
        self._tokens_per_day = tokens_per_day

    def restore(self, day: int, tokens: int) -> None:
        """Go on with what was used on a day."""
        self._day, self._tokens = day, tokens

    def take(self, now: float, at: float) -> Exceeded | None:
        """Count a request that is about to be passed on; or why it must not be.

        `now` is in seconds of a clock that is never set, `at` the Unix time.
        """
        self._begin_day(at)
        if self._tokens_per_day and self._tokens >= self._tokens_per_day:
            return self._out_of_tokens(at)
        most = self._requests_per_minute
        if not most:
            self._passed.clear()
            return None
        while self._passed and (now - self._passed[0] >= MINUTE or len(self._passed) > most):
            self._passed.popleft()
        if len(self._passed) == most:
            return self._too_often(MINUTE - (now - self._passed[0]))
        self._passed.append(now)
        return None

    def charge(self, tokens: int, at: float) -> None:
        """Count what an answer took, at its end."""
        self._begin_day(at)
        self._tokens += tokens

    def _begin_day(self, at: float) -> None:
        if self._day != day_of(at):
            self._day, self._tokens = day_of(at), 0

    def _too_often(self, wait: float) -> Exceeded:
        seconds = max(1, math.ceil(wait))
        message = (
            f"service {self._service!r}: this agent may make {self._requests_per_minute} requests "
            f"in a minute ([services.{self._service}] requests_per_minute); "
            f"try again in {seconds} s"
        )
        return Exceeded("requests_per_minute", message, seconds, retry=True)

    def _out_of_tokens(self, at: float) -> Exceeded:
        seconds = max(1, math.ceil(DAY - at % DAY))
        message = (
            f"service {self._service!r}: this agent has used its {self._tokens_per_day} tokens "
            f"of today ([services.{self._service}] tokens_per_day); "
            f"the next day of UTC begins in {seconds} s"
        )
        return Exceeded("tokens_per_day", message, seconds, retry=False)
