"""Hosts as processes, with a real nats-server: restarts, a silent client, and no NATS at all."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import trio

from tests.benchmarks import proc
from tests.benchmarks.servers import agent_command
from tests.fleet.fleets import a_fleet
from tests.fleet.nats import needs_nats
from tests.harness import RunningGateway, python_agent
from tests.http.conftest import AGENTS
from tests.http.load import Load
from tests.http.raw import becomes, connected

pytestmark = needs_nats

CLIENTS = 12
RESTARTS = 6
REQUESTS = 5_000
WORDS = 150
"""Of an answer that takes three seconds."""

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
        assert max(b - a for a, b in zip(before, after, strict=True)) < 16 * MIB


STEADY = [sys.executable, str(Path(__file__).parent / "agents" / "steady.py")]


async def has_in_flight(front: RunningGateway, count: int) -> bool:
    return bool((await front.state("steady"))["in_flight"] == count)


async def test_nats_may_be_away_for_a_second_and_nothing_is_lost(tmp_path: Path) -> None:
    said = "".join(f"{number} " for number in range(WORDS))
    answers: list[str] = []
    async with a_fleet(tmp_path, {"steady": STEADY}) as fleet:
        front = fleet.front

        async def collect() -> None:
            answer = await front.post("/agent/steady/invoke", input={"words": WORDS})
            assert answer.status_code == 200, answer.text
            answers.append(answer.json()["output"])

        async def stream() -> None:
            _, events = await front.stream("/agent/steady/invoke", input={"words": WORDS})
            assert events.pop() == "[DONE]"
            answers.append("".join(json.loads(event)["chunk"] for event in events))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(collect)
            for _ in range(10):
                nursery.start_soon(stream)
            await becomes(partial(has_in_flight, front, 30))
            fleet.nats.kill()
            await trio.sleep(1)
            fleet.nats.start()
    assert answers == [said] * 30


async def test_without_nats_for_longer_than_the_grace_all_end_with_an_error_and_it_heals(
    tmp_path: Path,
) -> None:
    ends: list[str] = []
    async with a_fleet(tmp_path, {"steady": STEADY}, fleet="grace = 1") as fleet:
        front = fleet.front

        async def collect() -> None:
            answer = await front.post("/agent/steady/invoke", input={"words": 10 * WORDS})
            ends.append(answer.json()["error"]["type"])

        async def stream() -> None:
            _, events = await front.stream("/agent/steady/invoke", input={"words": 10 * WORDS})
            ends.append(events.pop())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(stream)
            await becomes(partial(has_in_flight, front, 2))
            fleet.nats.kill()
        assert len(ends) == 2
        assert all("worker_crashed" in end for end in ends)

        async def ready(wanted: int, process: RunningGateway) -> bool:
            return (await process.client.get("/ready")).status_code == wanted

        members = [front, *(host.gateway for host in fleet.hosts.values())]
        for member in members:
            await becomes(partial(ready, 503, member))
        refused = await front.post("/agent/steady/invoke", input={"words": 1})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        fleet.nats.start()
        for member in members:
            await becomes(partial(ready, 200, member))
        await fleet.knows("steady", tuple(fleet.hosts))
        answer = await front.post("/agent/steady/invoke", input={"words": 2})
        assert answer.json()["output"] == "0 1 "
