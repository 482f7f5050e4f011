"""User ids that belong to nobody: one for each worker of a gateway that runs as root.

This module chooses a block that no other gateway of this machine uses, and an id of it that no
process has. It does not know who takes on the id.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import weakref
from pathlib import Path

# Of the ids that systemd's map of the 32-bit range leaves unused (systemd.io/UIDS-GIDS), above the
# containers' and below those that some systems read as negative.
FIRST_UID = 1_879_048_192
LAST_UID = 2_147_483_647
BLOCK_SIZE = 65_536
"""Ids of one agent. An id is reused only after all others, long after its worker's end."""
_LEAST_ID = 16_384
"""The first id used in a container with few ids: above those of its users and services."""
NOBODY = 65_534
"""The id that stands for all unmapped ids. (65,535 means "none" to some system calls.)"""
_NAME = "agent-gateway-uids-"
_FEW = 1_024
"""Ids of one agent in a container with few ids, which has some 65,000 in all."""


def free_range(uid_map: str, gid_map: str) -> range | None:
    """The ids for workers, from the texts of /proc/self/uid_map and gid_map.

    None where no ids are available: root of such a user namespace is an ordinary user outside.
    """
    mapped = [_mapped(text) for text in (uid_map, gid_map)]
    if all(any(FIRST_UID in each and LAST_UID in each for each in ids) for ids in mapped):
        return range(FIRST_UID, LAST_UID + 1)
    shared = [
        range(max(uids.start, gids.start, _LEAST_ID), min(uids.stop, gids.stop, NOBODY))
        for uids in mapped[0]
        for gids in mapped[1]
    ]
    longest = max(shared, key=len, default=range(0))
    return longest if len(longest) >= _FEW else None


def split_ids(ids: range) -> tuple[range, range]:
    """The ids for folders that outlive workers (`state`), and those for one worker each.

    Where there are few, all are for workers.
    """
    half = len(ids) // 2
    return (ids[:half], ids[half:]) if half >= _FEW else (ids[:0], ids)


def _mapped(text: str) -> list[range]:
    lines = ([int(number) for number in line.split()] for line in text.splitlines())
    return [range(inside, inside + count) for inside, _, count in lines]


class UidBlock:
    """A block of ids that only this process uses for as long as the object lives.

    The claim is an abstract unix socket named after the block: the kernel grants each name once,
    and releases it however the process ends. Agents have no such sockets; a user of the machine
    does, and can take all names. Starts then fail, but no id is ever given twice. A name that such
    a user cannot take would need a file that all gateways of the machine find, whatever their
    environment, and in a container, too: where they did not, ids would be given twice.
    """

    def __init__(self, ids: range) -> None:
        """Claim a block of `ids`. Raises OSError when all are held."""
        self._size = BLOCK_SIZE if len(ids) > BLOCK_SIZE else _FEW
        blocks = len(ids) // self._size
        start = random.randrange(blocks)  # noqa: S311 - spreads gateways apart, secret from nobody
        for offset in range(blocks):
            first = ids.start + (start + offset) % blocks * self._size
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0{_NAME}{first}")
            except OSError:
                claim.close()
                continue
            self.release = weakref.finalize(self, os.close, claim.detach())
            """Lets others have the block; may be called again."""
            self._first = first
            self._next = itertools.count()
            return
        raise OSError(
            f"all {blocks} blocks of user ids are taken, by other gateways or by whoever else has "
            f"bound their names (ss -xa | grep {_NAME})"
        )

    def __repr__(self) -> str:
        return f"<UidBlock {self._first}-{self._first + self._size - 1}>"

    def take(self) -> int:
        """An id of the block that no process has. Raises OSError when all are in use."""
        number = next(self._next)
        if number < self._size:
            return self._first + number
        in_use = uids_in_use()
        for _ in range(self._size):
            uid = self._first + number % self._size
            if uid not in in_use:
                return uid
            number = next(self._next)
        raise OSError(f"every user id of {self!r} is in use")


def is_a_workers(path: str) -> bool:
    """Whether a file or link itself belongs to a user whom only workers of root's gateways are."""
    try:
        return FIRST_UID <= os.lstat(path).st_uid <= LAST_UID
    except OSError:
        return False


def uids_in_use() -> set[int]:
    """The real, effective, saved and file system user ids of every process."""
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                status = Path(entry.path, "status").read_text()
            except OSError:
                continue  # the process ended meanwhile
            line = next(each for each in status.splitlines() if each.startswith("Uid:"))
            found.update(map(int, line.split()[1:]))
    return found
