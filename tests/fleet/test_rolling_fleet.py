"""Fronts behind a real proxy, and their hosts, are restarted in turn, under load: nobody notices.

The proxy runs the configuration of `gateway/deploy/`. Every request has a nonce, which the agent
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
from tests.fleet.fleets import Process, a_fleet
from tests.fleet.nats import needs_nats
from tests.http.conftest import AGENTS
from tests.http.load import Load
from tests.http.proxies import command, configuration, free_ports, serves
from tests.http.raw import becomes
from tests.programs import find_program

pytestmark = needs_nats

CLIENTS = 12
RESTARTS = 6
"""Of fronts, and as many of hosts."""

REQUESTS = 5_000
SECONDS = 240
"""For the whole test, on a loaded machine: twelve processes end and start in it."""


@pytest.mark.timeout(SECONDS + 30)
async def test_rolling_restarts_of_fronts_and_hosts_lose_no_request_and_run_none_twice(
    tmp_path: Path,
) -> None:
    need(find_program("nginx"), "nginx is not installed")
    port, *ports = free_ports(3)
    load = Load(port)
    tally = tmp_path / "tally"
    hosts = ("one", "two", "three")
    with trio.fail_after(SECONDS):
        async with (
            a_fleet(
                tmp_path,
                {"tally": [sys.executable, str(AGENTS / "tally.py"), str(tally)]},
                hosts=hosts,
                fronts=("a", "b"),
                server="lame_duck = 1",
                ports=dict(zip(("a", "b"), ports, strict=True)),
            ) as fleet,
            trio.open_nursery() as nursery,
        ):
            a, b = (front.gateway.host for front in fleet.fronts.values())
            path = configuration("nginx", tmp_path, port, (ports[0], ports[1]), addresses=(a, b))
            proxy = partial(trio.run_process, command("nginx", path), check=False)
            await nursery.start(proxy)
            await becomes(partial(serves, port))
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(load.client, number)
                for number in range(RESTARTS):
                    front = list(fleet.fronts.values())[number % 2]
                    await front.end()
                    await front.start()
                    await fleet.knows("tally", hosts)
                    host = fleet.hosts[hosts[number % 3]]
                    await host.end()
                    await host.start()
                    await fleet.knows("tally", hosts)
                    await becomes(partial(has_asked, front))
                await load.at_least(REQUESTS)
                load.stop.set()
            nursery.cancel_scope.cancel()  # which ends the proxy
    assert not load.failed, f"{len(load.failed)} of {load.asked}: {load.failed[:5]}"
    runs = Counter(tally.read_text().splitlines())
    assert runs == Counter(f"nonce {number}" for number in range(1, load.asked + 1))


async def has_asked(front: Process) -> bool:
    """Whether the proxy has sent it a request since: only then may the other one be stopped."""
    return any("request ended" in line and "agent=tally" in line for line in front.gateway.log)
