"""The places for the processes that check inputs: one bound over all agents of a gateway.

Each agent that declares a schema has a process of its own while its inputs are checked, because no
agent's schema is trusted (`input_checker`). A thousand such agents would have a thousand processes,
of about 10 MiB each. So a process needs a place, and there are `MOST_PROCESSES`.

# Theory of operation

    waits in line ──> works ──> idle ──> ended: another one waits, or nothing has come for long
          ^             │
          └─────────────┘ its turn is over, and another one waits

Whoever wants a place when none is free has the process ended that has been idle for longest. If all
of them work, it waits in line, first come first served. An agent stands there once for its inputs
and once for its outputs, however many of them wait, so that a line is never of one agent.

A process that works when others wait goes on for `TURN_SECONDS`, and then, after the input that it
is at, gives up its place. Its agent goes to the end of the line if it has more to check. Starting a
process takes the work of a hundred small inputs, so that a turn is longer than one input; and it
includes at least one, so that every turn gets something done. What a schema can do to the other
agents is bounded by that: it keeps one place busy for a turn and one input, of which each takes one
second of a CPU at most (`input_program.CPU_SECONDS`), and then for as long again as everybody else
in the line.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_PROCESSES = 32
"""That check inputs at a time: 300 MiB. If all of them work, two CPUs give each one second
of work in 16, which is less than a process has for an answer (`input_checker.ANSWER_SECONDS`)."""

TURN_SECONDS = 0.5
"""For which a process works while others wait for its place."""


class Place:
    """A place that was taken, for one process."""

    def __init__(self, places: CheckerPlaces) -> None:
        self._places = places
        self._turn_ends_at = trio.current_time() + TURN_SECONDS
        self.given_up = False
        """Whether it is another one's as soon as the process has ended."""

    def turn_is_over(self) -> bool:
        """Whether the process, which has work to do, has to end; then the place is given up."""
        if self._places.wanted and trio.current_time() >= self._turn_ends_at:
            self._places.give_up(self)
        return self.given_up

    async def idle_until(self, event: trio.Event, seconds: float) -> bool:
        """Wait for work to do. False: the process has to end."""
        with trio.move_on_after(seconds) as scope:
            self._places.idle(self, scope)
            try:
                await event.wait()
            finally:
                self._places.not_idle(self)
            return not self.given_up  # may have been, in the same turn of the loop
        return False


class CheckerPlaces:
    """See the module's docstring."""

    def __init__(self, most: int | None = None) -> None:
        """`most` processes at a time, or `MOST_PROCESSES`."""
        self.most = MOST_PROCESSES if most is None else most
        self._free = trio.Semaphore(self.most)
        self._idle: dict[Place, trio.CancelScope] = {}
        """Longest first."""
        self._given_up = 0
        """Places whose processes are about to end."""

    def __repr__(self) -> str:
        return (
            f"<CheckerPlaces {self._free.value} of {self.most} free, {len(self._idle)} idle, "
            f"{self._waiting} waiting>"
        )

    @property
    def _waiting(self) -> int:
        return self._free.statistics().tasks_waiting

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for a place that nobody has given up yet."""
        return self._waiting > self._given_up

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Place]:
        """Wait for a place, which is free again at the end of the block."""
        if not self._free.value and self._waiting >= self._given_up:
            self._end_idle()
        async with self._free:
            place = Place(self)
            try:
                yield place
            finally:
                self._given_up -= place.given_up

    def give_up(self, place: Place) -> None:
        """Count on a place to become free soon."""
        if not place.given_up:
            place.given_up = True
            self._given_up += 1

    def idle(self, place: Place, scope: trio.CancelScope) -> None:
        """The process of a place has nothing to do. `scope` is cancelled if another wants it."""
        self._idle[place] = scope
        if self.wanted:
            self._end_idle()

    def not_idle(self, place: Place) -> None:
        self._idle.pop(place, None)

    def _end_idle(self) -> None:
        if self._idle:
            place = next(iter(self._idle))
            self._idle.pop(place).cancel()
            self.give_up(place)
