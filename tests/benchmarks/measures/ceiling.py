"""Whether the load generators are faster than the servers; if not, they are what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.benchmarks import servers, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.requests import SMALL
from tests.benchmarks.measures.streams import words
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import count_events

TRIVIAL = "a server that only sends"
AHEAD = Target("gateway", at_least=3.0, subject=TRIVIAL)
"""The generator then needs at most a third of the time that the server needs."""


def ceiling(bench: Bench) -> Iterator[Figure]:
    """Each generator with a server that does next to nothing, and with the gateway."""
    agents: dict[str, dict[str, Any]] = {"echo": {}, "words": {}}
    with (
        servers.gateway(bench.folder, agents=agents) as real,
        servers.trivial(bench.folder) as trivial,
    ):
        running = {TRIVIAL: trivial, "gateway": real}
        if wrk.available():
            taken = bench.interleave(
                {name: partial(_wrk, bench, server) for name, server in running.items()}
            )
            yield Figure("ceiling", "wrk, 16 connections", "requests/s", taken["rate"], (AHEAD,))
        taken = bench.interleave(
            {name: partial(_counter, bench, server) for name, server in running.items()}
        )
        yield Figure(
            "ceiling", "the counter of events, 4 connections", "chunks/s", taken["rate"], (AHEAD,)
        )


def _wrk(bench: Bench, server: Server) -> Samples:
    load = wrk.load(
        server.port, server.invoke(SMALL),
        connections=16, seconds=bench.seconds, folder=bench.folder,
    )  # fmt: skip
    return {"rate": load.per_second}


def _counter(bench: Bench, server: Server) -> Samples:
    request = words(server, 1000)
    return {"rate": count_events(server.port, request, connections=4, seconds=bench.seconds)}


MEASURES = (Measure("ceiling", "how far the load generators are ahead", ceiling),)
