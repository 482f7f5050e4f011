"""Helper processes of an agent outlive its workers and end with the gateway."""

from __future__ import annotations

from pathlib import Path

from tests.agents.wire import FAULT
from tests.conftest import need
from tests.faults.scene import HAS_STRICT, agent, scene, until_state, worker_pid
from tests.harness import descendants, gone


def proxies(pid: int) -> set[int]:
    """The descendants of `pid` that are proxies of agents, or the bubblewrap around one."""
    return {
        child for child in descendants(pid) if b"gateway.sandbox.network.egress" in _command(child)
    }


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # a worker's helper that was there for a moment only
        return b""


async def test_the_proxy_of_an_agent_outlives_the_agents_workers(tmp_path: Path) -> None:
    need(HAS_STRICT, "bwrap is not installed")
    online = agent("segfault.py", sandbox={"network": ["example.invalid:9"]})
    async with scene(tmp_path, level="strict", online=online) as gateway:
        await worker_pid(gateway, "online")  # the proxy comes with the first worker
        before = proxies(gateway.pid)
        assert before
        for _ in range(2):
            assert (await gateway.post("/agent/online/invoke", input=FAULT)).status_code == 501
        await until_state(gateway, "online", lambda state: state["started"] >= 3)
        assert proxies(gateway.pid) == before
    for pid in before:
        assert await gone(pid)
