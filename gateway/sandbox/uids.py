"""User ids that belong to nobody: one for each worker of a gateway that runs as root.

Owns the choice of a block that no other gateway of this machine uses, and of an id in it that no
process has. Does not know who takes the id on.
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
"""Ids of one agent. One is taken again only after all others, long after its worker's end."""


class UidBlock:
    """A block of ids that is this process's alone for as long as the object lives.

    The claim is an abstract unix socket named after the block: the kernel grants each name once,
    and takes it back however the process ends.
    """

    def __init__(self) -> None:
        blocks = (LAST_UID + 1 - FIRST_UID) // BLOCK_SIZE
        start = random.randrange(blocks)  # noqa: S311 - spreads gateways apart, secret from nobody
        for offset in range(blocks):
            block = (start + offset) % blocks
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0agent-gateway-uids-{block}")
            except OSError:
                claim.close()
                continue
            weakref.finalize(self, os.close, claim.detach())
            self._first = FIRST_UID + block * BLOCK_SIZE
            self._next = itertools.count()
            return
        raise OSError(f"all {blocks} blocks of user ids are taken by other gateways")

    def __repr__(self) -> str:
        return f"<UidBlock {self._first}-{self._first + BLOCK_SIZE - 1}>"

    def take(self) -> int:
        """An id of the block that no process has. Raises OSError when there is none."""
        number = next(self._next)
        if number < BLOCK_SIZE:
            return self._first + number
        in_use = uids_in_use()
        for _ in range(BLOCK_SIZE):
            uid = self._first + number % BLOCK_SIZE
            if uid not in in_use:
                return uid
            number = next(self._next)
        raise OSError(f"every user id of {self!r} is in use")


def uids_in_use() -> set[int]:
    """The real, effective, saved and file system user ids of every process."""
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                status = Path(entry.path, "status").read_text()
            except OSError:
                continue  # it ended while it was looked at
            line = next(each for each in status.splitlines() if each.startswith("Uid:"))
            found.update(map(int, line.split()[1:]))
    return found
