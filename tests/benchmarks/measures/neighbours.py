"""What a worker suffers from another agent's worker that keeps many processes busy.

By what it is held tells the gateway: control groups, or where there are none, priorities that the
gateway lowers once it has noticed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.benchmarks import servers
from tests.benchmarks.bench import Bench, Measure
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import Client

ALONE, BESIDE = "alone", "beside them"
NOTICED_SECONDS = 4.0
"""Time for the gateway to notice: it looks twice, a second apart, on a machine that is busy."""
MAX_ROUNDS = 3


def neighbours(bench: Bench) -> Iterator[Figure]:
    """One request after the other to one agent, and the same beside another agent's processes."""
    busy = bench.scaled(240, 4)
    taken: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    for _ in range(min(bench.rounds, MAX_ROUNDS)):
        with servers.gateway(bench.folder, agents={"echo": {}, "greedy": {}}) as server:
            taken[ALONE].append(_median_ms(bench, server))
            with Client(server.port) as client:
                client.timed(server.invoke(busy, agent="greedy"))
                time.sleep(0 if bench.quick else NOTICED_SECONDS)
                taken[BESIDE].append(_median_ms(bench, server))
            limits = server.state("greedy")["sandbox"]["limits"]["cpu"]
    yield Figure(
        "neighbours", f"{busy} busy processes of another agent: a request's p50", "ms", taken,
        (Target(ALONE, at_most=10.0, subject=BESIDE),), higher_is_better=False,
        note=f"limits of the CPU: {limits.get('reason', 'held')}",
    )  # fmt: skip


def _median_ms(bench: Bench, server: Server) -> float:
    request = server.invoke("hello")
    samples: list[float] = []
    until = time.perf_counter() + bench.seconds
    while not samples or time.perf_counter() < until:
        with Client(server.port) as client:  # a server closes a connection after a thousand
            samples.append(client.timed(request))
    return percentile(samples, 50) * 1000


MEASURES = (Measure("neighbours", "a request beside another agent's busy processes", neighbours),)
