"""What an event costs the pool, in steps of the interpreter: a count, and the same on any machine.

`python -m tests.benchmarks --only growth` measures the time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.agents import pool
from tests.unit.pools import Request, Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

AGENTS = str(Path(pool.__file__).parent)
"""Where the pool and its parts are."""

SESSIONS = ("none", "sticky", "exclusive")


def steps(call: Callable[[], object]) -> int:
    """How many instructions of Python a call takes within the pool."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        # A collection of garbage may come in between, and call what others have asked it to call.
        if not frame.f_code.co_filename.startswith(AGENTS):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks for it beforehand
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def busy(session: str, *, workers: int, waiting: int, homeless: bool) -> Scene:
    """Each worker has a request, and others wait: for those workers, or for any."""
    scene = Scene(
        workers={"min": workers, "max": workers}, session=session, concurrency=1, queue=100_000
    )
    for worker in scene.numbers:
        scene.up(worker)
        scene.submit(f"talk {worker}")
    for number in range(waiting):
        scene.submit(f"other {number}" if homeless else f"talk {1 + number % workers}")
    assert scene.pool.waiting == waiting
    return scene


def cost(scene: Scene) -> dict[str, int]:
    """Of each event that the number of waiting requests could matter to."""
    now = scene.now
    new, known, left = Request(0, "new"), Request(0, "talk 1"), Request(0, "left")
    scene.pool.submit(left, now)
    return {
        "a new conversation comes": steps(lambda: scene.pool.submit(new, now)),
        "a known one goes on": steps(lambda: scene.pool.submit(known, now)),
        "one that waits is given up": steps(lambda: scene.pool.finish(left, now, served=False)),
        "one is answered": steps(lambda: scene.pool.finish(scene.made[0], now, served=True)),
        "the time has come": steps(lambda: scene.pool.tick(now)),
    }


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("homeless", [True, False])
def test_an_event_costs_the_same_however_much_waits(session: str, homeless: bool) -> None:
    few = cost(busy(session, workers=4, waiting=20, homeless=homeless))
    many = cost(busy(session, workers=4, waiting=1000, homeless=homeless))
    assert all(few.values())
    assert few == many


@pytest.mark.parametrize("session", SESSIONS)
def test_an_event_costs_a_few_steps_for_each_worker(session: str) -> None:
    few = cost(busy(session, workers=10, waiting=100, homeless=True))
    many = cost(busy(session, workers=50, waiting=100, homeless=True))
    for event, price in many.items():
        assert (price - few[event]) / 40 < 100, event
