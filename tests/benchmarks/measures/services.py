"""What it costs an agent that its key is added by somebody else."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from statistics import median

import httpx

from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.services import service_and_door

BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 400 + b'"}]}'
HEADERS = {"Authorization": "Bearer placeholder", "Content-Type": "application/json"}


def services(bench: Bench) -> Iterator[Figure]:
    """The same service asked directly, and through the door."""
    calls, chunks = bench.scaled(1000, 20), bench.scaled(20_000, 100)
    with service_and_door() as (direct, door):
        taken = bench.interleave({"round": partial(_latencies, calls, direct, door)})
        latencies = {name: samples["round"] for name, samples in taken.items()}
        yield Figure(
            "services", "a request, kept connections, median", "ms", latencies,
            (Target(None, at_most=1.0, subject="added"),), higher_is_better=False,
        )  # fmt: skip
        taken = bench.interleave(
            {
                "direct": partial(_chunks, chunks, f"http://127.0.0.1:{direct}/v1"),
                "door": partial(_chunks, chunks, f"http://127.0.0.1:{door}/llm"),
            }
        )
    yield Figure(
        "services", "a stream, read by httpx line by line", "chunks/s", taken["chunks"],
        (Target("direct", at_least=0.9, subject="door"),),
    )  # fmt: skip


def _latencies(calls: int, direct: int, door: int) -> Samples:
    """Asked in turn, so that both have the same machine."""
    with (
        closing(http.client.HTTPConnection("127.0.0.1", direct)) as plain,
        closing(http.client.HTTPConnection("127.0.0.1", door)) as through,
    ):
        pairs = [(_call(plain, "/v1/chat"), _call(through, "/llm/chat")) for _ in range(calls)]
    times = {
        "direct": median(each for each, _ in pairs) * 1000,
        "door": median(each for _, each in pairs) * 1000,
    }
    return times | {"added": times["door"] - times["direct"]}


def _call(connection: http.client.HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    connection.request("POST", path, BODY, HEADERS)
    connection.getresponse().read()
    return time.perf_counter() - began


def _chunks(chunks: int, url: str) -> Samples:
    began = time.perf_counter()
    with httpx.stream("GET", f"{url}/{chunks}", timeout=60) as response:
        seen = sum(line.startswith("data:") for line in response.iter_lines())
    assert seen == chunks
    return {"chunks": chunks / (time.perf_counter() - began)}


MEASURES = (Measure("services", "an agent's request to a service, through the door", services),)
