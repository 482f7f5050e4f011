"""The last of many things, kept in rings: one for each of those whom they concern.

So that no agent that logs without end, and no caller that asks without end, can push out what
others have to see, each has a ring of its own, which is bounded in things and in their cost. All
together are bounded in cost as well; beyond that the largest ring loses half, which happens rarely
enough to cost nothing. Things have numbers in the order in which they came. Pure.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice, takewhile
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Ring(Generic[T]):
    __slots__ = ("cost", "things")

    def __init__(self) -> None:
        self.things: deque[tuple[int, T, int]] = deque()
        """Each with its number and its cost, the oldest first."""
        self.cost = 0

    def drop(self) -> int:
        """Drop the oldest; returns its cost."""
        cost = self.things.popleft()[2]
        self.cost -= cost
        return cost


class Rings(Generic[K, T]):
    """See the module's docstring."""

    def __init__(self, *, most: int, most_cost: int, most_cost_in_all: int) -> None:
        """`most` things of one ring, `most_cost` of these together."""
        self._most, self._most_cost, self._most_in_all = most, most_cost, most_cost_in_all
        self._rings: dict[K, _Ring[T]] = {}
        self.cost = 0
        self.next = 0
        """The number of the next thing."""

    def __repr__(self) -> str:
        return f"<Rings of {len(self)} things in {len(self._rings)}, which cost {self.cost}>"

    def __len__(self) -> int:
        return sum(len(ring.things) for ring in self._rings.values())

    def add(self, key: K, thing: T, cost: int) -> None:
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring()
        ring.things.append((self.next, thing, cost))
        ring.cost += cost
        self.cost += cost
        self.next += 1
        while len(ring.things) > self._most or ring.cost > self._most_cost:
            self.cost -= ring.drop()
        if self.cost > self._most_in_all:
            self._make_room()

    def _make_room(self) -> None:
        while self.cost > self._most_in_all:
            key, largest = max(self._rings.items(), key=lambda item: item[1].cost)
            for _ in range((len(largest.things) + 1) // 2):
                self.cost -= largest.drop()
            if not largest.things:
                del self._rings[key]

    def since(self, n: int, concerns: Callable[[K], bool]) -> list[tuple[int, T]]:
        """What is kept from the number `n` on in the rings that concern whoever asks, in order."""
        found = [
            (number, thing)
            for key, ring in self._rings.items()
            if concerns(key)
            for number, thing, _ in takewhile(lambda each: each[0] >= n, reversed(ring.things))
        ]
        found.sort(key=lambda each: each[0])
        return found

    def last(self, most: int, concerns: Callable[[K], bool]) -> list[T]:
        """The last `most` in the rings that concern whoever asks, the oldest first."""
        rings = [reversed(ring.things) for key, ring in self._rings.items() if concerns(key)]
        newest = heapq.merge(*rings, key=lambda each: each[0], reverse=True)
        return [thing for _, thing, _ in islice(newest, most)][::-1]

    def keep(self, wanted: Callable[[K], bool]) -> None:
        """Forget all other rings."""
        for key in [key for key in self._rings if not wanted(key)]:
            self.cost -= self._rings.pop(key).cost
