"""Telling observers of several requests at a time.

Between the work of two requests, what an observer does is cold: neither its code nor its data is in
the processor's caches, and a request costs three times what it costs in a loop. Much is also the
same for all that end within a moment: the time of day, a write, a lock. So what has ended waits for
others, for `SECONDS` or until there are `MOST`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.observation import Observation, Observer

log = logging.getLogger("gateway")

MOST = 64
"""Observations that wait, of less than a kilobyte each where payloads are not logged."""

SECONDS = 0.01
"""For which one waits at most: nobody who reads a log notices."""


class Batch:
    """`tell` may be called at any time, and `run` must be running."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._waiting: list[Observation] = []
        self._begun = trio.Event()
        """Set once any waits."""

    def __repr__(self) -> str:
        return f"<Batch of {len(self._waiting)} for {len(self._observers)} observers>"

    def tell(self, seen: Observation) -> None:
        """Have the observers told, soon, of a request or a run that has ended."""
        self._waiting.append(seen)
        if len(self._waiting) == 1:
            self._begun.set()
        elif len(self._waiting) >= MOST:
            self.catch_up()

    def catch_up(self) -> None:
        """Tell the observers of all that wait, now."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            for observe in self._observers:
                try:
                    observe(waiting)
                except Exception:  # the boundary: an observer's defect is not the requests'
                    names = ",".join(seen.request_id for seen in waiting)
                    fields = {"request": names}
                    log.exception("requests could not be observed", extra={"fields": fields})

    async def run(self) -> NoReturn:
        """Let nothing wait for more than `SECONDS`, until cancelled."""
        while True:
            await self._begun.wait()
            while self._waiting:
                await trio.sleep(SECONDS)
                self.catch_up()
            self._begun = trio.Event()
