"""An agent that uses up what it can get: its own request has a clear end, and its neighbours notice
nothing. Through a real gateway, with the sandbox that is on by default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.sandbox.limits.cgroups import find_cgroups
from tests.harness import RunningGateway, running_gateway
from tests.sandbox.users import need_sandbox

EXHAUST = Path(__file__).with_name("exhaust_agent.py")

CONFIG = f"""
[agents.fault]
command = ["{sys.executable}", "-u", "{EXHAUST}"]
[agents.fault.sandbox]
pids = 20
nofile = 64
tmp = "4M"
memory = "64M"

[agents.spinner]
command = ["{sys.executable}", "-u", "{EXHAUST}"]
[agents.spinner.sandbox]
cpu = 0.5
[agents.spinner.clocks]
total = 2

[agents.neighbour]
command = ["{sys.executable}", "-m", "worker.examples.echo"]
"""


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    async with running_gateway(toml=CONFIG, folder=tmp_path) as gateway:
        yield gateway


async def use_up(gateway: RunningGateway, what: str, *, agent: str = "fault") -> Any:
    """The answer of the agent that uses it up; a neighbour is asked again and again meanwhile."""
    answer: list[Any] = []

    async def fault() -> None:
        answer.append(await gateway.post(f"/agent/{agent}/invoke", input=what))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fault)
        # Not cancelled: httpx leaves the generator of a body behind that it was sending just then.
        while not answer:
            echoed = await gateway.post("/agent/neighbour/invoke", input=what)
            assert echoed.json() == {"output": what}
    return answer[0]


@pytest.mark.parametrize(
    ("what", "most"),
    [("forks", 19), ("threads", 19), ("descriptors", 61), ("disk", 4 << 20)],
)
async def test_what_is_limited_fails_within_the_agent_and_is_told(
    tmp_path: Path, what: str, most: int
) -> None:
    async with serving(tmp_path) as gateway:
        # Twice: the worker goes on after the first time.
        for _ in range(2):
            answer = await use_up(gateway, what)
            assert answer.status_code == 200
            assert 0 < answer.json()["output"] <= most


async def test_a_worker_that_is_killed_for_its_memory_is_told_and_replaced(tmp_path: Path) -> None:
    # Without a group that holds the limit, nothing would stop it.
    if (reason := find_cgroups().reasons.get("memory")) is not None:
        pytest.skip(f"memory: {reason}")
    async with serving(tmp_path) as gateway:
        limit = (await gateway.state("fault"))["sandbox"]["limits"]["memory"]
        assert limit == {"value": 64 << 20, "enforced": True, "by": limit["by"]}
        answer = await use_up(gateway, "memory")
        assert answer.status_code == 501
        assert answer.json()["error"]["type"] == "worker_crashed"
        error = answer.json()["error"]
        assert error["signal"] == "SIGKILL"
        assert (error["limit"], error["setting"]) == ("memory", "sandbox.memory")
        assert "sandbox.memory" in (await gateway.state("fault"))["last_failure"]["message"]
        await gateway.logged("more memory than sandbox.memory allows")
        assert (await use_up(gateway, "descriptors")).status_code == 200


async def test_a_worker_that_spins_is_stopped_by_its_clock(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway:
        answer = await use_up(gateway, "spin", agent="spinner")
        assert answer.status_code == 504
        assert answer.json()["error"]["clock"] == "total"
        answer = await use_up(gateway, "descriptors", agent="spinner")
        assert answer.status_code == 200


NOSY = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    seen = sorted(os.listdir(os.path.dirname(__file__)))
    print(json.dumps({"id": request["id"], "result": {"output": seen}}), flush=True)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The most common layout: an agent and the configuration in one folder."""
    tmp_path.chmod(0o755)
    (tmp_path / "agent.py").write_text(NOSY)
    return tmp_path


async def test_an_agent_does_not_see_the_configuration_that_it_stands_beside(
    project: Path,
) -> None:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    toml = f'[agents.nosy]\ncommand = ["{sys.executable}", "{project}/agent.py"]\n'
    async with running_gateway(toml=toml, folder=project) as gateway:
        answer = await gateway.post("/agent/nosy/invoke", input=0)
        assert answer.json() == {"output": ["agent.py"]}
