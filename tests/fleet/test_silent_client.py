"""Clients that do not read what a host has for them; processes, with a real nats-server."""

from __future__ import annotations

import re
from pathlib import Path

from tests.benchmarks import proc
from tests.benchmarks.servers import agent_command
from tests.fleet.fleets import Fleet, a_fleet
from tests.fleet.nats import needs_nats
from tests.harness import descendants, python_agent
from tests.http.raw import connected

pytestmark = needs_nats

MIB = 1024 * 1024

PIPE_BYTES = 65_536
"""What a worker can write at least that nobody reads from."""

AGENTS = {"firehose": agent_command("firehose"), "echo": python_agent("echo.py")}


async def ask_the_neighbour(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        answer = await fleet.front.post("/agent/echo/invoke", input=1)
        assert answer.status_code == 200, answer.text


def written(pid: int) -> int:
    """The bytes that a process has written so far, to whatever."""
    return int(re.findall(r"^wchar: (\d+)$", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)[0])


def worker_of(agent: str, host: int) -> int:
    """The pid of the only worker of an agent at a host."""
    [pid] = [
        pid
        for pid in descendants(host)
        if f"{agent}.py".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


async def is_held_back(fleet: Fleet, worker: int, idle: int) -> None:
    """Wait until a worker, which had written `idle` bytes before its request, can write nothing
    more: every window between it and the client is full then.

    Meanwhile a neighbour's requests pass through the same processes, in both directions: whatever
    makes room for the worker has come to its host before they are answered.
    """
    before, now = idle, written(worker)
    while now != before or now < idle + PIPE_BYTES:
        await ask_the_neighbour(fleet, 20)
        before, now = now, written(worker)


async def test_a_client_that_reads_nothing_takes_little_of_a_front_and_a_host(
    tmp_path: Path,
) -> None:
    async with a_fleet(tmp_path, AGENTS, hosts=("one",)) as fleet:
        pids = [fleet.front.pid, fleet.hosts["one"].pid]
        await ask_the_neighbour(fleet, 50)
        before = [proc.resident_bytes(pid) for pid in pids]
        worker = worker_of("firehose", fleet.hosts["one"].pid)
        idle = written(worker)
        async with connected(fleet.front.port, host=fleet.front.host) as silent:
            asked = {"input": {"chunks": 2_000_000}, "stream": True}
            await silent.request("/agent/firehose/invoke", asked)
            await is_held_back(fleet, worker, idle)
            after = [proc.resident_bytes(pid) for pid in pids]
        assert max(now - then for then, now in zip(before, after, strict=True)) < 16 * MIB


async def test_a_client_that_reads_late_gets_every_word(tmp_path: Path) -> None:
    chunks = 200_000
    async with a_fleet(tmp_path, AGENTS, hosts=("one",)) as fleet:
        async with connected(fleet.front.port, host=fleet.front.host, receive_buffer=4096) as late:
            asked = {"input": {"chunks": chunks}, "stream": True}
            await late.request("/agent/firehose/invoke", asked)
            await ask_the_neighbour(fleet, 100)
            answer = await late.answer()
        assert answer.status == 200
        assert answer.body.count(b'data: {"chunk":"twenty bytes of text"}\n\n') == chunks
        assert answer.body.endswith(b"data: [DONE]\n\n")
