"""When to start the next worker of an agent whose workers fail.

A failure is counted where it was caused (`Blame`). A worker that could not start says something
about the agent, and what follows is backoff, then a circuit breaker:

    CLOSED ── `failures` in a row within `window` ──> OPEN ── `cooldown` ──> HALF_OPEN
      ^                                                ^                        │
      └───────────────── one success ──────────────────┼────────────────────────┤
                                                       └────── one failure ─────┘

A success is an answered request, or a worker that lived for `stable` seconds; it clears the count.
The first failure after a success is followed by a start at once, each further one by a delay that
doubles.

A worker that had started and died with a request says something about that request, and nothing
about the next one: such a death never opens the breaker. The worker is replaced at once, held only
to a rate (`CRASH_RATE`), so that a caller whose requests crash an agent cannot have the machine do
nothing but start workers, nor make the other callers wait for more than a moment.

The time is passed in, and nothing is started here; the log is told when the breaker opens and when
it closes.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from gateway.agents.blame import Blame
from gateway.observe import logs

if TYPE_CHECKING:
    from gateway.config import Restart

log = logging.getLogger("gateway.agent")

CRASH_RATE = 4.0
"""Workers a second, for one agent, that are started in place of those that a request has crashed: a
bare interpreter takes tens of milliseconds of a processor to start."""

CRASH_BURST = 5
"""How many are started at once before the rate counts."""

_MOST_CRASHES = CRASH_BURST + 10 * CRASH_RATE
"""More are forgotten: ten seconds after the last crash, workers are started as they are needed."""

_JITTER = 0.2
"""Delays are spread by up to this share: agents that fail together do not return together."""


class Breaker(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class RestartPolicy:
    """The count of failures of one agent, and what follows from it."""

    def __init__(
        self, settings: Restart, *, agent: str = "", rng: random.Random | None = None
    ) -> None:
        """`agent` is its name, for the log."""
        self._agent = agent
        self._settings = settings
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._failures: deque[float] = deque(maxlen=settings.failures)
        self._streak = 0
        self._start_at = -math.inf
        self._open = False
        self._crashes = 0.0
        self._crashes_at = self._started_at = -math.inf
        self.total_failures = 0

    def __repr__(self) -> str:
        return f"<RestartPolicy {'open' if self._open else 'closed'}, {self._streak} in a row>"

    def breaker(self, now: float) -> Breaker:
        if not self._open:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self._start_at else Breaker.HALF_OPEN

    @property
    def failing(self) -> bool:
        """Whether the last thing known of this agent is a failure."""
        return self._streak > 0

    @property
    def start_at(self) -> float:
        """No worker is to be started before this time."""
        return self._start_at

    def ended(self, blame: Blame, now: float, *, lived: float) -> None:
        """A worker has ended, `lived` seconds after its start."""
        if blame is Blame.AGENT:
            self.failed(now, lived=lived)
        elif blame is Blame.REQUEST:
            self._crashed(now)

    def _crashed(self, now: float) -> None:
        """A worker died with a request. It had started, so failures to start are forgotten."""
        self.total_failures += 1
        self.succeeded()
        self._crashes = min(self._crashes_left(now) + 1, _MOST_CRASHES)
        self._crashes_at = now
        if self.paced(now):
            self._start_at = max(self._start_at, self._started_at + 1 / CRASH_RATE)

    def _crashes_left(self, now: float) -> float:
        return max(0.0, self._crashes - (now - self._crashes_at) * CRASH_RATE)

    def paced(self, now: float) -> bool:
        """Whether workers are started one by one, because requests have crashed so many."""
        return self._crashes_left(now) > CRASH_BURST

    def started(self, now: float) -> None:
        """A worker is being started."""
        self._started_at = now
        if self.paced(now):
            self._start_at = now + 1 / CRASH_RATE

    def failed(self, now: float, *, lived: float = 0.0) -> None:
        """A worker could not be started, or ended before it had done anything."""
        self.total_failures += 1
        if lived >= self._settings.stable and not self._open:
            self._clear()
        self._streak += 1
        self._failures.append(now)
        if self._open or self._too_many(now):
            self._start_at = now + self._spread(self._settings.cooldown)
            if not self._open:
                self._open = True
                self._log_open(self._start_at - now)
        else:
            self._start_at = max(self._start_at, now + self._spread(self._delay()))

    def succeeded(self) -> None:
        """A request was answered, or a worker has lived long enough."""
        if self._open:
            logs.event(
                log,
                logging.INFO,
                "workers of the agent are started as usual again",
                agent=self._agent,
            )
        if self._streak:
            self._clear()

    def _log_open(self, seconds: float) -> None:
        message = (
            f"the agent has failed {self._settings.failures} times in a row: it is not started for "
            f"{seconds:.3g} s, and its requests are refused (restart.cooldown)"
        )
        logs.event(log, logging.WARNING, message, agent=self._agent)

    def _clear(self) -> None:
        self._failures.clear()
        self._streak = 0
        self._open = False
        self._start_at = -math.inf

    def _too_many(self, now: float) -> bool:
        full = len(self._failures) == self._settings.failures
        return full and now - self._failures[0] <= self._settings.window

    def _delay(self) -> float:
        if self._streak == 1:
            return 0.0
        # The exponent is bounded so that a long streak does not overflow a float.
        factor = 2.0 ** min(self._streak - 2, 60)
        return min(self._settings.backoff * factor, self._settings.backoff_max)

    def _spread(self, delay: float) -> float:
        return delay * (1 + self._rng.uniform(-_JITTER, _JITTER))
