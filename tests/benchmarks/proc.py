"""What the kernel accounts to a process, in seconds and bytes."""

from __future__ import annotations

import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time so far, of all threads and without children.

    It is exact, where /proc/PID/stat counts in ticks of 10 ms. The clock's number is made as
    clock_getcpuclockid(3) does, which Python has for threads only.
    """
    return time.clock_gettime(~pid << 3 | 2)


def wakeups(pid: int) -> int:
    """How often the main thread has gone to sleep, and hence been woken, so far."""
    return _status(pid, "voluntary_ctxt_switches")


def resident_bytes(pid: int) -> int:
    return _status(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The peak of resident memory since the start, or since `forget_peak`."""
    return _status(pid, "VmHWM") * 1024


def forget_peak(pid: int) -> None:
    """Reset the peak to what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def proportional_bytes(pid: int) -> int:
    """The proportional set size: private memory, plus a share of each shared page."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss in /proc/{pid}/smaps_rollup")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    raise ValueError(f"no {key} in /proc/{pid}/status")
