"""Requests with one answer each: small, large, and a long conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from tests.benchmarks import proc, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import Request

SMALL = {"question": "What is the answer to everything?", "limit": 42}
BRIDGES = ("mcp-proxy", "mcpo", "supergateway")


def invoke(bench: Bench) -> Iterator[Figure]:
    """A small JSON, through the default settings."""
    with bench.all_servers({"echo": {}}, peers=BRIDGES) as running:
        requests = {name: server.invoke(SMALL) for name, server in running.items()}
        for connections in (1, 16):
            yield from _compare(
                bench, "invoke", running, requests, connections=connections,
                rate=(Target("bare", at_least=1.0), Target(BRIDGES, at_least=1.0)),
                slowest=(Target("bare", at_most=1.2),),
            )  # fmt: skip


def _compare(
    bench: Bench,
    measure: str,
    running: Mapping[str, Server],
    requests: Mapping[str, Request],
    *,
    connections: int,
    rate: Sequence[Target],
    slowest: Sequence[Target] = (),
) -> Iterator[Figure]:
    """Load every server in turn; requests a second, the 99th percentile, and CPU a request."""
    taken = bench.interleave(
        {
            name: partial(_load, bench, server, requests[name], connections)
            for name, server in running.items()
        }
    )
    case = f"{connections} connection{'s' * (connections > 1)}"
    yield Figure(measure, case, "requests/s", taken["rate"], rate)
    yield Figure(measure, f"{case}, p99", "ms", taken["p99"], slowest, higher_is_better=False)
    yield Figure(
        measure, f"{case}, CPU of the server's own process", "µs/request", taken["cpu"],
        higher_is_better=False,
        note=f"wrk used at most {max(max(s) for s in taken['wrk'].values()):.0%} of a core",
    )  # fmt: skip


def _load(bench: Bench, server: Server, request: Request, connections: int) -> Samples:
    before = proc.cpu_seconds(server.pid)
    load = wrk.load(
        server.port, request,
        connections=connections, seconds=bench.seconds, folder=bench.folder,
    )  # fmt: skip
    cpu = proc.cpu_seconds(server.pid) - before
    return {
        "rate": load.per_second,
        "p99": load.p99_ms,
        "cpu": cpu / load.requests * 1e6,
        "wrk": load.generator_cpu,
    }


MEASURES = (Measure("invoke", "a small JSON in and out", invoke, needs_wrk=True),)
