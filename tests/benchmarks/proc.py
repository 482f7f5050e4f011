"""What the kernel accounts to a process, from /proc/PID, in seconds and bytes."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time so far, without children, to the precision of a clock tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


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
