"""A fleet of real processes: nats-server, fronts and hosts, on the loopback or on machines of their
own, for tests that end them, stop them and cut them off.

    async with running_fleet(tmp_path, TOML, fronts=2, hosts=3) as fleet:
        await fleet.fronts["front1"].post("/agent/echo/invoke", input=1)
        fleet.hosts["host1"].process.kill()
        await fleet.gone("host1")
        await fleet.start_host("host1")

Every front and every host is a `RunningGateway`, and those that still run at the end must end in
order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.fleet.namespaces import Machine, network
from tests.fleet.nats import NatsServer
from tests.harness import RunningGateway, running_gateway

READY_SECONDS = 30
"""For a fleet to be ready on a loaded machine."""


class Fleet:
    """See the module's docstring. Made by `running_fleet`."""

    def __init__(
        self,
        nats: NatsServer,
        nursery: trio.Nursery,
        folder: Path,
        toml: str,
        settings: str,
        *,
        machines: Mapping[str, Machine],
    ) -> None:
        self.nats = nats
        self.fronts: dict[str, RunningGateway] = {}
        self.hosts: dict[str, RunningGateway] = {}
        self.machines = machines
        """By the name of the process that runs there; empty: all run here."""
        self._folder = folder
        self._toml = toml
        self._settings = settings
        self._nursery = nursery
        self._ends: dict[str, tuple[trio.Event, trio.Event]] = {}

    async def start_front(self, name: str, *arguments: str) -> RunningGateway:
        """Start a front with these arguments besides, and wait until it listens."""
        front = await self._nursery.start(partial(self._run, name, "front", arguments))
        self.fronts[name] = front
        return front  # type: ignore[no-any-return]

    async def start_host(self, name: str, *arguments: str) -> RunningGateway:
        """Start a host with these arguments besides, and wait until it serves its probes."""
        host = await self._nursery.start(partial(self._run, name, "host", arguments))
        self.hosts[name] = host
        return host  # type: ignore[no-any-return]

    async def _run(
        self,
        name: str,
        role: str,
        arguments: tuple[str, ...],
        *,
        task_status: trio.TaskStatus[RunningGateway],
    ) -> None:
        machine = self.machines.get(name)
        where = ("--host", machine.address) if machine else ()
        wish, gone = self._ends[name] = trio.Event(), trio.Event()
        folder = self._folder / f"{name}-{len(self._ends)}-{trio.current_time():.3f}"
        folder.mkdir()
        text = f'{self._toml}\n[fleet]\nname = "{name}"\n{self._settings}\n'
        async with running_gateway(
            None,
            *("--role", role, "--nats", self.nats.url, *where, *arguments),
            toml=text,
            folder=folder,
            expect_exit=None,
            prefix=machine.prefix if machine else (),
        ) as gateway:
            task_status.started(gateway)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_ended, gateway, nursery.cancel_scope)
                await wish.wait()
                nursery.cancel_scope.cancel()
        gone.set()

    async def _until_ended(self, gateway: RunningGateway, scope: trio.CancelScope) -> None:
        await gateway.process.wait()
        scope.cancel()

    async def end(self, name: str) -> None:
        """End a process in order (SIGTERM), and wait for it."""
        self._ends[name][0].set()
        await self.gone(name)

    async def gone(self, name: str) -> None:
        """Wait until a process that something else has ended is gone, with what it started."""
        await self._ends[name][1].wait()
        self.fronts.pop(name, None)
        self.hosts.pop(name, None)

    async def until_served(self, agent: str, *, by: int, front: str = "front1") -> None:
        """Wait until a front knows of so many hosts that have an agent ready to serve."""
        with trio.fail_after(READY_SECONDS):
            while len(await self.ready_hosts(agent, front=front)) != by:  # noqa: ASYNC110 - see
                await trio.sleep(0.05)  # what changes belongs to another process

    async def ready_hosts(self, agent: str, *, front: str = "front1") -> dict[str, Any]:
        """The hosts that a front would give an agent's requests to, by their names."""
        response = await self.fronts[front].client.get(f"/agent/{agent}")
        if response.status_code != 200:
            return {}
        return {
            host["name"]: host
            for host in response.json().get("hosts", [])
            if host["state"] == "ready"
        }


@asynccontextmanager
async def running_fleet(
    folder: Path,
    toml: str,
    *,
    settings: str = "",
    fronts: int = 1,
    hosts: int = 1,
    machines: bool = False,
    jetstream: bool = False,
    configuration: str = "",
) -> AsyncIterator[Fleet]:
    """Run nats-server with this configuration, and processes that all have this TOML, and these
    settings in `[fleet]`.

    They are `front1`, `front2`, ..., `host1`, ...; with `machines` each is in a network namespace
    with an address of its own, as `nats` is.
    """
    front_names = [f"front{number + 1}" for number in range(fronts)]
    host_names = [f"host{number + 1}" for number in range(hosts)]
    async with AsyncExitStack() as stack:
        at: dict[str, Machine] = {}
        if machines:
            at = stack.enter_context(network("nats", *front_names, *host_names))
        nats = NatsServer(
            configuration,
            jetstream=jetstream,
            address=at["nats"].address if at else "127.0.0.1",
            prefix=tuple(at["nats"].prefix) if at else (),
        )
        stack.enter_context(nats)
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nats, nursery, folder, toml, settings, machines=at)
            async with trio.open_nursery() as starting:
                for name in host_names:
                    starting.start_soon(fleet.start_host, name)
                for name in front_names:
                    starting.start_soon(fleet.start_front, name)
            yield fleet
            for name in (*fleet.fronts, *fleet.hosts):
                await fleet.end(name)
