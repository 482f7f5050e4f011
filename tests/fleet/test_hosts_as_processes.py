"""Hosts as processes, with a real nats-server: restarts under load, and a client that reads nothing."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import trio

from tests.benchmarks import proc
from tests.benchmarks.servers import agent_command
from tests.fleet.fleets import a_fleet
from tests.fleet.nats import needs_nats
from tests.harness import python_agent
from tests.http.conftest import AGENTS
from tests.http.load import Load
from tests.http.raw import connected

pytestmark = needs_nats

CLIENTS = 12
RESTARTS = 6
REQUESTS = 5_000
MIB = 1024 * 1024


async def test_rolling_restarts_of_hosts_lose_no_request_and_run_none_twice(
    tmp_path: Path,
) -> None:
    tally = tmp_path / "tally"
    agents = {"tally": [sys.executable, str(AGENTS / "tally.py"), str(tally)]}
    with trio.fail_after(120):
        async with a_fleet(
            tmp_path, agents, hosts=("one", "two", "three"), fronts=("a", "b")
        ) as fleet:
            load = Load(*(front.gateway.port for front in fleet.fronts.values()))
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(load.client, number)
                for number in range(RESTARTS):
                    host = list(fleet.hosts.values())[number % 3]
                    await host.end()
                    await host.start()
                    await fleet.knows("tally", tuple(fleet.hosts))
                await load.at_least(REQUESTS)
                load.stop.set()
    assert not load.failed, f"{len(load.failed)} of {load.asked}: {load.failed[:5]}"
    runs = Counter(tally.read_text().splitlines())
    assert runs == Counter(f"nonce {number}" for number in range(1, load.asked + 1))


async def test_a_client_that_reads_nothing_holds_back_its_own_worker_alone(
    tmp_path: Path,
) -> None:
    agents = {
        "firehose": agent_command("firehose"),
        "echo": python_agent("echo.py"),
    }
    async with a_fleet(tmp_path, agents, hosts=("one",)) as fleet:
        pids = [fleet.front.pid, fleet.hosts["one"].pid]
        for _ in range(50):
            await fleet.front.post("/agent/echo/invoke", input=1)
        before = [proc.resident_bytes(pid) for pid in pids]
        async with connected(fleet.front.port) as silent:
            await silent.request(
                "/agent/firehose/invoke", {"input": {"chunks": 2_000_000}, "stream": True}
            )
            for _ in range(200):
                answer = await fleet.front.post("/agent/echo/invoke", input=1)
                assert answer.status_code == 200
            await trio.sleep(3)
            after = [proc.resident_bytes(pid) for pid in pids]
        print([(b - a) / MIB for a, b in zip(before, after, strict=True)])
        assert max(b - a for a, b in zip(before, after, strict=True)) < 16 * MIB
