"""The priority of a worker that keeps more processes busy than there are CPUs.

The kernel divides busy CPUs among processes, so that a worker with a hundred of them gets a hundred
times what its neighbour gets, unless a control group makes each worker one party. Where none can be
had, the gateway looks now and then, and lowers the priority of all processes of such a worker
(nice(2)) until together they weigh about as much as one process for each CPU.

That lasts for the worker's life: only root may raise a priority again. Processes inherit it, so
that a worker gains nothing by starting new ones, and it matters only while CPUs are short.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

from gateway.workers.memory import tree

WATCH_SECONDS = 1.0
"""Between two looks. One at the whole machine comes first, and takes some microseconds."""
LOOKS = 2
"""In a row in which a worker is found to keep too many busy: anyone may for a moment."""
LOWEST = 19
"""The kernel's last level of nice(2)."""
_STEP = 1.25
"""The ratio of the weights of two levels (sched(7))."""
_PASSES = 3
"""Over all threads: some fork while they are gone through, and are met later if not now."""


def levels(busy: int, cpus: int) -> int:
    """By how much the priority of `busy` threads has to be lowered to weigh as much as `cpus`."""
    if busy <= cpus:
        return 0
    return min(LOWEST, math.ceil(math.log(busy / cpus, _STEP)))


async def lower_when_greedy(pid: int, tell: Callable[[int, int], object]) -> None:
    """Watch a process and its descendants, for ever.

    `tell` gets how many threads were busy and the level of nice(2), each time that this rises.
    """
    cpus = len(os.sched_getaffinity(0))
    lowered = found = 0
    while True:
        await trio.sleep(WATCH_SECONDS)
        # Of the whole machine: where few are busy, nobody waits for a CPU.
        busy = await _in_thread(_count_busy, pid) if _running_here() > cpus else 0
        found = found + 1 if busy > cpus else 0
        if found >= LOOKS:
            level = max(lowered, levels(busy, cpus))
            if level > lowered:
                tell(busy, level)
            lowered = level
            await _in_thread(_lower, pid, level)


async def _in_thread(act: Callable[..., int], *args: int) -> int:
    return await trio.to_thread.run_sync(act, *args)  # a hundred processes take milliseconds


def _running_here() -> int:
    """How many threads of the machine run or wait for a CPU (proc(5), loadavg)."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])


def _threads(pid: int) -> Iterator[Path]:
    for each in tree(pid):
        with suppress(OSError):  # it may end meanwhile
            yield from Path(f"/proc/{each}/task").iterdir()


def _count_busy(pid: int) -> int:
    busy = 0
    for thread in _threads(pid):
        with suppress(OSError):
            busy += (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    return busy


def _lower(pid: int, level: int) -> int:
    """Lower the priority of every thread; returns how many were lowered."""
    lowered = 0
    for _ in range(_PASSES):
        before = lowered
        for thread in _threads(pid):
            number = int(thread.name)
            # Gone, or a user's whom the gateway may not change.
            with suppress(ProcessLookupError, PermissionError):
                if os.getpriority(os.PRIO_PROCESS, number) < level:
                    os.setpriority(os.PRIO_PROCESS, number, level)
                    lowered += 1
        if lowered == before:
            break
    return lowered
