"""Subordinate ids: host user ids for the workers of a gateway that an ordinary user runs.

/etc/subuid and /etc/subgid (subuid(5)) give a user ids of its own besides its own id, and the
set-user-id programs newuidmap and newgidmap map them into a user namespace of that user's. A worker
with such an id shares no limit that the kernel keeps by user id with the gateway or with another
worker.

This module finds the user's ids, tries whether they can be mapped here, and hands out each to one
worker at a time. It does not know what a worker is.
"""

from __future__ import annotations

import errno
import os
import pwd
import random
import shutil
import socket
import subprocess
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = "uidmap"
TRY_TIMEOUT = 10.0
"""Seconds for one map to be made, which takes some milliseconds."""

_MAPPERS = ("newuidmap", "newgidmap", "nsenter", "unshare")
_NAME = "agent-gateway-subordinate-"
_WAIT = "echo there; read go"
_PIPE = "exec 7<<E\nE\n[ -p /proc/self/fd/7 ]"


class NoSubordinateIds(Exception):  # noqa: N818 - an ordinary state of a machine
    """Workers cannot have ids of their own here; the message says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Mappers:
    """The programs that map ids into a user namespace, by absolute path."""

    newuidmap: str
    newgidmap: str
    nsenter: str
    unshare: str


class Ids(NamedTuple):
    """A user and a group of the host."""

    uid: int
    gid: int


class Claim:
    """Ids that nobody else is given as long as the object lives, or until `release`.

    The claim is an abstract unix socket named after the user id: the kernel grants each name once,
    to whichever gateway, and releases it however the process ends. (`uids.UidBlock` says who else
    could take it, and why that is borne.)
    """

    def __init__(self, ids: Ids) -> None:
        """Raises OSError when the ids are taken."""
        self.ids = ids
        with socket.socket(socket.AF_UNIX) as claim:
            claim.bind(f"\0{_NAME}{ids.uid}")
            self.release = weakref.finalize(self, os.close, claim.detach())

    def __repr__(self) -> str:
        return f"<Claim of {self.ids.uid}{'' if self.release.alive else ', released'}>"


class SubordinateIds:
    """The subordinate ids of one user, each for one worker at a time."""

    def __init__(self, uids: Sequence[range], gids: Sequence[range], *, mappers: Mappers) -> None:
        self.mappers = mappers
        self._uids, self._gids = uids, gids
        self._count = min(sum(map(len, uids)), sum(map(len, gids)))
        # Spreads gateways apart. An id is given again only after all others.
        self._next = random.randrange(self._count) if self._count else 0  # noqa: S311 - no secret

    def __repr__(self) -> str:
        return f"<SubordinateIds {self._count} from {self._uids[0].start}>"

    def take(self) -> Claim:
        """Ids that no worker of any gateway of this machine has. Raises OSError."""
        for _ in range(self._count):
            number = self._next
            self._next = (number + 1) % self._count
            ids = Ids(_nth(self._uids, number), _nth(self._gids, number))
            try:
                return Claim(ids)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(
            f"all {self._count} subordinate ids are in use, by workers or by whoever else bound "
            f"their names (ss -xa | grep {_NAME})"
        )


def find_subordinate_ids(*, search_path: str) -> SubordinateIds:
    """The ids of the user that this process runs as, after they were tried.

    The programs are looked for in `search_path`. Blocks for some milliseconds. Raises
    NoSubordinateIds.
    """
    paths = {name: shutil.which(name, path=search_path) for name in _MAPPERS}
    if missing := [name for name, path in paths.items() if path is None]:
        raise NoSubordinateIds(f"{missing[0]} is missing (apt install {PACKAGE})")
    mappers = Mappers(**{name: path for name, path in paths.items() if path is not None})
    names = _own_names()
    found: list[list[range]] = []
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            text = Path(file).read_text(errors="replace")
        except OSError as error:
            raise NoSubordinateIds(f"{file} cannot be read: {error.strerror}") from None
        if not (ranges := own_ranges(text, names)):
            name = names[0]
            raise NoSubordinateIds(
                f"{file} gives {name} no ids (usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {name}, with ids that nobody has)"
            )
        found.append(ranges)
    subordinate = SubordinateIds(found[0], found[1], mappers=mappers)
    _try(subordinate)
    return subordinate


def own_ranges(text: str, names: Sequence[str]) -> list[range]:
    """The ids that a text as of /etc/subuid gives to a user with these names or numbers."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and all(map(_is_number, fields[1:])):
            first, count = int(fields[1]), int(fields[2])
            if first > 0 and count > 0:
                found.append(range(first, first + count))
    return found


def map_arguments(ids: Ids, own: Ids, *, inside: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What newuidmap and newgidmap take after the process: `own` is root, `ids` are `inside`."""
    return (
        ("0", str(own.uid), "1", str(inside), str(ids.uid), "1"),
        ("0", str(own.gid), "1", str(inside), str(ids.gid), "1"),
    )


def _try(subordinate: SubordinateIds) -> None:
    """Map ids into a namespace that nobody uses. Raises NoSubordinateIds."""
    mappers = subordinate.mappers
    try:
        if subprocess.run(("sh", "-c", _PIPE), timeout=TRY_TIMEOUT, check=False).returncode:
            raise NoSubordinateIds("this system's shell makes no pipe of a here-document")
        claim = subordinate.take()
        with subprocess.Popen(
            (mappers.unshare, "--user", "sh", "-c", _WAIT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as waiting:
            try:
                assert waiting.stdout is not None
                if waiting.stdout.readline() != b"there\n":
                    raise NoSubordinateIds("this system allows no user namespaces")
                own = Ids(os.getuid(), os.getgid())
                arguments = map_arguments(claim.ids, own, inside=1)
                tools = (mappers.newuidmap, mappers.newgidmap)
                for tool, words in zip(tools, arguments, strict=True):
                    _run(tool, str(waiting.pid), *words)
            finally:
                waiting.kill()
                claim.release()
    except (OSError, subprocess.SubprocessError) as error:
        raise NoSubordinateIds(f"subordinate ids cannot be tried: {error}") from None


def _run(tool: str, *words: str) -> None:
    done = subprocess.run(
        (tool, *words), capture_output=True, text=True, timeout=TRY_TIMEOUT, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[-1] if said else f"exit status {done.returncode}"
        raise NoSubordinateIds(f"{tool} does not work here: {why}")


def _own_names() -> tuple[str, ...]:
    """How /etc/subuid may name the user: by name or by number."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)


def _nth(ranges: Sequence[range], number: int) -> int:
    for each in ranges:
        if number < len(each):
            return each[number]
        number -= len(each)
    raise IndexError(number)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 10
