"""How late the event loop is: what everything that happens waits for before it is looked at.

A task sleeps for a while, again and again, and sees how much longer that took. As its looks are not
timed by anything that is served, they are a fair sample of the delay that an event meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gateway.observe.metrics.distribution import Distribution

if TYPE_CHECKING:
    from typing import NoReturn

LOOK_SECONDS = 0.25
"""Between two looks, which take some 50 µs each."""

DELAY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""In seconds. Turns of a busy loop take milliseconds; a gateway that stood still is on no clock
(`gateway.clock`), but is late here."""


class LoopDelay:
    """`run` must be running for anything to be noticed."""

    def __init__(self) -> None:
        self.seconds = Distribution(DELAY_BOUNDS)

    async def run(self) -> NoReturn:
        """Look at the delay until cancelled."""
        while True:
            due = trio.current_time() + LOOK_SECONDS
            await trio.sleep_until(due)
            self.seconds.add(trio.current_time() - due)
