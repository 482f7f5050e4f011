"""What runs in a sandbox with a network, before the agent: it opens the proxy's port.

`python -c SOURCE DESCRIPTOR PORT COMMAND...`: listens on the worker's own loopback device, hands
the listening socket out through the inherited descriptor, and becomes the command. Standard library
alone.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

PORT = 3128
"""On the worker's own loopback device: the customary port of an HTTP proxy."""

BACKLOG = 128
"""Connections that wait to be accepted, while the proxy has its fill of tunnels."""


def command(descriptor: int) -> tuple[str, ...]:
    """What stands before an agent's command to run this; `descriptor` is inherited."""
    source = Path(__file__).read_text()
    return (sys.executable, "-I", "-S", "-c", source, str(descriptor), str(PORT))


def main() -> None:
    descriptor, port, *agent = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as proxy, socket.socket() as listener:
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(BACKLOG)
        socket.send_fds(proxy, [b"L"], [listener.fileno()])
    try:
        os.execv(agent[0], agent)  # noqa: S606 - a shell would be one more thing that can go wrong
    except OSError as error:
        sys.exit(f"listener: failed to execute {agent[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
