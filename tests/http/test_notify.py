"""A gateway that a service manager has started: what that is told, through a real socket."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.harness import RunningGateway, one_process, running_gateway

NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Manager:
    """The socket, and what came on it so far."""

    def __init__(self) -> None:
        self.name = f"gateway-test-{os.urandom(8).hex()}"
        self.socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told: list[str] = []

    async def is_told(self, line: str) -> None:
        """Wait for a datagram that begins with this."""
        with trio.fail_after(60):
            while True:
                self.told.append((await self.socket.recv(4096)).decode())
                if self.told[-1].startswith(line):
                    return


@asynccontextmanager
async def managed(*arguments: str) -> AsyncIterator[tuple[Manager, RunningGateway]]:
    """A gateway that has one agent, with a watchdog of 0.2 s."""
    manager = Manager()
    await manager.socket.bind(f"\0{manager.name}")
    with manager.socket:
        command = {"echo": f"{sys.executable} -m worker worker.examples.echo:agent"}
        env = {"NOTIFY_SOCKET": f"@{manager.name}", "WATCHDOG_USEC": "200000"}
        async with running_gateway(command, *arguments, env=env) as gateway:
            yield manager, gateway


@one_process("front and host tell their manager each")
async def test_it_tells_of_its_readiness_and_feeds_the_watchdog_until_it_stops() -> None:
    async with managed() as (manager, gateway):
        await manager.is_told("READY=1")
        # Its worker had spoken by then.
        assert (await gateway.state("echo"))["state"] == "ready"
        await manager.is_told("WATCHDOG=1")
        await manager.is_told("WATCHDOG=1")
        gateway.process.send_signal(signal.SIGTERM)
        await manager.is_told("STOPPING=1")
    kinds = [each for each in manager.told if not each.startswith("WATCHDOG")]
    assert kinds == [
        "STATUS=starting the first workers",
        f"READY=1\nSTATUS=serving at {gateway.url}",
        "STOPPING=1\nSTATUS=draining",
    ]


@one_process("front and host are told, and are processes beside the first")
async def test_no_process_of_an_agent_is_told_where_the_manager_listens() -> None:
    async with managed("--sandbox", "off") as (manager, gateway):
        await manager.is_told("READY=1")
        processes = gateway.processes()
        assert processes
        for pid in processes:
            environ = await (trio.Path("/proc") / str(pid) / "environ").read_bytes()
            assert not any(name.encode() in environ for name in NAMES)


@one_process("front and host tell their manager each")
async def test_a_reload_is_announced_and_its_end_too() -> None:
    async with managed() as (manager, gateway):
        await manager.is_told("READY=1")
        gateway.process.send_signal(signal.SIGHUP)
        await manager.is_told("RELOADING=1\nMONOTONIC_USEC=")
        await manager.is_told("READY=1")
        assert (await gateway.post("/agent/echo/invoke", input=1)).json() == {"output": 1}
