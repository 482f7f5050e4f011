"""Stdin and stdout of a worker, moved out of the agent's reach before any of its code can use them.

Owns the two descriptors of the wire. Knows neither what is said over them nor who says it.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from typing import NamedTuple

_taken = False


class Stdio(NamedTuple):
    """The two descriptors of the wire, under numbers that no program expects them at."""

    stdin: int
    stdout: int

    def close(self) -> None:
        """Close both."""
        os.close(self.stdin)
        os.close(self.stdout)


def take_stdio() -> Stdio:
    """Move the wire away from descriptors 0 and 1.

    Descriptor 0 becomes /dev/null and descriptor 1 a copy of stderr, in this process and in its
    children, so that neither `print`, nor C code, nor a child process can write to the wire. Raises
    RuntimeError on a second call, and OSError when stdin or stdout is closed.
    """
    global _taken  # noqa: PLW0603  (descriptors belong to the process, and so does this)
    if _taken:
        raise RuntimeError(
            "this process serves an agent already; put agent.run() under "
            '`if __name__ == "__main__":`'
        )
    # The copies lie above 2, and programs that the agent starts do not inherit them.
    wire = Stdio(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3))
    _taken = True
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        os.dup2(null, 1)
    os.close(null)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Text printed before this call is still in the buffer, and now goes to stderr.
        sys.stdout.reconfigure(line_buffering=True)
    # A child that was forked without exec and held stdout would hide this worker's end from the
    # gateway.
    os.register_at_fork(after_in_child=wire.close)
    return wire
