"""What the sandbox costs, beside the same worker without it in the same run.

`measure()` for the benchmarks; `python -m tests.sandbox.cost` prints it. Starts are interleaved, so
that whatever else the machine does meanwhile falls on both alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.sandbox import SandboxSettings, make_launcher
from gateway.sandbox.launch import Launcher

STARTS = 40
"""Of each kind; the median of fewer moves from run to run."""
ROUND_TRIPS = 2000
"""Lines there and back, of each kind."""
LINE = b'{"id":1,"result":{"output":"hello"}}\n'


@dataclass(frozen=True)
class Cost:
    """Medians, without and with the sandbox."""

    spawn_off_ms: float
    """From the start to the first word of a program that speaks at once."""
    spawn_strict_ms: float
    round_trip_off_us: float
    """Of one line, to a program that gives it back."""
    round_trip_strict_us: float
    memory_kib: float
    """Of the processes around a worker, in shares of what they have in common (PSS)."""


def measure(*, starts: int = STARTS, round_trips: int = ROUND_TRIPS) -> Cost:
    """Measure on this machine, for some seconds. Raises SandboxError where there is no sandbox."""
    echo, cat = (
        {level: launcher(level, argv) for level in ("off", "strict")}
        for argv in (["echo", "x"], ["cat"])
    )
    spawns: dict[str, list[float]] = {"off": [], "strict": []}
    for _ in range(starts):
        for level, samples in spawns.items():
            samples.append(first_word(echo[level]))
    trips = {level: round_trip(cat[level], round_trips) for level in ("off", "strict")}
    return Cost(
        spawn_off_ms=statistics.median(spawns["off"]) * 1e3,
        spawn_strict_ms=statistics.median(spawns["strict"]) * 1e3,
        round_trip_off_us=trips["off"] * 1e6,
        round_trip_strict_us=trips["strict"] * 1e6,
        memory_kib=memory(cat["strict"]),
    )


def launcher(level: Any, argv: list[str]) -> Launcher:
    return make_launcher("cost", argv, SandboxSettings(), level=level, environ=os.environ, cwd="/")


@contextmanager
def started(launcher: Launcher) -> Iterator[subprocess.Popen[bytes]]:
    with launcher.launch() as launch:
        process = subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def first_word(launcher: Launcher) -> float:
    began = time.perf_counter()
    with started(launcher) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - began


def round_trip(launcher: Launcher, count: int) -> float:
    with started(launcher) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        samples = []
        for _ in range(count):
            began = time.perf_counter()
            process.stdin.write(LINE)
            process.stdout.read(len(LINE))
            samples.append(time.perf_counter() - began)
        return statistics.median(samples)


def memory(launcher: Launcher) -> float:
    """KiB of every process of the start but the last, which is the worker itself."""
    with started(launcher) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(LINE)
        process.stdout.read(len(LINE))
        chain = [process.pid]
        while children := Path(f"/proc/{chain[-1]}/task/{chain[-1]}/children").read_text().split():
            chain.append(int(children[0]))
        return sum(proportional_share(pid) for pid in chain[:-1])


def proportional_share(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    cost = measure()
    rows = (
        ("started", "ms", cost.spawn_off_ms, cost.spawn_strict_ms),
        ("round trip", "us", cost.round_trip_off_us, cost.round_trip_strict_us),
    )
    for name, unit, off, strict in rows:
        more = f"+{strict - off:.1f} {unit}, x {strict / off:.2f}"
        print(f"{name:10}  off {off:6.1f} {unit}  strict {strict:6.1f} {unit}  {more}")
    print(f"memory      {cost.memory_kib:.0f} KiB per worker")


if __name__ == "__main__":
    main()
