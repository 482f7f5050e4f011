"""The folder of the recordings: for its owner's eyes, and bounded in bytes and in files.

Whatever agents are asked and answer stands in it. So it belongs to the gateway's user alone (0700,
and is refused if others can read it), and so does each file (0600). Where it holds too much, the
oldest recordings are removed; other files are never touched.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque

from gateway.config import ConfigError

MAX_FILES = 10_000
"""Recordings in the folder: more are slow to list and to look through."""

_OURS = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d+-[\w-]+-[\w.-]*\.jsonl\Z", re.ASCII)


class RecordingFolder:
    """See the module's docstring. Its methods block, and raise OSError."""

    def __init__(self, path: str, *, size: int) -> None:
        """`size`: bytes that the recordings may take. Raises ConfigError if the folder cannot be
        used, or can be read by others."""
        self.path = path
        self._size = size
        self._kept = deque(_open_folder(path))
        """The recordings, oldest first, and what each was found to hold, if anything was."""
        self._total = sum(size for _, size in self._kept)

    def append(self, name: str, data: bytes | bytearray, *, new: bool) -> None:
        """Append to a recording. One that was removed meanwhile is not begun again."""
        path = f"{self.path}/{name}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        if new:
            flags |= os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if new:
                raise
            return
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        self._total += len(data)
        if new:
            self._kept.append((path, 0))
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        while len(self._kept) > 1 and (self._total > self._size or len(self._kept) > MAX_FILES):
            path, size = self._kept.popleft()
            try:
                size = os.stat(path).st_size
                os.unlink(path)
            except FileNotFoundError:
                pass  # somebody else has removed it
            self._total -= size


def _open_folder(folder: str) -> list[tuple[str, int]]:
    """Make the folder, or check it; the recordings in it and their sizes, oldest first."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigError(
                f"server.record: {folder} holds what agents are asked and answer, and is open to "
                "others: expected a folder of the gateway's user with mode 0700 (chmod 700)"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"server.record: {folder} cannot be written to")
        with os.scandir(folder) as entries:
            found = sorted(
                (each.path, each.stat(follow_symlinks=False).st_size)
                for each in entries
                if _OURS.match(each.name)
            )
    except OSError as error:
        raise ConfigError(f"server.record: {error.filename}: {error.strerror}") from None
    return found
