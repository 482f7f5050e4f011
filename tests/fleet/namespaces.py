"""A network of namespaces with addresses of their own, as machines on one switch have.

    with network("nats", "front1", "host1") as machines:
        host = machines["host1"]
        subprocess.Popen([*host.prefix, "gateway", "--host", host.address])
        host.cut()  # no packet in or out, and nobody is told

The test itself is on the same switch, at the first address. Needs root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="network namespaces that are joined by a bridge need root"
)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Machine:
    """One namespace, and the end of its cable at the switch."""

    def __init__(self, namespace: str, cable: str, bridge: str, address: str, switch: str) -> None:
        self.namespace = namespace
        self.address = address
        self.switch = switch
        """The address of the test itself."""
        self._cable = cable
        self._bridge = bridge

    @property
    def prefix(self) -> list[str]:
        """What a command is to begin with, to run on it; it becomes that command (`exec`)."""
        # Not `ip netns exec`, which mounts a /sys of its own, without control groups.
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--"]

    def cut(self) -> None:
        """Pull the cable out of the switch: every packet is lost, and nobody is told."""
        _ip("link", "set", self._cable, "nomaster")

    def join(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable, "master", self._bridge)

    def remove(self) -> None:
        _remove_link(self._cable)  # else the kernel does, some time after the namespace has ended
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)


def _remove_link(name: str) -> None:
    if Path(f"/sys/class/net/{name}").exists():
        subprocess.run(["ip", "link", "delete", name], check=False)


@contextmanager
def network(*names: str) -> Iterator[dict[str, Machine]]:
    """One machine for each name, and a switch between them and the test."""
    mark = f"{os.getpid() % 10_000:x}{os.urandom(2).hex()}"
    third = int(os.urandom(1).hex(), 16)
    bridge = f"gwb{mark}"
    made: list[Machine] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        switch = f"10.219.{third}.1"
        _ip("address", "add", f"{switch}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            namespace, cable = f"gw-{mark}-{name}", f"gw{number}{mark}"
            address = f"10.219.{third}.{number + 2}"
            _ip("netns", "add", namespace)
            made.append(Machine(namespace, cable, bridge, address, switch))
            _ip(
                *("link", "add", cable, "type", "veth"),
                *("peer", "name", "eth0", "netns", namespace),
            )
            _ip("link", "set", cable, "master", bridge, "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        yield dict(zip(names, made, strict=True))
    finally:
        for machine in made:
            machine.remove()
        _remove_link(bridge)
