"""A distribution of values, as numbers below bounds: what a histogram of Prometheus shows."""

from __future__ import annotations

from bisect import bisect_left


class Distribution:
    """How many values lay below each of some bounds, and the sum of all values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` ascend; each is the largest value of its class."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By class; the last one is of the values beyond all bounds."""
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Distribution of {sum(self.counts)} values, {self.total:g} together>"

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Distribution:
        """The distribution of this moment."""
        copied = Distribution(self.bounds)
        copied.counts[:] = self.counts
        copied.total = self.total
        return copied
