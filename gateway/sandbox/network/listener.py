"""The program that opens the proxy's port in a sandbox with a network, before the agent starts.

`python -c SOURCE DESCRIPTOR PORT NOFILE COMMAND...` listens on the worker's own loopback device,
sends the listening socket out through the inherited descriptor, and executes the command with
NOFILE descriptors at most. That limit is set no earlier, because the kernel compares it with all
descriptors that processes of the same user have in flight, and refuses to send one more
(ETOOMANYREFS). This program imports only the standard library.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

PORT = 3128
"""The customary port of an HTTP proxy, on the worker's own loopback device."""

BACKLOG = 128
"""Connections that may wait to be accepted while the proxy serves its maximum of tunnels."""


def command(descriptor: int, nofile: int) -> tuple[str, ...]:
    """The words before an agent's command that run this program; `descriptor` is inherited."""
    source = Path(__file__).read_text()
    return (sys.executable, "-I", "-S", "-c", source, *map(str, (descriptor, PORT, nofile)))


def main() -> None:
    descriptor, port, nofile, *agent = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as proxy, socket.socket() as listener:
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(BACKLOG)
        socket.send_fds(proxy, [b"L"], [listener.fileno()])
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(nofile), int(nofile)))
    try:
        os.execv(agent[0], agent)  # noqa: S606 - the command is a list of words, no shell is wanted
    except OSError as error:
        sys.exit(f"listener: failed to execute {agent[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
