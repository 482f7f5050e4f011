"""Files of the configuration, read within bounds.

A running gateway reads them again, at a reload and whenever keys have changed, and whoever may
write there need not be its operator. So a pipe into which nobody writes, a device without an end or
a file as large as the disk is an error like any other: it neither keeps the gateway from its next
reload and from its end, nor takes its memory.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

MAX_CONFIGURATION_BYTES = 16 * 1024 * 1024
"""Of a TOML file, or one of certificates: some hundred times what large ones have."""

PIPE_SECONDS = 5.0
"""For all that comes through a pipe, such as a shell's `<(…)`."""

_CHUNK = 64 * 1024


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file, or what comes through a pipe. Blocks, for `PIPE_SECONDS` at most.

    Raises OSError, also for what is neither, and for more than `limit` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:  # a null character
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise OSError(errno.EINVAL, "is neither a file nor a pipe")
        return _read(descriptor, limit, pipe=stat.S_ISFIFO(mode))
    finally:
        os.close(descriptor)


def _read(descriptor: int, limit: int, *, pipe: bool) -> bytes:
    content = bytearray()
    until = time.monotonic() + PIPE_SECONDS
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if pipe and not poll.poll(max(0, until - time.monotonic()) * 1000):
            raise OSError(errno.ETIMEDOUT, f"nobody has ended the pipe in {PIPE_SECONDS:g} s")
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            continue
        if not chunk:
            return bytes(content)
        content += chunk
        if len(content) > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit} bytes")
