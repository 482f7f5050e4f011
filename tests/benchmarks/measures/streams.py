"""Streams at full speed: short ones, long ones, and a burst."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial

import msgspec

from tests.benchmarks import proc, wrk
from tests.benchmarks.bench import NO_SLOWER, Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server, agent_command, gateway
from tests.benchmarks.wire import Request, count_events

REMINIX = ("reminix 0.0.7", "reminix 0.0.22")
READ_BYTES = 64 * 1024

OWN_CPU = "CPU of the server's own process"
"""What other load on the machine changes least."""


def stream10(bench: Bench) -> Iterator[Figure]:
    """Short streams, dominated by the cost per stream."""
    with bench.all_servers({"words": {}}, peers=REMINIX) as running:
        taken = bench.interleave(
            {name: partial(_streams, bench, server) for name, server in running.items()}
        )
    yield Figure(
        "stream10", "10 chunks, 16 connections", "streams/s", taken["rate"],
        (Target(REMINIX, at_least=1.0), NO_SLOWER),
    )  # fmt: skip
    yield Figure(
        "stream10", f"10 chunks, 16 connections, {OWN_CPU}", "µs/stream", taken["cpu"],
        higher_is_better=False,
    )  # fmt: skip


def _streams(bench: Bench, server: Server) -> Samples:
    before = proc.cpu_seconds(server.pid)
    load = wrk.load(
        server.port, words(server, 10), connections=16, seconds=bench.seconds, folder=bench.folder
    )
    cpu = proc.cpu_seconds(server.pid) - before
    return {"rate": load.per_second, "cpu": cpu / load.requests * 1e6}


def stream1000(bench: Bench) -> Iterator[Figure]:
    """Long streams of small chunks, dominated by the cost per chunk."""
    with bench.all_servers({"words": {}}, peers=REMINIX) as running:
        for connections in (1, 4):
            taken = bench.interleave(
                {
                    name: partial(chunks_of, bench, server, words(server, 1000), connections)
                    for name, server in running.items()
                }
            )
            case = f"1,000 chunks, {connections} connection{'s' * (connections > 1)}"
            yield Figure(
                "stream1000", case,
                "chunks/s", taken["chunks"], (Target(REMINIX, at_least=5.0), NO_SLOWER),
            )  # fmt: skip
            yield Figure(
                "stream1000", f"{case}, {OWN_CPU}", "µs/1,000 chunks", taken["cpu"],
                higher_is_better=False,
            )  # fmt: skip


def burst(bench: Bench) -> Iterator[Figure]:
    """As many chunks as a pipe carries, to the gateway and to a plain reader of the pipe."""
    chunks = bench.scaled(200_000, 10_000)
    with gateway(bench.folder, agents={"firehose": {}}) as server:
        request = server.invoke({"chunks": chunks}, agent="firehose", stream=True)
        subjects: Mapping[str, partial[Samples]] = {
            "gateway": partial(chunks_of, bench, server, request, 1),
            "plain reader": partial(_plain_reader, chunks),
        }
        taken = bench.interleave(subjects)
    yield Figure(
        "burst", f"{chunks:,} chunks from one worker", "chunks/s", taken["chunks"],
        (Target("plain reader", at_least=0.5),),
    )  # fmt: skip


def chunks_of(bench: Bench, server: Server, request: Request, connections: int) -> Samples:
    """Chunks per second, and what 1,000 of them cost the server's own process, in µs."""
    before, start = proc.cpu_seconds(server.pid), time.perf_counter()
    rate = count_events(server.port, request, connections=connections, seconds=bench.seconds)
    cpu, seconds = proc.cpu_seconds(server.pid) - before, time.perf_counter() - start
    return {"chunks": rate, "cpu": cpu / (rate * seconds / 1000) * 1e6}


class _Params(msgspec.Struct):
    id: int
    chunk: str


class _Line(msgspec.Struct):
    method: str = ""
    params: _Params | None = None


def _plain_reader(chunks: int) -> Samples:
    """The same worker, read by the simplest program that understands it."""
    decode = msgspec.json.Decoder(_Line).decode
    request = b'{"id":1,"params":{"input":{"chunks":%d}}}\n' % chunks
    with subprocess.Popen(
        agent_command("firehose"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(request)
        rest = b""
        seen = 0
        start = time.perf_counter()
        while seen < chunks:
            data = worker.stdout.read(READ_BYTES)
            assert data, "the worker ended too early"
            if not seen:
                start = time.perf_counter()  # the worker's start is not measured
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if decode(line).params is not None:
                    seen += 1
        seconds = time.perf_counter() - start
        worker.stdin.close()
    return {"chunks": chunks / seconds}


def words(server: Server, chunks: int) -> Request:
    """A request for a stream of that many chunks."""
    return server.invoke({"chunks": chunks}, agent="words", stream=True)


MEASURES = (
    Measure("stream10", "streams of 10 chunks", stream10, needs_wrk=True),
    Measure("stream1000", "streams of 1,000 chunks of 20 bytes", stream1000),
    Measure("burst", "chunks as fast as a worker can write them", burst),
)
