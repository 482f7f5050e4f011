"""The clocks of many exchanges, watched by one task.

Nobody waits for a forwarded exchange, so nobody wakes when one of its clocks runs out. The judge
sleeps until the earliest deadline that it was told of, and then looks at all of them: most have
ended or gone on by then, which moves the next look, and costs less than a timer for each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from gateway import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.fleet.host.exchange import ForwardedExchange

REST_SECONDS = 0.01
"""Between two looks: thousands of requests whose clocks run out one after the other are not looked
at once for each."""


class Judge:
    """See the module's docstring. `open_exchanges` gives those that may have clocks."""

    def __init__(self, open_exchanges: Callable[[], Iterable[ForwardedExchange]]) -> None:
        self._open_exchanges = open_exchanges
        self._at = math.inf
        self._scope: trio.CancelScope | None = None

    def see(self, deadline: float) -> None:
        """A deadline, in running time, that may be earlier than the ones before."""
        if deadline < self._at:
            self._at = deadline
            if self._scope is not None:
                self._scope.deadline = clock.as_deadline(deadline)

    async def run(self) -> None:
        """Judge whatever is late, until cancelled."""
        while True:
            with trio.CancelScope(deadline=clock.as_deadline(self._at)) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            await self._look()
            await trio.sleep(REST_SECONDS)

    async def _look(self) -> None:
        now = clock.now()
        for exchange in [each for each in self._open_exchanges() if each.deadline <= now]:
            await exchange.judge()
        self._at = math.inf
        for exchange in self._open_exchanges():
            if not exchange.ended:
                self._at = min(self._at, exchange.deadline)
