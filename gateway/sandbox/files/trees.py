"""What agents have made in their folders, measured and removed by a gateway that trusts none of it.

An agent may change its folder while this module works in it: swap a folder for a link, refill what
was emptied, nest deeper than any path is long. Each name is therefore looked up in a folder that is
held open, no link is followed, and the work is bounded in depth and in things.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_MEASURED = 1_000_000
"""Entries of one folder that are measured: more than that is too much by itself."""

_MAX_DEPTH = 128
"""Folders within each other that are measured, each of which takes a descriptor meanwhile: more
than that is too much by itself."""

_MAX_REMOVED = 1_000_000
"""Entries that are removed in one go: the rest is for the next."""

_MAX_VISIT = 10_000
"""Entries that are removed from one folder before the others have their turn."""

_PRIVATE = 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OWN_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""The gateway's or the machine's, which tells nothing of a folder."""


def bytes_in(folder: str) -> float:
    """The bytes that a folder's files take on the disk. Blocks. Follows no link.

    Infinity where that cannot be told: what is too deep, too much or closed to the gateway may hold
    anything. Raises OSError where the gateway itself lacks descriptors or memory.
    """
    try:
        return _bytes_in(folder, None, _MAX_DEPTH, itertools.count(1))
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise
        return math.inf


def _bytes_in(name: str, above: int | None, depth: int, numbers: Iterator[int]) -> int:
    if not depth:
        raise OSError(errno.ENAMETOOLONG, "deeper than what is measured")
    try:
        folder = os.open(name, _FOLDER, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):  # gone, or something else, meanwhile
        return 0
    try:
        found, folders = 0, []
        with os.scandir(folder) as entries:
            for entry in entries:
                if next(numbers) > _MAX_MEASURED:
                    raise OSError(errno.E2BIG, "more than what is measured")
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found += status.st_blocks * 512
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.name)
        return found + sum(_bytes_in(each, folder, depth - 1, numbers) for each in folders)
    finally:
        os.close(folder)


def empty(place: str) -> None:
    """Remove what lies in a folder of the gateway's own, however deep and however named. Blocks.

    Folders are moved to the top before they are emptied. So neither the depth of what an agent has
    made counts, nor the length of its paths. What a process that lives on in one of them makes
    meanwhile stays for the next time. Raises the first OSError, after all the rest was removed.
    """
    numbers = itertools.count()
    failed: dict[str, OSError] = {}
    left = _MAX_REMOVED
    top = os.open(place, _FOLDER)
    try:
        while left > 0:
            folders, files = _remove_files(top, most=None)
            left -= files
            todo = [name for name in folders if name not in failed]
            if not todo:
                break
            for name in todo:
                if left <= 0:
                    break
                try:
                    left -= 1 + _take_apart(name, top, numbers)
                except OSError as error:
                    failed[name] = error
    finally:
        os.close(top)
    if failed:
        raise next(iter(failed.values()))


def _take_apart(name: str, top: int, numbers: Iterator[int]) -> int:
    """Unlink a folder's files, move its folders to the top, and remove it unless there is much more
    in it; how much that was."""
    folder = _open_writable(name, top)
    try:
        folders, files = _remove_files(folder, most=_MAX_VISIT)
        for inner in folders:
            os.close(_open_writable(inner, folder))  # moving it changes it
            moved = f"{os.getpid()}.{time.monotonic_ns()}.{next(numbers)}"
            os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    done = len(folders) + files
    if done < _MAX_VISIT:
        os.rmdir(name, dir_fd=top)
    return done


def _open_writable(name: str, above: int) -> int:
    """Open a folder after its mode was set so that its owner may change it. Follows no link: the
    mode is that of what was opened, whatever has the name by then."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        os.chmod(f"/proc/self/fd/{path}", _PRIVATE)
        return os.open(".", _FOLDER, dir_fd=path)
    finally:
        os.close(path)


def _remove_files(folder: int, *, most: int | None) -> tuple[list[str], int]:
    """Unlink all but the folders in a folder: the names of those, and how many were unlinked.

    `most` bounds what is looked at: a folder that is filled meanwhile has no end.
    """
    folders, files = [], 0
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, most):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                files += 1
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=folder)
    return folders, files
