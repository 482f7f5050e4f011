"""One task keeps the deadlines of many, in virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gateway.front.deadlines import _SLOT_SECONDS, Deadlines


class Timed:
    """What notes when its time was up."""

    def __init__(self, deadlines: Deadlines, then: Callable[[], None] = lambda: None) -> None:
        self.deadline = math.inf
        self.up_at: list[float] = []
        self._deadlines = deadlines
        self._then = then

    def set(self, seconds: float) -> None:
        self.deadline = trio.current_time() + seconds
        self._deadlines.moved(self)

    def time_is_up(self) -> None:
        self.up_at.append(trio.current_time())
        self._then()

    def drain(self) -> None:
        self.set(1)


@asynccontextmanager
async def kept(draining: trio.Event | None = None) -> AsyncIterator[Deadlines]:
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run, (trio.Event() if draining is None else draining).wait)
        yield deadlines
        nursery.cancel_scope.cancel()


def is_at(time: float, expected: float) -> bool:
    return expected <= time <= expected + 2 * _SLOT_SECONDS


async def test_each_is_told_once_and_in_time(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    async with kept() as deadlines:
        several = [Timed(deadlines) for _ in range(20)]
        for number, timed in enumerate(several):
            timed.set((number * 7) % 20)
        await trio.sleep(100)
    for number, timed in enumerate(several):
        assert len(timed.up_at) == 1
        assert is_at(timed.up_at[0], began + (number * 7) % 20)


async def test_a_deadline_may_be_moved_either_way(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    async with kept() as deadlines:
        later, earlier, never = (Timed(deadlines) for _ in range(3))
        for timed in (later, earlier, never):
            timed.set(10)
        await trio.sleep(1)
        later.set(20)
        earlier.set(2)
        never.deadline = math.inf
        await trio.sleep(100)
        never.set(5)
        await trio.sleep(100)
    assert is_at(later.up_at[0], began + 21)
    assert is_at(earlier.up_at[0], began + 3)
    assert is_at(never.up_at[0], began + 106)
    assert [len(timed.up_at) for timed in (later, earlier, never)] == [1, 1, 1]


async def test_a_deadline_may_be_set_again_when_it_has_passed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with kept() as deadlines:
        timed = Timed(deadlines, then=lambda: timed.set(10) if len(timed.up_at) < 3 else None)
        timed.set(10)
        await trio.sleep(100)
    assert len(timed.up_at) == 3


async def test_what_is_forgotten_is_held_no_more(autojump_clock: trio.testing.MockClock) -> None:
    async with kept() as deadlines:
        gone, there = Timed(deadlines), Timed(deadlines)
        gone.set(10)
        there.set(10)
        deadlines.forget(gone)
        deadlines.forget(gone)
        assert repr(deadlines) == "<Deadlines of 1>"
        await trio.sleep(100)
        assert repr(deadlines) == "<Deadlines of 0>"
    assert (len(gone.up_at), len(there.up_at)) == (0, 1)


async def test_all_that_have_a_deadline_are_told_of_the_drain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    draining, began = trio.Event(), trio.current_time()
    async with kept(draining) as deadlines:
        several = [Timed(deadlines) for _ in range(3)]
        for timed in several:
            timed.set(50)
        await trio.sleep(5)
        draining.set()
        await trio.sleep(100)
    assert all(is_at(timed.up_at[0], began + 6) for timed in several)


async def test_a_defect_of_one_is_logged_and_no_other_is_late_for_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("met a defect")

    async with kept() as deadlines:
        several = [Timed(deadlines, then=fail) for _ in range(3)]
        for timed in several:
            timed.set(10)
        await trio.sleep(100)
    assert [len(timed.up_at) for timed in several] == [1, 1, 1]
    assert caplog.text.count("met a defect") >= 3
