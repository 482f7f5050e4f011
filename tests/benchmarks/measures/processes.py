"""More than one gateway on a machine of two cores: agents in two processes, and hosts of a fleet.

The load comes over a switch from a network namespace of its own where that can be made (root), as
from another machine; but its processor time is taken from the same cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from tests.benchmarks import proc, servers, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.fleet import nats_server, wait_until_ready
from tests.benchmarks.measures.requests import SMALL
from tests.benchmarks.servers import UNOBSERVED, Server
from tests.fleet.namespaces import Machine, network

AGENTS = ("echo", "echo2")
CONNECTIONS = 8
"""To each agent."""

ONE, TWO = "one gateway", "two gateways, an agent each"
ONE_HOST, TWO_HOSTS = "a front, one host", "a front, two hosts with an agent each"


@dataclass
class Setting:
    """Where each agent is called, and the processes that serve them."""

    called: Sequence[Server]
    pids: Sequence[int]


def processes(bench: Bench) -> Iterator[Figure]:
    """Two agents, each under its own load: in one process, in two, and at hosts of a fleet."""
    with ExitStack() as stack:
        load: Machine | None = None
        if os.geteuid() == 0:
            load = stack.enter_context(network("load"))["load"]
        settings = _start(bench, stack, "127.0.0.1" if load is None else load.switch)
        taken = bench.interleave(
            {name: partial(_load, bench, each, load) for name, each in settings.items()}
        )
    case = f"two agents, {CONNECTIONS} connections to each"
    yield Figure("processes", case, "requests/s", taken["rate"])
    yield Figure(
        "processes", f"{case}, processor time of gateways, fronts, hosts and NATS", "µs/request",
        taken["cpu"], (Target(ONE, at_most=1.25, subject=TWO),), higher_is_better=False,
    )  # fmt: skip


def _start(bench: Bench, stack: ExitStack, address: str) -> dict[str, Setting]:
    # Nobody else is on this network but the load.
    server = {**UNOBSERVED, "host": address, "allow_anonymous": True}
    echo = {"command": ["python", *servers.agent_command("echo")[1:]]}
    nats, url = stack.enter_context(nats_server(bench.folder))

    def run(name: str, agents: Sequence[str], role: str = "", fleet: str = "") -> Server:
        part = {"role": role, "servers": [url], "name": name, "prefix": fleet}
        return stack.enter_context(
            servers.gateway(
                bench.folder,
                agents=dict.fromkeys(agents, echo),
                server=server,
                name=name,
                more={"fleet": part} if role else None,
            )
        )

    def run_fleet(prefix: str, hosts: Sequence[Sequence[str]]) -> Setting:
        pids = [
            run(f"{prefix}-{number}", its, "host", prefix).pid for number, its in enumerate(hosts)
        ]
        front = run(f"{prefix}-front", (), "front", prefix)
        wait_until_ready(front, AGENTS, address)
        return Setting([front, front], [front.pid, nats, *pids])

    alone = run("alone", AGENTS)
    halves = [run(f"half-{agent}", [agent]) for agent in AGENTS]
    return {
        ONE: Setting([alone, alone], [alone.pid]),
        TWO: Setting(halves, [half.pid for half in halves]),
        ONE_HOST: run_fleet("one", [AGENTS]),
        TWO_HOSTS: run_fleet("two", [[agent] for agent in AGENTS]),
    }


def _load(bench: Bench, setting: Setting, machine: Machine | None) -> Samples:
    before = sum(map(proc.cpu_seconds, setting.pids))

    def load(number: int) -> wrk.Load:
        folder = bench.folder / f"load-{number}"
        folder.mkdir(exist_ok=True)
        server = setting.called[number]
        return wrk.load(
            server.port, server.invoke(SMALL, agent=AGENTS[number]),
            connections=CONNECTIONS, seconds=bench.seconds, folder=folder, machine=machine,
        )  # fmt: skip

    with ThreadPoolExecutor(len(AGENTS)) as threads:
        loads = list(threads.map(load, range(len(AGENTS))))
    used = sum(map(proc.cpu_seconds, setting.pids)) - before
    return {
        "rate": sum(each.per_second for each in loads),
        "cpu": used / sum(each.requests for each in loads) * 1e6,
    }


MEASURES = (
    Measure("processes", "several gateways on one machine, beside one", processes, needs_wrk=True),
)
