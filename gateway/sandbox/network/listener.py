"""The program that opens ports in a sandbox, before the agent starts, for the processes that serve
its network.

`python -c SOURCE NOFILE DESCRIPTOR:PORT,... COMMAND...` listens on each port of the worker's own
loopback device, sends the listening socket out through the inherited descriptor, and executes the
command with NOFILE descriptors at most. That limit is set no earlier, because the kernel compares
it with all descriptors that processes of the same user have in flight, and refuses to send one more
(ETOOMANYREFS). This program imports only the standard library.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

PROXY_PORT = 3128
"""The customary port of an HTTP proxy, on the worker's own loopback device."""

DOOR_PORT = 3129
"""Where services are reached, on the same device."""

BACKLOG = 128
"""Connections that may wait to be accepted while as many are served as may be at a time."""


def command(ports: list[tuple[int, int]], nofile: int) -> tuple[str, ...]:
    """The words before an agent's command that run this program. `ports`: inherited descriptors,
    each with the port that is sent out through it."""
    source = Path(__file__).read_text()
    listed = ",".join(f"{descriptor}:{port}" for descriptor, port in ports)
    return (sys.executable, "-I", "-S", "-c", source, str(nofile), listed)


def main() -> None:
    nofile, ports, *agent = sys.argv[1:]
    for each in ports.split(","):
        descriptor, _, port = each.partition(":")
        with socket.socket(fileno=int(descriptor)) as outside, socket.socket() as listener:
            listener.bind(("127.0.0.1", int(port)))
            listener.listen(BACKLOG)
            try:
                socket.send_fds(outside, [b"L"], [listener.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                sys.exit(
                    "listener: the process that serves this worker's network has ended at its "
                    "start; see the agent's lines in the gateway's log"
                )
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(nofile), int(nofile)))
    try:
        os.execv(agent[0], agent)  # noqa: S606 - the command is a list of words, no shell is wanted
    except OSError as error:
        sys.exit(f"listener: failed to execute {agent[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
