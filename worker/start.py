"""The first milliseconds of a worker: stdin and stdout moved out of the agent's reach, and `ready`.

Imports no event loop, which is half of what starting costs: `ready` says that the agent is loaded
and which handlers it has, and the loop is imported while the gateway routes the first request.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from protocol.worker_side import WorkerConnection

if TYPE_CHECKING:
    from .agent import Agent, Backend

BACKENDS = ("asyncio", "trio")
_taken = False


class Stdio(NamedTuple):
    """The two descriptors of the wire, under numbers that nobody expects."""

    stdin: int
    stdout: int

    def close(self) -> None:
        """Let go of both."""
        os.close(self.stdin)
        os.close(self.stdout)


def take_stdio() -> Stdio:
    """Move the wire away from descriptors 0 and 1.

    Descriptor 0 becomes /dev/null and descriptor 1 becomes stderr, for this process and for its
    children, so that neither a `print`, nor C code, nor a child can touch the wire. Raises
    RuntimeError when it was done before, and OSError when stdin or stdout is closed.
    """
    global _taken  # noqa: PLW0603  (descriptors belong to the process, and so does this)
    if _taken:
        raise RuntimeError(
            "this process serves an agent already; put agent.run() under "
            '`if __name__ == "__main__":`'
        )
    # Duplicates are made above 2 and are not inherited by programs that the agent starts.
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
        # What was printed before is still in the buffer, and goes where it belongs.
        sys.stdout.reconfigure(line_buffering=True)
    # A forked child lives on without exec: were it to hold stdout, the gateway would not see this
    # worker's end.
    os.register_at_fork(after_in_child=wire.close)
    return wire


def serve(agent: Agent, wire: Stdio, *, backend: Backend = "asyncio") -> None:
    """Declare the agent, and serve it until stdin ends.

    Raises ValueError for an agent that cannot be served, and SystemExit with another status than 0
    when something else than the end of stdin ended it.
    """
    _check(agent, backend)
    connection = WorkerConnection()
    ready = connection.send_ready(
        handlers=list(agent.handlers),
        concurrency=agent.concurrency,
        description=agent.description,
        metadata=agent.encoded_metadata(),
    )
    os.write(wire.stdout, ready)  # the pipe is empty and blocking: all of it is written

    from . import server  # noqa: PLC0415  (see the module's docstring)

    status = server.run(agent, wire, connection, backend=backend)
    if status:
        raise SystemExit(status)


def _check(agent: Agent, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected 'asyncio' or 'trio'")
    if backend == "trio":
        from importlib.util import find_spec  # noqa: PLC0415  (not needed by default)

        if find_spec("trio") is None:
            raise ValueError("backend is 'trio', and trio is not installed")
    if not agent.handlers:
        raise ValueError(
            f"agent {agent.name!r} has no handlers; "
            "decorate a function with @agent.invoke or @agent.chat"
        )
