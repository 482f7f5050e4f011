"""How much memory a process and its descendants hold, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None) -> int:
    """Resident bytes of `pid` and of all that descends from it; 0 if it has ended.

    Pages that several processes share count once for each (proc(5), statm).
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
