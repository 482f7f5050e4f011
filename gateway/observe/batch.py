"""Telling observers of several requests at a time.

Between the work of two requests, what an observer does is cold: neither its code nor its data is in
the processor's caches, and a request costs three times what it costs in a loop. So what has ended
waits for others, for `SECONDS` or until there are `MOST`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import trio

from gateway.observe.observation import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.observation import Observation, Observer

MOST = 16
"""Observations that wait. They keep what belongs to their requests."""

SECONDS = 0.01
"""For which one waits at most: nobody who reads a log notices."""


class Batch:
    """`observe` is an `Observer` for others, and `run` must be running."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._waiting: list[Observation] = []
        self._begun = trio.Event()
        """Set once any waits."""

    def __repr__(self) -> str:
        return f"<Batch of {len(self._waiting)} for {len(self._observers)} observers>"

    def observe(self, seen: Observation) -> None:
        """Have the observers told of a request or a run, soon."""
        self._waiting.append(seen)
        if len(self._waiting) >= MOST:
            self.catch_up()
        elif len(self._waiting) == 1:
            self._begun.set()

    def catch_up(self) -> None:
        """Tell the observers of all that wait, now."""
        waiting, self._waiting = self._waiting, []
        for seen in waiting:
            tell(self._observers, seen)

    async def run(self) -> NoReturn:
        """Let nothing wait for more than `SECONDS`, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun = trio.Event()
            await trio.sleep(SECONDS)
            self.catch_up()
