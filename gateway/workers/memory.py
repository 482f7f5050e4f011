"""Memory of a process and its descendants, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None) -> int:
    """Resident bytes of `pid` and all its descendants; 0 if the process has ended.

    A page that several of them share counts once for each (proc(5), statm).
    """
    total, todo = 0, [] if pid is None else [pid]
    while todo:
        current = todo.pop()
        try:
            folder = Path(f"/proc/{current}")
            total += int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
            for thread in (folder / "task").iterdir():
                todo += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError):
            continue
    return total
