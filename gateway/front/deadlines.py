"""The deadlines of all connections, kept by one task.

A task and a scope of its own for each connection would cost as much memory as a silent stream has
of anything else, and a deadline that trio is told of anew costs a request 6 µs, a fortieth of all
that it costs. So a connection's deadline is a number of its own, which mostly moves to later: the
connection is looked at when the deadline passes that it had at the last look, and then the one that
it has by now counts. Only an earlier one has to be told (`moved`).

Connections are looked at in slots of time, so each is found, and forgotten, without a search.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Protocol

import trio

from gateway import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("gateway.http")

_SLOT_SECONDS = 0.05
"""By which a deadline may be late."""


class Timed(Protocol):
    """What has a deadline."""

    deadline: float
    """On the running clock (`gateway.clock`); infinite: none."""

    def time_is_up(self) -> None:
        """The deadline has passed. It may be moved."""

    def drain(self) -> None:
        """The gateway drains. The deadline may be moved."""


class Deadlines:
    """See the module's docstring. `run` must be running."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timed, None]] = {}
        """Whom to look at, by the slot in which that is due."""
        self._slot_of: dict[Timed, int] = {}
        self._sleep = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._slot_of)}>"

    def moved(self, timed: Timed) -> None:
        """A deadline was set, or moved."""
        slot = math.ceil(timed.deadline / _SLOT_SECONDS)
        before = self._slot_of.get(timed)
        if before is not None:
            if before <= slot:
                return
            self.forget(timed)
        self._slot_of[timed] = slot
        self._slots.setdefault(slot, {})[timed] = None
        due = clock.as_deadline(slot * _SLOT_SECONDS)
        self._sleep.deadline = min(self._sleep.deadline, due)

    def forget(self, timed: Timed) -> None:
        """Something has no deadline any more."""
        slot = self._slot_of.pop(timed, None)
        if slot is not None:
            several = self._slots[slot]
            del several[timed]
            if not several:
                del self._slots[slot]

    async def run(self, draining: Callable[[], Awaitable[None]]) -> None:
        """Keep the deadlines until cancelled. `draining` returns when the gateway drains."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await draining()
            for timed in [*self._slot_of]:
                timed.drain()

    async def _keep(self) -> None:
        while True:
            first = min(self._slots, default=math.inf) * _SLOT_SECONDS
            with trio.CancelScope(deadline=clock.as_deadline(first)) as self._sleep:
                await trio.sleep_forever()
            now = clock.now()
            for slot in [slot for slot in self._slots if slot * _SLOT_SECONDS <= now]:
                for timed in [*self._slots[slot]]:
                    self._look(timed, now)

    def _look(self, timed: Timed, now: float) -> None:
        self.forget(timed)
        if timed.deadline <= now:
            try:
                timed.time_is_up()
            except Exception:  # the boundary: a defect in one connection is no other's
                log.exception("internal error: the deadline of a connection was lost")
        elif timed.deadline < math.inf:
            self.moved(timed)
