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

import trio

from gateway.observe import logs

log = logging.getLogger("gateway")

BEAT = 0.5
"""Seconds between two beats. What is missed is known to within this."""

TOLERANCE = 0.5
"""Seconds by which a beat may be late on a machine that is only busy."""


class _Beat:
    def __init__(self, due: float) -> None:
        self.due = due
        self.missed = 0.0

    def look(self, time: float) -> None:
        late = time - self.due
        if late > TOLERANCE:
            self.missed += late
            self.due = time + BEAT
            logs.event(
                log, logging.WARNING, f"the gateway stood still for {late:.1f} s; clocks are moved"
            )


_beat: trio.lowlevel.RunVar[_Beat | None] = trio.lowlevel.RunVar("beat", default=None)


def now() -> float:
    """Running time in seconds. Without `keep` it is trio's."""
    time = trio.current_time()
    beat = _beat.get()
    if beat is None:
        return time
    beat.look(time)
    return time - beat.missed


def as_deadline(at: float) -> float:
    """Trio's time at which running time reaches `at`, if nothing more is missed."""
    beat = _beat.get()
    return at if beat is None else at + beat.missed


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
    """Keep running time in this run of trio, until cancelled."""
    beat = _Beat(trio.current_time() + BEAT)
    _beat.set(beat)
    try:
        while True:
            await trio.sleep_until(beat.due)
            time = trio.current_time()
            beat.look(time)
            beat.due = time + BEAT
    finally:
        _beat.set(None)
