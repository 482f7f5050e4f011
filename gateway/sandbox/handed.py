"""What one start hands to bubblewrap by descriptors: files in memory, and copies of what is open.

Each start has its own: bubblewrap reads a file to its end, which moves the offset that all copies
of a descriptor share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from gateway.sandbox.bwrap import HOSTNAME

_COPIED = ("/etc/ld.so.cache", "/etc/localtime")
_FIRST_FREE = 10
"""The lowest descriptor to inherit: a shell can only name those below, with one digit."""


def etc_files(uid: int, home: str) -> dict[str, bytes]:
    """The files that programs look for in /etc: names of users and of the host, libraries, the time
    zone. They are copied, because a file costs a start less time than a mount.
    """
    files = {
        "/etc/passwd": f"root:x:0:0::/:/bin/false\n{HOSTNAME}:x:{uid}:{uid}::{home}:/bin/sh\n",
        "/etc/group": f"root:x:0:\n{HOSTNAME}:x:{uid}:\n",
        "/etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    }
    found = {path: text.encode() for path, text in files.items()}
    for path in _COPIED:
        with contextlib.suppress(FileNotFoundError):
            found[path] = Path(path).read_bytes()
    return found


def memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    with open(os.memfd_create("sandbox"), "wb") as file:
        descriptor = inheritable(stack, file.fileno())
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def inheritable(stack: contextlib.ExitStack, descriptor: int) -> int:
    """A copy whose number does not clash with those that the shell redirects."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    stack.callback(os.close, copy)
    return copy
