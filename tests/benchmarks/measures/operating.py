"""What an operator switches on: keys, limits, metrics and the access log, each and together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.config.keys import hash_key, new_key
from tests.benchmarks import proc, servers, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import UNOBSERVED, Server
from tests.benchmarks.wire import Request

QUESTION = {"question": "What is the answer to everything?", "limit": 42}
CONNECTIONS = 16
NEVER_MET = {"requests_per_second": 1_000_000, "concurrent": 10_000}
"""Limits that are counted for each request, and refuse none."""

OFF, ALL_ON = "off", "all on"


def operating(bench: Bench) -> Iterator[Figure]:
    """The same requests to gateways that differ in what is switched on."""
    key = new_key()
    keys = {"keys": {"bench": {"hash": hash_key(key.encode())}}}
    limited = {"echo": {"limits": NEVER_MET}}
    access_log = {**UNOBSERVED, "access_log": True}
    variants: dict[str, dict[str, Any]] = {
        OFF: {},
        "keys": {"more": keys},
        "limits": {"agents": limited},
        "metrics": {"server": {**UNOBSERVED, "metrics": True}},
        "access log": {"server": access_log},
        "console": {"server": {**UNOBSERVED, "console": True}},
        ALL_ON: {"more": keys, "agents": limited, "server": {**access_log, "metrics": True}},
    }
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(servers.gateway(bench.folder, name=name, **settings))
            for name, settings in variants.items()
        }
        taken = bench.interleave(
            {name: partial(_load, bench, server, key) for name, server in running.items()}
        )
    case = f"{CONNECTIONS} connections"
    yield Figure(
        "operating", case, "requests/s", taken["rate"],
        (Target(OFF, at_least=0.85, subject=ALL_ON),),
    )  # fmt: skip
    yield Figure(
        "operating", f"{case}, CPU of the server's own process", "µs/request", taken["cpu"],
        higher_is_better=False,
    )  # fmt: skip


def _load(bench: Bench, server: Server, key: str) -> Samples:
    request: Request = server.invoke(QUESTION)
    request = replace(request, headers=(*request.headers, ("Authorization", f"Bearer {key}")))
    before = proc.cpu_seconds(server.pid)
    load = wrk.load(
        server.port, request,
        connections=CONNECTIONS, seconds=bench.seconds, folder=bench.folder,
    )  # fmt: skip
    cpu = proc.cpu_seconds(server.pid) - before
    return {"rate": load.per_second, "cpu": cpu / load.requests * 1e6}


MEASURES = (
    Measure("operating", "keys, limits, metrics and the access log", operating, needs_wrk=True),
)
