"""A front and a host on NATS, beside one gateway that does the same alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks import proc, servers, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.requests import MIB, SMALL
from tests.benchmarks.measures.streams import words
from tests.benchmarks.servers import START_SECONDS, UNOBSERVED, Server, StartError
from tests.benchmarks.wire import Client, connect, count_events
from tests.programs import find_program

AGENTS: Mapping[str, Mapping[str, Any]] = {"echo": {}, "words": {}, "firehose": {}}

LOCAL, FLEET, BOTH = "gateway", "front and host", "front, host and NATS"

MOST_ADDED_MS = 1.5
"""Two ways through NATS, each with a thread at both ends."""

MOST_MIB = 16
"""What a client that reads nothing may take of a front and of a host each."""

FLOOD_SECONDS = 1.0
"""Until a worker that nobody reads from is held back."""


@dataclass
class Fleet:
    """The processes of a fleet, and where it is called."""

    front: Server
    host: Server
    nats: int
    """The pid of nats-server."""


def fleet(bench: Bench) -> Iterator[Figure]:
    """The same requests to one gateway, and through a front to a host."""
    with servers.gateway(bench.folder, agents=AGENTS) as local, _fleet(bench.folder) as far:
        yield from _invoke(bench, local, far)
        yield from _latency(bench, local, far)
        for connections in (1, 4):
            yield from _stream(bench, local, far, connections)
        yield from _silent(bench, far)


def _invoke(bench: Bench, local: Server, far: Fleet) -> Iterator[Figure]:
    processes = {LOCAL: (local, [local.pid]), FLEET: (far.front, [far.host.pid])}
    every = {LOCAL: [local.pid], BOTH: [far.front.pid, far.host.pid, far.nats]}

    def load(name: str) -> Samples:
        server, own = processes[name]
        pids = every[LOCAL if name == LOCAL else BOTH]
        before = {pid: proc.cpu_seconds(pid) for pid in pids}
        load = wrk.load(
            server.port, server.invoke(SMALL),
            connections=16, seconds=bench.seconds, folder=bench.folder,
        )  # fmt: skip
        used = {pid: proc.cpu_seconds(pid) - before[pid] for pid in pids}
        return {
            "rate": load.per_second,
            "per CPU second": load.requests / max(0.01, sum(used[pid] for pid in own)),
            "cpu": sum(used.values()) / load.requests * 1e6,
        }

    taken = bench.interleave({name: partial(load, name) for name in processes})
    case = "invoke, 16 connections"
    yield Figure("fleet", case, "requests/s", taken["rate"])
    yield Figure(
        "fleet", f"{case}, by the CPU of the gateway or host", "requests per CPU second",
        taken["per CPU second"], (Target(LOCAL, at_least=0.9, subject=FLEET),),
    )  # fmt: skip
    yield Figure(
        "fleet", f"{case}, CPU of all processes but the agent's", "µs/request",
        taken["cpu"], higher_is_better=False,
    )  # fmt: skip


def _latency(bench: Bench, local: Server, far: Fleet) -> Iterator[Figure]:
    def load(server: Server) -> float:
        return wrk.load(
            server.port, server.invoke(SMALL),
            connections=1, seconds=bench.seconds, folder=bench.folder,
        ).p50_ms  # fmt: skip

    def both() -> Samples:
        alone, through = load(local), load(far.front)
        return {"p50": through - alone, "alone": alone}

    taken = bench.interleave({"added": both})
    yield Figure(
        "fleet", "invoke, 1 connection, p50 added by the fleet", "ms", taken["p50"],
        (Target(at_most=MOST_ADDED_MS, subject="added"),), higher_is_better=False,
    )  # fmt: skip


def _stream(bench: Bench, local: Server, far: Fleet, connections: int) -> Iterator[Figure]:
    def load(server: Server, pid: int) -> Samples:
        before, start = proc.cpu_seconds(pid), time.perf_counter()
        rate = count_events(
            server.port, words(server, 1000), connections=connections, seconds=bench.seconds
        )
        cpu, seconds = proc.cpu_seconds(pid) - before, time.perf_counter() - start
        return {"chunks": rate, "cpu": cpu / (rate * seconds / 1000) * 1e6}

    taken = bench.interleave(
        {LOCAL: partial(load, local, local.pid), FLEET: partial(load, far.front, far.host.pid)}
    )
    case = f"streams of 1,000 chunks, {connections} connection{'s' * (connections > 1)}"
    yield Figure(
        "fleet", case, "chunks/s", taken["chunks"],
        (Target(LOCAL, at_least=0.4, subject=FLEET),),
    )  # fmt: skip
    yield Figure(
        "fleet", f"{case}, CPU of the gateway or host", "µs/1,000 chunks", taken["cpu"],
        higher_is_better=False,
    )  # fmt: skip


def _silent(bench: Bench, far: Fleet) -> Iterator[Figure]:
    """A neighbour of a client that asks for a long stream and reads nothing of it."""
    chunks = bench.scaled(2_000_000, 100_000)
    flood = far.front.invoke({"chunks": chunks}, agent="firehose", stream=True)

    def p50() -> float:
        return wrk.load(
            far.front.port, far.front.invoke(SMALL),
            connections=1, seconds=bench.seconds, folder=bench.folder,
        ).p50_ms  # fmt: skip

    def beside() -> Samples:
        before = [proc.resident_bytes(each.pid) for each in (far.front, far.host)]
        with closing(connect(far.front.port)) as silent:
            silent.sendall(flood.encode())
            time.sleep(FLOOD_SECONDS)
            taken = p50()
            after = [proc.resident_bytes(each.pid) for each in (far.front, far.host)]
        more = max(now - then for then, now in zip(before, after, strict=True))
        return {"p50": taken, "more": more / MIB}

    subjects = {"alone": lambda: {"p50": p50()}, "beside": beside}
    # Without a rehearsal, after which the memory of the first time would be there already.
    taken = bench.interleave(subjects, rehearse=False)
    case = f"a client that reads nothing of {chunks:,} chunks"
    yield Figure(
        "fleet", f"{case}: a neighbour's p50", "ms", taken["p50"],
        (Target("alone", at_most=2.0, subject="beside"),), higher_is_better=False,
    )  # fmt: skip
    yield Figure(
        "fleet", f"{case}: more memory in front or host", "MiB", taken["more"],
        (Target(at_most=MOST_MIB, subject="beside"),), higher_is_better=False,
    )  # fmt: skip


@contextmanager
def _fleet(folder: Path) -> Iterator[Fleet]:
    with nats_server(folder) as (pid, url):
        part = {"servers": [url]}
        with (
            servers.gateway(
                folder, agents=AGENTS, name="host", more={"fleet": {"role": "host", **part}}
            ) as host,
            servers.gateway(
                folder,
                agents={},
                name="front",
                server=UNOBSERVED,
                more={"fleet": {"role": "front", **part}},
            ) as front,
        ):
            wait_until_ready(front, AGENTS)
            yield Fleet(front, host, pid)


def wait_until_ready(front: Server, agents: Iterable[str], address: str = "127.0.0.1") -> None:
    """Wait until a front knows of these agents."""
    until = time.monotonic() + START_SECONDS
    while True:
        with Client(front.port, address=address) as client:
            if all(client.get(f"/agent/{agent}")[0] == 200 for agent in agents):
                return
        if time.monotonic() > until:
            raise StartError(f"the front has no host:\n{servers.end_of(front.log)}")
        time.sleep(0.05)


@contextmanager
def nats_server(folder: Path) -> Iterator[tuple[int, str]]:
    """A server of its own on a free port: its pid and URL."""
    program = find_program("nats-server")
    if program is None:
        raise StartError("nats-server is not installed (Debian: apt install nats-server)")
    process = subprocess.Popen(
        [program, "-a", "127.0.0.1", "-p", "-1", "-ports_file_dir", folder],
        stderr=subprocess.DEVNULL,
    )
    ports = folder / f"nats-server_{process.pid}.ports"
    try:
        while True:
            with suppress(OSError, msgspec.DecodeError):
                url: str = msgspec.json.decode(ports.read_bytes())["nats"][0]
                break
            if process.poll() is not None:
                raise StartError("nats-server did not start")
            time.sleep(0.01)
        yield process.pid, url
    finally:
        servers.end(process)


MEASURES = (
    Measure("fleet", "a front and a host on NATS beside one gateway", fleet, needs_wrk=True),
)
