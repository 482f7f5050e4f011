"""Sums of what was observed of requests and runs: by agent, dialect and handler.

A request costs a few additions and three binary searches, about a microsecond. prometheus_client's
own counters and histograms, which lock and search from the front, take five times as long.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from gateway.observe.metrics.distribution import Distribution

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from gateway.observe.observation import Observation

DURATION_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
)
"""In seconds: an echo takes milliseconds, a model's answer up to a minute, and an agent with tools
as long as its `total` clock, an hour, lets it."""

FIRST_WORD_BOUNDS = (*DURATION_BOUNDS[:14], 300.0)
"""The same, as far as the `first` clock."""

QUEUE_BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The `queue` clock ends at 30 seconds; nothing to wait for takes microseconds."""

CLIENT_LEFT = 499
"""What counts as the status where the client has left before there was one, as in nginx's logs."""

MAX_KEYS = 1000
"""Names of keys that are labels; requests with any others are counted together."""

OTHERS = "(others)"


class CallLabels(NamedTuple):
    """What sums are kept by. All three are empty for requests that call no agent; a request that is
    about an agent has its name alone."""

    agent: str
    dialect: str
    handler: str


class Sums:
    """Of the requests and runs with the same labels."""

    __slots__ = (
        "abandoned",
        "chunks",
        "duration",
        "first_word",
        "outcomes",
        "queue",
        "received",
        "run_duration",
        "run_outcomes",
        "sent",
    )

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, str], int] = {}
        """How many requests had this status and this type of error."""
        self.run_outcomes: dict[str, int] = {}
        """How many runs ended with this type of error."""
        self.duration = Distribution(DURATION_BOUNDS)
        self.run_duration = Distribution(DURATION_BOUNDS)
        self.first_word = Distribution(FIRST_WORD_BOUNDS)
        self.queue = Distribution(QUEUE_BOUNDS)
        self.chunks = 0
        self.received = 0
        self.sent = 0
        self.abandoned = 0

    def copy(self) -> Sums:
        """The sums of this moment."""
        copied = copy(self)
        for name in ("outcomes", "run_outcomes", "duration", "run_duration", "first_word", "queue"):
            setattr(copied, name, getattr(self, name).copy())
        return copied


class RequestSums:
    """The sums of one gateway. `observe` is an `Observer`."""

    def __init__(self) -> None:
        self._sums: dict[CallLabels, Sums] = {}
        self._by_key: dict[str, dict[int, int]] = {}

    def __repr__(self) -> str:
        return f"<RequestSums of {len(self._sums)} kinds, {len(self._by_key)} keys>"

    def observe(self, ended: Sequence[Observation]) -> None:
        """Add requests and runs, which have ended."""
        for seen in ended:
            self._add(seen)

    def _add(self, seen: Observation) -> None:
        labels = (seen.agent, seen.dialect, seen.handler)
        sums = self._sums.get(labels)  # type: ignore[call-overload]  # equal to the named tuple
        if sums is None:
            sums = self._sums[CallLabels(*labels)] = Sums()
        error = seen.error_type
        if seen.kind == "run":
            sums.run_outcomes[error] = sums.run_outcomes.get(error, 0) + 1
            sums.run_duration.add(seen.total)
        else:
            status = seen.status or CLIENT_LEFT
            sums.outcomes[status, error] = sums.outcomes.get((status, error), 0) + 1
            sums.duration.add(seen.total)
            sums.received += seen.bytes_in
            sums.sent += seen.bytes_out
            sums.abandoned += seen.client_left
            if seen.key:
                self._count_for_key(seen.key, status)
        if seen.admitted_at is not None:
            sums.chunks += seen.chunks
            if seen.queued is not None:
                sums.queue.add(seen.queued)
            # Without a word and with an error, what came first is the error.
            if seen.first is not None and (not error or seen.chunks):
                sums.first_word.add(seen.first)

    def _count_for_key(self, key: str, status: int) -> None:
        counts = self._by_key.get(key)
        if counts is None:
            key = key if len(self._by_key) < MAX_KEYS else OTHERS
            counts = self._by_key.setdefault(key, {})
        counts[status] = counts.get(status, 0) + 1

    def keep(self, agents: Container[str]) -> None:
        """Forget what was counted of any other agents: they were removed."""
        self._sums = {
            labels: sums
            for labels, sums in self._sums.items()
            if not labels.agent or labels.agent in agents
        }

    def keep_keys(self, keys: Container[str]) -> None:
        """Forget what was counted of any other keys: they were revoked."""
        self._by_key = {
            key: counts for key, counts in self._by_key.items() if key in keys or key == OTHERS
        }

    def read(self) -> dict[CallLabels, Sums]:
        """The sums of this moment."""
        return {labels: sums.copy() for labels, sums in self._sums.items()}

    def read_keys(self) -> dict[str, dict[int, int]]:
        """By the key's name and the status, how many requests there were with a key."""
        return {key: counts.copy() for key, counts in self._by_key.items()}
