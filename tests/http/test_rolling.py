"""Two gateways behind a real proxy are restarted in turn, under load, and nobody notices.

The proxies run the configurations of `gateway/deploy/`. Every request has a nonce, which the agent
writes down before it does anything else: what was answered was run once, and nothing twice.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.conftest import need
from tests.harness import running_gateway
from tests.http.conftest import AGENTS
from tests.http.load import Load
from tests.http.proxies import command, configuration, free_ports, serves
from tests.http.raw import becomes
from tests.programs import find_program

CLIENTS = 12
"""Enough for requests to be in every state when a gateway is told to end; each has one request at
a time."""

SECONDS = 240
"""For a whole test, on a loaded machine."""


class Replica:
    """One of the gateways, which is always started on the same port."""

    def __init__(self, nursery: trio.Nursery, port: int, folder: Path) -> None:
        self.port = port
        self._nursery = nursery
        self._folder = folder
        self._tally = folder / "tally"
        self._stop = self._ended = trio.Event()
        folder.mkdir()

    def runs(self) -> list[str]:
        """The nonces that its agent was given, in every life so far."""
        return self._tally.read_text().splitlines() if self._tally.exists() else []

    async def start(self) -> None:
        """Return once it is ready."""
        self._stop, self._ended = trio.Event(), trio.Event()
        await self._nursery.start(self._serve)

    async def end(self) -> None:
        """SIGTERM, and the end with exit code 0."""
        self._stop.set()
        await self._ended.wait()

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        toml = f"""
            [server]
            sandbox = "off"  # the tally is written outside of it
            lame_duck = 1
            [agents.tally]
            command = ['{sys.executable}', '{AGENTS / "tally.py"}', '{self._tally}']
        """
        arguments = ("--port", str(self.port))
        async with running_gateway(None, *arguments, toml=toml, folder=self._folder) as gateway:

            async def ready() -> bool:
                return (await gateway.client.get("/ready")).is_success

            await becomes(ready)
            task_status.started()
            await self._stop.wait()
        self._ended.set()


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize(
    ("name", "restarts", "requests"), [("nginx", 6, 5000), ("haproxy", 2, 1000)]
)
async def test_rolling_restarts_lose_no_request_and_run_none_twice(
    name: str, restarts: int, requests: int, tmp_path: Path
) -> None:
    need(find_program(name), f"{name} is not installed")
    port, *ports = free_ports(3)
    load = Load(port)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            replicas = [Replica(nursery, port, tmp_path / str(port)) for port in ports]
            for replica in replicas:
                await replica.start()
            path = configuration(name, tmp_path, port, (ports[0], ports[1]))
            proxy = partial(trio.run_process, command(name, path), check=False)
            await nursery.start(proxy)
            await becomes(partial(serves, port))
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(load.client, number)
                for number in range(restarts):
                    replica = replicas[number % 2]
                    await replica.end()
                    before = len(replica.runs())
                    await replica.start()
                    await becomes(partial(has_more_runs, replica, before))
                await load.at_least(requests)
                load.stop.set()
            for replica in replicas:
                await replica.end()
            nursery.cancel_scope.cancel()  # which ends the proxy
    assert not load.failed, f"{len(load.failed)} of {load.asked}: {load.failed[:5]}"
    runs = Counter(nonce for replica in replicas for nonce in replica.runs())
    assert runs == Counter(f"nonce {number}" for number in range(1, load.asked + 1))


async def has_more_runs(replica: Replica, before: int) -> bool:
    """Whether the proxy has sent it a request since: only then may the other one be stopped."""
    return len(replica.runs()) > before
