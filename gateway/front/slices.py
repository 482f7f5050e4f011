"""Long work on the event loop, in slices, so that no request waits for more than a moment."""

from __future__ import annotations

from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

SLICE = 0.001
"""Seconds after which others have their turn."""


class Slices:
    """The slices of one piece of work: `pause` between its steps, each of which must be short."""

    def __init__(self) -> None:
        self._ends = perf_counter() + SLICE

    def __repr__(self) -> str:
        return f"<Slices, this one ends in {self._ends - perf_counter():.4f} s>"

    async def pause(self) -> None:
        """Let other tasks run, if this slice is over."""
        if perf_counter() >= self._ends:
            await trio.lowlevel.checkpoint()
            self._ends = perf_counter() + SLICE


def pieces(things: Iterable[T], most: int) -> Iterator[list[T]]:
    """The things in lists of at most `most`; none for nothing."""
    rest = iter(things)
    while piece := list(islice(rest, most)):
        yield piece
