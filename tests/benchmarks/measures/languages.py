"""The SDK for TypeScript beside the one for Python, behind one gateway, on the newest Node."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median

from gateway.sandbox import Level, SandboxSettings, make_launcher
from gateway.sandbox.launch import Launcher
from tests.benchmarks import servers, wrk
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.requests import SMALL
from tests.benchmarks.measures.workers import spawn_to_ready
from tests.benchmarks.servers import AGENTS, ROOT
from tests.benchmarks.wire import Request, count_events
from tests.javascript import RUNTIMES

NODE = str(RUNTIMES["node24"])
TYPESCRIPT = [NODE, str(ROOT / "worker" / "typescript" / "main.js"), str(AGENTS / "echo.mjs")]
PYTHON = "the SDK for Python"
CONNECTIONS = 16


def typescript(bench: Bench) -> Iterator[Figure]:
    """Requests, chunks and starts of an agent in TypeScript; the series *gateway* is that agent."""
    agents = {"echo": {}, "words": {"concurrency": 8}, "typescript": {"command": TYPESCRIPT}}
    with servers.gateway(bench.folder, agents=agents) as server:

        def requests(agent: str) -> Samples:
            load = wrk.load(
                server.port, server.invoke(SMALL, agent=agent), connections=CONNECTIONS,
                seconds=bench.seconds, folder=bench.folder,
            )  # fmt: skip
            return {"rate": load.per_second}

        def chunks(agent: str) -> Samples:
            request: Request = server.invoke({"chunks": 1000}, agent=agent, stream=True)
            seconds = bench.seconds
            return {"rate": count_events(server.port, request, connections=1, seconds=seconds)}

        for case, unit, work, python, least in (
            (f"invoke, {CONNECTIONS} connections", "requests/s", requests, "echo", 0.9),
            ("1,000 chunks, 1 connection", "chunks/s", chunks, "words", 1.0),
        ):
            subjects = {"gateway": partial(work, "typescript"), PYTHON: partial(work, python)}
            yield Figure(
                "typescript", case, unit, bench.interleave(subjects)["rate"],
                (Target(PYTHON, at_least=least),),
            )  # fmt: skip
    yield _spawn(bench)


def _spawn(bench: Bench) -> Figure:
    subjects: Mapping[str, Callable[[], float]] = {
        "gateway": partial(spawn_to_ready, _launcher("off")),
        "in the strict sandbox": partial(spawn_to_ready, _launcher("strict")),
        "bare node": _bare_node,
    }
    times = bench.scaled(10, 2)
    taken = bench.interleave(
        {name: partial(_typical, one, times) for name, one in subjects.items()}
    )
    return Figure(
        "typescript", "spawn to ready, without a sandbox", "ms", taken["ms"],
        (Target("bare node", at_most=1.5),), higher_is_better=False,
        note="bare node: node -e 0, to its end; what the sandbox adds is in `spawn`",
    )  # fmt: skip


def _launcher(level: Level) -> Launcher:
    return make_launcher(
        "typescript", TYPESCRIPT, SandboxSettings(),
        level=level, environ=os.environ, cwd=str(ROOT),
    )  # fmt: skip


def _typical(once: Callable[[], float], times: int) -> Samples:
    return {"ms": median(once() for _ in range(times)) * 1000}


def _bare_node() -> float:
    start = time.perf_counter()
    subprocess.run([NODE, "-e", "0"], check=True)
    return time.perf_counter() - start


MEASURES = (
    Measure(
        "typescript", "the SDK for TypeScript beside that for Python", typescript, needs_wrk=True
    ),
)
