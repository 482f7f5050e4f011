"""The claim of a living gateway on its control groups, and the end of what a dead one left there.

A gateway that was killed cannot remove its groups, and in rare cases a process of a worker outlives
it. The next gateway ends these processes, if it is certain whose they were: a process id would not
tell, since that of a gateway in another container looks like that of one that has ended.

So each gateway makes one more group, empty, and holds a lock on it (flock(2)), which the kernel
releases however the gateway ends, and which is seen from every namespace. The names of all its
other groups begin with that group's name. Who gets the lock knows that its gateway has ended, and
takes over its groups.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import signal
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "agent-gateway-"
"""Begins the name of every group made by a gateway."""
OWN = PREFIX + secrets.token_hex(8)
"""The name of this gateway's claim; those of its other groups follow with a hyphen."""
_CLAIM = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")

ROUNDS = 100
"""Attempts to end the processes of one group: they may fork meanwhile."""
PAUSE = 0.01
"""Seconds between two of them, one second in all: the gateway does not serve yet."""

_log = logging.getLogger(__name__)
_claimed: dict[Path, Claim] = {}


def take_over(parents: Iterable[Path]) -> None:
    """End and remove what dead gateways left in these groups, and claim a place for this one's.

    Does nothing for a group that this process has claimed before. Blocks for some milliseconds, or
    seconds if processes do not end. Raises OSError if no group can be made.
    """
    for parent in set(parents) - _claimed.keys():
        _sweep(parent)
        _claimed[parent] = Claim(parent / OWN)


class Claim:
    """A group, made and locked for the life of this object or process."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        while True:
            folder.mkdir(exist_ok=True)
            # None if another gateway, in between, took it for a dead one's and removed it.
            if (lock := _lock(folder)) is not None:
                break
        self._folder = folder
        weakref.finalize(self, _give_up, folder, lock)

    def __repr__(self) -> str:
        return f"<Claim {self._folder}>"


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock, or None if another process does or the group is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed, and another of that name made, before it was locked.
        if os.path.samestat(os.fstat(lock), folder.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _give_up(folder: Path, lock: int) -> None:
    # What could not be removed is the next gateway's, and so it finds the claim.
    if not any(_groups_of(folder)):
        with contextlib.suppress(OSError):
            folder.rmdir()
    os.close(lock)


def _groups_of(claim: Path) -> Iterator[Path]:
    return claim.parent.glob(f"{claim.name}-*")


def _sweep(parent: Path) -> None:
    for claim in parent.glob(f"{PREFIX}*"):
        if not _CLAIM.fullmatch(claim.name):
            continue
        with contextlib.suppress(OSError):  # what cannot be ended is left to a later start
            if (lock := _lock(claim)) is not None:
                try:
                    _end_all(claim)
                finally:
                    os.close(lock)


def _end_all(claim: Path) -> None:
    for group in _groups_of(claim):
        if ended := end_processes(group):
            _log.warning("ended %d processes that an earlier gateway left in %s", ended, group)
        group.rmdir()
    claim.rmdir()


def end_processes(group: Path) -> int:
    """Kill every process of a group; returns how many there were at least.

    Gives up after some attempts. Raises OSError.
    """
    ended: set[int] = set()
    for attempt in range(ROUNDS):
        left = _processes(group)
        if not left:
            break
        if attempt:
            time.sleep(PAUSE)
        ended |= left
        try:
            # Version 2: all of them at once. Opened without O_CREAT.
            with open(os.open(group / "cgroup.kill", os.O_WRONLY), "w") as file:
                file.write("1")
        except FileNotFoundError:
            for pid in left:
                _kill_in(group, pid)
    return len(ended)


def _processes(group: Path) -> set[int]:
    """Those that are visible here: others are listed as 0."""
    return {int(pid) for pid in (group / "cgroup.procs").read_text().split()} - {0}


def _kill_in(group: Path, pid: int) -> None:
    """Kill a process if it is in the group: its id may be another's by now."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in _processes(group):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
