"""Many streams at once: the cost of a silent one, and the delay of a word."""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from tests.benchmarks import proc, servers
from tests.benchmarks.bench import BASELINE, Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import Request, Stream, watch

# As many requests per worker as there are streams; all other settings are defaults.
AGENTS = {"words": {"concurrency": 2000}}

REST_SECONDS = 15.0
"""Length of the silence in which CPU time and wake-ups are counted: one keep-alive per stream."""

OPENING_PACE = 0.002
"""Seconds between the openings of two streams, so that their words are spread over the second."""

SETTLE_SECONDS = 2.0
"""Time from the last opening until delays are counted."""

MAX_ROUNDS = 3
"""Each round starts every server anew, because freed memory is not returned, and takes a minute."""

ENDLESS = 1_000_000
"""Words of a stream: more than are ever read, however long the opening takes."""

STAMP = re.compile(rb'"chunk":"(\d{9,20})"')


def silent(bench: Bench) -> Iterator[Figure]:
    """Open streams that are silent."""
    count = bench.scaled(500, 20)
    taken = _fresh_servers(bench, partial(_be_silent, bench, count))
    case = f"{count} open silent streams"
    yield Figure(
        "silent", f"{case}: memory of each", "KiB", taken["memory"],
        (Target("bare", at_most=1.0), Target(BASELINE, at_most=1.03)), higher_is_better=False,
    )  # fmt: skip
    yield Figure(
        "silent", f"{case}: CPU at rest", "ms/s", taken["cpu"], higher_is_better=False,
        note="the gateway sends each stream a comment every 15 s, the references send nothing",
    )  # fmt: skip
    yield Figure(
        "silent", f"{case}: wake-ups of the server at rest", "1/s for each stream",
        taken["wakeups"], (Target(at_most=0.5),), higher_is_better=False,
    )  # fmt: skip


def steady(bench: Bench) -> Iterator[Figure]:
    """Streams of one word a second each."""
    count = bench.scaled(1000, 20)
    taken = _fresh_servers(bench, partial(_be_steady, bench, count))
    case = f"{count:,} streams, a word a second each"
    yield Figure(
        "steady", f"{case}: delay added to a word, p99", "ms", taken["p99"],
        (Target("bare", at_most=1.5),), higher_is_better=False,
    )  # fmt: skip
    yield Figure("steady", f"{case}: delay added, p50", "ms", taken["p50"], higher_is_better=False)
    yield Figure(
        "steady", f"{case}: memory of each", "KiB", taken["memory"], higher_is_better=False
    )
    yield Figure("steady", f"{case}: CPU", "ms/s", taken["cpu"], higher_is_better=False)


def _fresh_servers(
    bench: Bench, work: Callable[[Server], Samples]
) -> dict[str, dict[str, list[float]]]:
    starters: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "gateway": partial(servers.gateway, bench.folder, agents=AGENTS),
        "bare": partial(servers.bare, bench.folder),
    }
    if bench.baseline is not None:
        starters[BASELINE] = partial(bench.start_baseline, AGENTS)
    if not bench.quick:
        starters["raw ASGI"] = partial(servers.raw_asgi, bench.folder)

    def run(start: Callable[[], AbstractContextManager[Server]]) -> Samples:
        with start() as server:
            _warm_up(server)
            return work(server)

    subjects = {name: partial(run, start) for name, start in starters.items()}
    return bench.interleave(subjects, rounds=min(bench.rounds, MAX_ROUNDS), rehearse=False)


def _warm_up(server: Server) -> None:
    """Let the server allocate what it allocates once, which is not the cost of a stream."""
    request = server.invoke({"chunks": 10}, agent="words", stream=True)
    streams = [Stream(server.port, request) for _ in range(10)]
    watch(streams, seconds=10)
    for stream in streams:
        stream.close()


def _be_silent(bench: Bench, count: int, server: Server) -> Samples:
    before = proc.resident_bytes(server.pid)
    request = server.invoke({"chunks": 0}, agent="words", stream=True)
    with ExitStack() as stack:
        for _ in range(count):
            stream = Stream(server.port, request)
            stack.callback(stream.close)
            while not stream.events:
                stream.read()
        memory = (proc.resident_bytes(server.pid) - before) / count / 1024
        at_rest = bench.scaled(int(REST_SECONDS), 1)
        cpu, wakeups = proc.cpu_seconds(server.pid), proc.wakeups(server.pid)
        time.sleep(at_rest)  # the silence is what is measured
        return {
            "memory": memory,
            "cpu": (proc.cpu_seconds(server.pid) - cpu) / at_rest * 1000,
            "wakeups": (proc.wakeups(server.pid) - wakeups) / at_rest / count,
        }


class _Delays:
    """Milliseconds from the sending of each word to its reading, once `counting` is set."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self.counting = False

    def __call__(self, data: bytes) -> None:
        if self.counting:
            now = time.monotonic_ns()  # the clock of the words, which all processes share
            self.all += [(now - int(said)) / 1e6 for said in STAMP.findall(data)]


def _be_steady(bench: Bench, count: int, server: Server) -> Samples:
    seconds = bench.scaled(10, 1)
    settle = SETTLE_SECONDS if not bench.quick else 0.0
    before = proc.resident_bytes(server.pid)
    request = server.invoke({"chunks": ENDLESS, "every": 1.0}, agent="words", stream=True)
    delays = _Delays()
    with ExitStack() as stack:
        streams = _open_at_a_pace(server, request, count, delays, stack)
        watch(streams, seconds=settle)
        delays.counting = True
        cpu = proc.cpu_seconds(server.pid)
        watch(streams, seconds=seconds)
        return {
            "p50": percentile(delays.all, 50),
            "p99": percentile(delays.all, 99),
            "memory": (proc.resident_bytes(server.pid) - before) / count / 1024,
            "cpu": (proc.cpu_seconds(server.pid) - cpu) / seconds * 1000,
        }


def _open_at_a_pace(
    server: Server, request: Request, count: int, delays: _Delays, stack: ExitStack
) -> list[Stream]:
    """Open the streams one after the other, and meanwhile read those that are open."""
    streams: list[Stream] = []
    with selectors.DefaultSelector() as selector:
        start = time.perf_counter()
        while len(streams) < count or not all(stream.events for stream in streams):
            if len(streams) < count and time.perf_counter() >= start + len(streams) * OPENING_PACE:
                stream = Stream(server.port, request, delays)
                stack.callback(stream.close)
                selector.register(stream.socket, selectors.EVENT_READ, stream)
                streams.append(stream)
            for key, _ in selector.select(OPENING_PACE):
                key.data.read()
    return streams


MEASURES = (
    Measure("silent", "500 open streams that say nothing", silent),
    Measure("steady", "1,000 streams that say a word a second", steady),
)
