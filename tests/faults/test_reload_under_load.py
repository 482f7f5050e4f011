"""Fifty reloads, one after the other, while clients ask all the time: agents are added, changed and
removed. No request fails, and nothing of what has gone is left."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.conftest import need
from tests.faults.scene import (
    HAS_STRICT,
    agent,
    back_to,
    footprint,
    scene,
    send_signal,
    shared,
    to_toml,
)
from tests.harness import RunningGateway

CLIENTS = 2
"""Of each agent that is always there."""


SERVER = {"metrics": True}
"""They must forget what was removed, too."""


class Load:
    """Clients that ask agents again and again, by connections of their own."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self.answered = 0
        self.wrong: list[str] = []
        self.over = False

    async def ask_on(self, name: str, number: int) -> None:
        """Every second request is of a conversation, every third one a stream."""
        async with httpx.AsyncClient(base_url=self._gateway.url, timeout=60) as client:
            turn = 0
            while not self.over:
                turn += 1
                said = f"{name} {number} {turn}"
                context = {"conversation_id": f"c{number}"} if turn % 2 else {}
                body = {"input": said, "stream": turn % 3 == 0, "context": context}
                try:
                    answer = await client.post(f"/agent/{name}/invoke", json=body)
                except httpx.HTTPError as error:
                    self.wrong.append(f"{said}: {error!r}")
                else:
                    if answer.status_code != 200 or said not in answer.text:
                        self.wrong.append(f"{said}: {answer.status_code} {answer.text}")
                    self.answered += 1


def echo(number: int = 0, **settings: Any) -> dict[str, Any]:
    """An agent; with another number its workers must be new ones."""
    return agent("echo.py", str(number), **settings)


async def reload(gateway: RunningGateway, folder: Path, level: str, **agents: Any) -> None:
    tables = {
        "server": {"sandbox": level, **SERVER},
        "defaults": {"sandbox": {"mounts_ro": [str(shared(folder))]}},
        "agents.good": agent("echo.py"),
        **{f"agents.{name}": table for name, table in agents.items()},
    }
    (folder / "settings" / "gateway.toml").write_text(to_toml(tables))
    gateway.log.clear()
    send_signal(gateway, signal.SIGHUP)
    await gateway.logged("reload: done")


async def pids(gateway: RunningGateway, name: str) -> list[int]:
    return [each["pid"] for each in (await gateway.state(name))["workers"]]


ROUNDS = {"off": 50, "strict": 4}
"""Of reloads, by sandbox. A reload is the same in both; what the strict one adds, that a sandbox
goes with its worker, each round does again. Such a round takes 1.6 s, most of it to start workers:
fifty would take 75 s more. Once they were run, and passed."""


@pytest.mark.parametrize(("level", "rounds"), ROUNDS.items())
async def test_reloads_under_load_lose_no_request_and_leave_nothing(
    tmp_path: Path, level: str, rounds: int
) -> None:
    need(level == "off" or HAS_STRICT, "bwrap is not installed")
    reaching = {} if level == "off" else {"sandbox": {"network": ["a.invalid:443"]}}
    async with scene(tmp_path, level=level, server=SERVER, changed=echo(0)) as gateway:
        for name in ("good", "changed"):  # both workers are there
            assert (await gateway.post(f"/agent/{name}/invoke", input=1)).status_code == 200
        unchanged = await pids(gateway, "good")
        before = footprint(gateway)
        load = Load(gateway)
        async with trio.open_nursery() as nursery:
            for name in ("good", "changed"):
                for number in range(CLIENTS):
                    nursery.start_soon(load.ask_on, name, number)
            for number in range(1, rounds):
                # One is added, one changed, and the one of the last round removed.
                new = f"new-{number}"
                agents = {"changed": echo(number), new: echo(**reaching)}
                await reload(gateway, tmp_path, level, **agents)
                answer = await gateway.post(f"/agent/{new}/invoke", input=new)
                assert answer.status_code == 200, answer.text
                if number > 1:
                    gone = await gateway.post(f"/agent/new-{number - 1}/invoke", input=1)
                    assert gone.status_code == 404
            await reload(gateway, tmp_path, level, changed=echo(0))
            load.over = True
        assert not load.wrong, load.wrong[:20]
        assert load.answered > 10 * rounds
        assert await pids(gateway, "good") == unchanged
        assert (await gateway.state("good"))["started"] == len(unchanged)
        text = (await gateway.client.get("/metrics")).text
        assert set(re.findall(r'agent="([^"]+)"', text)) == {"good", "changed"}
        await back_to(gateway, before)
