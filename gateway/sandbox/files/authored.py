"""Reading a file that an agent's author wrote, or put a link in the place of.

Owns the safe read, and nothing of what is read. The gateway reads a few files of a project for all
that their names promise: the author may have left a FIFO there, at whose opening a reader waits for
ever, a link to a device, whose opening alone can have effects, gigabytes, or nonsense. None of this
may keep the other agents from starting. So a file is opened only once it is known to be a regular
one, is read up to a bound, and whatever is wrong with it is an answer of the functions here.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

_MAX_MANIFEST = 1024 * 1024
"""Bytes of a `package.json`."""


def read_bytes(path: str, most: int) -> bytes | None:
    """The first `most` bytes of a regular file, or None where there is none that can be read."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # does not open what is there
    except (OSError, ValueError):  # ValueError: no file has such a name
        return None
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return None
        # The same file, whatever has become of its name meanwhile.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with open(os.open(f"/proc/self/fd/{place}", flags), "rb") as file:
            return file.read(most)
    except OSError:
        return None
    finally:
        os.close(place)


def read_text(path: str, most: int) -> str | None:
    """The same as text: what is not UTF-8, or cannot be in a path (NUL), is replaced by U+FFFD."""
    found = read_bytes(path, most)
    return None if found is None else found.decode(errors="replace").replace("\0", "\ufffd")


def read_json(path: str, most: int) -> Any:
    """The value in a file of JSON (RFC 8259) of up to `most` bytes; None if it holds no such."""
    found = read_bytes(path, most)
    try:
        return None if found is None else json.loads(found)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, cut short; too deep
        return None


def read_manifest(path: str) -> dict[str, Any]:
    """What a `package.json` says; nothing if it is none, or a larger one than any is."""
    found = read_json(path, _MAX_MANIFEST)
    return found if isinstance(found, dict) else {}
