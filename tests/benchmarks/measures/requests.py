"""Requests with a single answer: small, large, and a long conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.benchmarks import proc, servers, wrk
from tests.benchmarks.bench import NO_SLOWER, Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import Client, Request
from tests.harness import descendants

SMALL = {"question": "What is the answer to everything?", "limit": 42}
MIB = 1 << 20
BRIDGES = ("mcp-proxy", "mcpo", "supergateway")
REMINIX = ("reminix 0.0.7", "reminix 0.0.22")
"""Of runtimes that call their agents in process: no pipe, no other process, no sandbox."""


def invoke(bench: Bench) -> Iterator[Figure]:
    """A small JSON body, with default settings."""
    with bench.all_servers({"echo": {}}, peers=(*BRIDGES, *REMINIX)) as running:
        requests = {name: server.invoke(SMALL) for name, server in running.items()}
        # With 1 connection, the wake-ups of two processes stand in a row.
        for connections, share in ((1, 0.7), (16, 1.0)):
            yield from _compare(
                bench, "invoke", running, requests, connections=connections,
                rate=(
                    Target("bare", at_least=1.0), Target(BRIDGES, at_least=1.0),
                    Target(REMINIX, at_least=share), NO_SLOWER,
                ),
                typical=(Target(REMINIX, at_most=1 / share),),
                slowest=(
                    Target("bare", at_most=1.2),
                    *([Target(REMINIX, at_most=1.0)] if connections > 1 else []),
                ),
            )  # fmt: skip


def large(bench: Bench) -> Iterator[Figure]:
    """1 MiB in and out: sixteen times what a pipe holds."""
    with bench.all_servers({"echo": {}}) as running:
        requests = {name: server.invoke("x" * MIB) for name, server in running.items()}
        for connections, share in ((1, 1.0), (4, 0.9)):
            yield from _compare(
                bench, "large", running, requests, connections=connections,
                rate=(Target("bare", at_least=share), NO_SLOWER),
            )  # fmt: skip
    subjects = {
        "gateway": partial(_peak, bench, servers.gateway),
        "bare": partial(_peak, bench, servers.bare),
    }
    yield Figure(
        "large", "memory at the peak above what it was before, 1 connection", "payloads",
        bench.interleave(subjects)["copies"], (Target(at_most=3.0),), higher_is_better=False,
    )  # fmt: skip


def _peak(bench: Bench, start: Callable[[Path], AbstractContextManager[Server]]) -> Samples:
    """The most payloads that a fresh server holds at once."""
    with start(bench.folder) as server, Client(server.port) as client:
        for _ in range(20):
            client.timed(server.invoke(SMALL))
        proc.forget_peak(server.pid)
        before = proc.peak_bytes(server.pid)
        for _ in range(bench.scaled(20, 2)):
            client.timed(server.invoke("x" * MIB))
        return {"copies": (proc.peak_bytes(server.pid) - before) / MIB}


def chat(bench: Bench) -> Iterator[Figure]:
    """A conversation of 64 KiB in 1,000 messages, each of which is checked."""
    roles = ("user", "assistant")
    envelope = len(json.dumps({"role": roles[1], "content": ""})) + 2
    content = "x" * (64 * 1024 // 1000 - envelope)
    messages = [{"role": roles[n % 2], "content": content} for n in range(1000)]
    with bench.all_servers({"echo": {}}, raw_asgi=False) as running:
        requests = {name: server.chat(messages) for name, server in running.items()}
        for connections in (1, 4):
            yield from _compare(
                bench, "chat", running, requests, connections=connections,
                rate=(Target("bare", at_least=0.9), NO_SLOWER),
            )  # fmt: skip


def _compare(
    bench: Bench,
    measure: str,
    running: Mapping[str, Server],
    requests: Mapping[str, Request],
    *,
    connections: int,
    rate: Sequence[Target],
    typical: Sequence[Target] = (),
    slowest: Sequence[Target] = (),
) -> Iterator[Figure]:
    """Load every server in turn; requests per second, 99th percentile, and CPU time per request."""
    taken = bench.interleave(
        {
            name: partial(_load, bench, server, requests[name], connections)
            for name, server in running.items()
        }
    )
    case = f"{connections} connection{'s' * (connections > 1)}"
    yield Figure(measure, case, "requests/s", taken["rate"], rate)
    yield Figure(measure, f"{case}, p50", "ms", taken["p50"], typical, higher_is_better=False)
    yield Figure(measure, f"{case}, p99", "ms", taken["p99"], slowest, higher_is_better=False)
    yield Figure(
        measure, f"{case}, CPU of the server's own process", "µs/request", taken["cpu"],
        higher_is_better=False,
        note=f"wrk used at most {max(max(s) for s in taken['wrk'].values()):.0%} of a core",
    )  # fmt: skip
    of_workers = {name: taken["workers"][name] for name in running if any(taken["workers"][name])}
    yield Figure(
        measure, f"{case}, CPU of its workers", "µs/request", of_workers, higher_is_better=False
    )


def _load(bench: Bench, server: Server, request: Request, connections: int) -> Samples:
    before, of_workers = proc.cpu_seconds(server.pid), _cpu_of_workers(server)
    load = wrk.load(
        server.port, request,
        connections=connections, seconds=bench.seconds, folder=bench.folder,
    )  # fmt: skip
    cpu = proc.cpu_seconds(server.pid) - before
    return {
        "rate": load.per_second,
        "p50": load.p50_ms,
        "p99": load.p99_ms,
        "cpu": cpu / load.requests * 1e6,
        "workers": (_cpu_of_workers(server) - of_workers) / load.requests * 1e6,
        "wrk": load.generator_cpu,
    }


def _cpu_of_workers(server: Server) -> float:
    """Those that live: of the gateway, each is there from its start to the end of a measure."""
    return sum(map(proc.cpu_seconds, descendants(server.pid)))


MEASURES = (
    Measure("invoke", "a small JSON in and out", invoke, needs_wrk=True),
    Measure("large", "1 MiB in and out", large, needs_wrk=True),
    Measure("chat", "a conversation of 1,000 messages", chat, needs_wrk=True),
)
