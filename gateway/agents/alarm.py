"""An alarm: one function, called at the earliest of the times that were set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from gateway import clock

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm:
    """Calls `ring` at the time that was set, in running time; `run` must be running for that."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = math.inf
        self._scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Alarm {self._at}>"

    def set(self, at: float) -> None:
        """Ring at a time, or at one that was set before and is earlier.

        Only ever earlier: ringing too early costs one look, and moving the deadline at every
        request would cost more.
        """
        if at < self._at:
            self._at = at
            if self._scope is not None:
                self._scope.deadline = clock.as_deadline(at)

    async def run(self) -> None:
        """Ring whenever it is time, until cancelled."""
        while True:
            with trio.CancelScope(deadline=clock.as_deadline(self._at)) as self._scope:
                await trio.sleep_forever()
            self._at = math.inf
            self._ring()
