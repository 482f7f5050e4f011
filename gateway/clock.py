"""Running time: trio's clock without the time in which the gateway itself did not run.

A gateway stands still when its process is stopped (SIGSTOP, a paused container, a live migration)
or when its event loop is held up. Nobody else is to blame for that time: an agent that answered
meanwhile was not late, and one that stood still with the gateway had no chance. So every clock that
judges somebody is read here, and a deadline that has passed on trio's clock is looked at again.

Standing still is noticed by a beat: a task that wakes every `BEAT` seconds is late by the time that
was missed. `now` itself looks at the beat, because after a stop everything that is due wakes in the
same turn of the loop, in any order.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import trio

from gateway.observe import logs

log = logging.getLogger("gateway")

BEAT = 0.5
"""Seconds between two beats. What is missed is known to within this."""

TOLERANCE = 0.5
"""Seconds by which a beat may be late on a machine that is only busy."""


class _Beat:
    def __init__(self) -> None:
        self.read = trio.lowlevel.current_clock().current_time
        """Trio's clock, without having to look up which it is."""
        self.due = self.read() + BEAT
        self.missed = 0.0

    def miss(self, late: float) -> None:
        self.missed += late
        self.due += late + BEAT
        logs.event(
            log, logging.WARNING, f"the gateway stood still for {late:.1f} s; clocks are moved"
        )


_beat: _Beat | None = None
"""Of the one run of trio that `keep` runs in. Not a variable of trio's: the clock is read several
times for each request, and looking one up costs more than reading the clock."""


def now() -> float:
    """Running time in seconds. Without `keep` it is trio's."""
    if _beat is None:
        return trio.current_time()
    at = _beat.read()
    if at - _beat.due > TOLERANCE:
        _beat.miss(at - _beat.due)
    return at - _beat.missed


def trio_now() -> float:
    """Trio's time in seconds, which goes on while the gateway stands still."""
    return trio.current_time() if _beat is None else _beat.read()


def unix_time() -> int:
    """The time of day in whole seconds, for those who are told when something was made. Nobody is
    judged by it."""
    return int(time.time())


def utc_text() -> str:
    """The time of day in milliseconds, in UTC: `2026-11-26T09:30:00.000Z` (RFC 3339). Nobody is
    judged by it."""
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"


def as_deadline(at: float) -> float:
    """Trio's time at which running time reaches `at`, if nothing more is missed."""
    return at if _beat is None else at + _beat.missed


async def wait_within(event: trio.Event, seconds: float) -> bool:
    """Wait for an event for at most so much running time; whether it is set."""
    until = now() + seconds
    while not event.is_set():
        with trio.CancelScope(deadline=as_deadline(until)):
            await event.wait()
        if now() >= until:
            break
    return event.is_set()


async def keep() -> None:
    """Keep running time, until cancelled. Once in a process at a time."""
    global _beat  # noqa: PLW0603 - see there
    _beat = beat = _Beat()
    try:
        while True:
            await trio.sleep_until(beat.due)
            now()  # notices what was missed
            beat.due = trio.current_time() + BEAT
    finally:
        _beat = None
