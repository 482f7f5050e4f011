"""A fleet of processes: a real nats-server; fronts and hosts that are started, ended and killed, on
the loopback or on machines of their own.

async with a_fleet(tmp_path, {"echo": [...]}, hosts=("one", "two")) as fleet:
    await fleet.front.post("/agent/echo/invoke", input=1)
    await fleet.hosts["one"].end()
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio

from tests.fleet.namespaces import Machine, network
from tests.fleet.nats import NatsServer
from tests.harness import RunningGateway, running_gateway
from tests.http.raw import becomes

UNABLE = {"away", "backoff", "draining", "open"}
"""States in which a host is given no request of an agent."""

MACHINES = os.environ.get("GATEWAY_TESTS_MACHINES") == "1"
"""Whether each process is to have a network namespace of its own, where a test does not say."""


class Process:
    """A front or a host. It can be started again when it has ended."""

    gateway: RunningGateway

    def __init__(
        self,
        nursery: trio.Nursery,
        role: str,
        name: str,
        *,
        nats: NatsServer,
        folder: Path,
        toml: str,
        machine: Machine | None = None,
        port: int = 0,
    ) -> None:
        self.role = role
        self.name = name
        self._nursery = nursery
        self._nats = nats
        self._folder = folder
        self._toml = toml
        self.machine = machine
        self._where = ["--port", str(port)]
        if machine is not None:
            self._where += ["--host", machine.address]
        self._stop = self._ended = trio.Event()
        folder.mkdir()

    @property
    def pid(self) -> int:
        return self.gateway.pid

    async def start(self) -> None:
        """Returns when it serves HTTP, with or without NATS."""
        self._stop, self._ended = trio.Event(), trio.Event()
        self.gateway = await self._nursery.start(self._serve)

    async def end(self) -> None:
        """SIGTERM, and the end with exit code 0."""
        self._stop.set()
        await self._ended.wait()

    async def kill(self) -> None:
        self.gateway.process.kill()
        await self.end()

    def pause(self) -> None:
        self.gateway.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.gateway.process.send_signal(signal.SIGCONT)

    async def _serve(self, *, task_status: trio.TaskStatus[RunningGateway]) -> None:
        toml = f"""
            [fleet]
            role = "{self.role}"
            name = "{self.name}"
            servers = ["{self._nats.url}"]
            {self._toml}
        """
        # Its workers end by themselves when it was killed, a moment later.
        async with running_gateway(
            None,
            *self._where,
            toml=toml,
            folder=self._folder,
            expect_exit=None,
            prefix=() if self.machine is None else self.machine.prefix,
        ) as it:
            task_status.started(it)
            await self._stop.wait()
        killed = it.process.returncode == -signal.SIGKILL
        assert killed or it.process.returncode == 0, "\n".join(it.log[-50:])
        self._ended.set()


class Fleet:
    """Fronts and hosts by name, and the server between them."""

    def __init__(self, nats: NatsServer) -> None:
        self.nats = nats
        self.fronts: dict[str, Process] = {}
        self.hosts: dict[str, Process] = {}

    @property
    def front(self) -> RunningGateway:
        """The first front."""
        return next(iter(self.fronts.values())).gateway

    async def hosts_of(self, agent: str, front: Process | None = None) -> dict[str, Any]:
        """What a front says of an agent's hosts, by name."""
        gateway = self.front if front is None else front.gateway
        answer = await gateway.client.get(f"/agent/{agent}")
        return {host["name"]: host for host in answer.json().get("hosts", ())}

    async def knows(self, agent: str, hosts: Sequence[str]) -> None:
        """Wait until every front knows exactly these hosts of an agent, which can serve it."""
        for front in self.fronts.values():

            async def known(front: Process = front) -> bool:
                found = await self.hosts_of(agent, front)
                able = {name for name, host in found.items() if host["state"] not in UNABLE}
                return able == set(hosts)

            await becomes(known)


@asynccontextmanager
async def a_fleet(
    folder: Path,
    agents: Mapping[str, Sequence[str]],
    *,
    hosts: Sequence[str] = ("one", "two"),
    fronts: Sequence[str] = ("front",),
    fleet: str = "",
    server: str = "",
    more: str = "",
    of_agents: str = "",
    toml_of: Callable[[str], str] = lambda _: "",
    fleet_of: Callable[[str], str] = lambda _: "",
    nats: NatsServer | None = None,
    machines: bool = MACHINES,
    jetstream: bool = False,
    ports: Mapping[str, int] = MappingProxyType({}),
) -> AsyncIterator[Fleet]:
    """Run a fleet until the end of the block; then each of its processes that was not killed has to
    end well. With `machines`, each is in a network namespace with an address of its own. Processes
    in `ports` keep these when they are started again.

    `fleet`, `server` and `of_agents` are lines of `[fleet]`, `[server]` and each agent's table,
    `more` are other tables; `fleet_of(name)` are more lines of one process's `[fleet]`, and
    `toml_of(name)` more tables. `nats` is a server that runs; the default is one of its own.
    """
    tables = [fleet, "[server]", 'sandbox = "off"', server]
    if machines:
        # As on the loopback.
        tables += ["allow_anonymous = true", "console = true"]
        tables += [] if "lame_duck" in server else ["lame_duck = 0"]
    for agent, command in agents.items():
        tables += [f"[agents.{agent}]", f"command = {json.dumps(list(command))}", of_agents]
    toml = "\n".join([*tables, more])
    with ExitStack() as stack:
        at = stack.enter_context(network("nats", *hosts, *fronts)) if machines else {}
        where = {"address": at["nats"].address, "prefix": tuple(at["nats"].prefix)} if at else {}
        if nats is None:
            nats = stack.enter_context(NatsServer(jetstream=jetstream, **where))
        it = Fleet(nats)
        async with trio.open_nursery() as nursery:
            make = partial(Process, nursery, nats=nats)
            for role, names, kept in (("host", hosts, it.hosts), ("front", fronts, it.fronts)):
                for name in names:
                    own = f"{fleet_of(name)}\n{toml}\n{toml_of(name)}"
                    kept[name] = make(
                        role,
                        name,
                        folder=folder / name,
                        toml=own,
                        machine=at.get(name),
                        port=ports.get(name, 0),
                    )
            async with trio.open_nursery() as starting:
                for process in (*it.hosts.values(), *it.fronts.values()):
                    starting.start_soon(process.start)
            for agent in agents:
                await it.knows(agent, hosts)
            yield it
            for process in (*it.fronts.values(), *it.hosts.values()):
                await process.end()  # one that was killed has ended
