"""The cost of processes: starting, keeping and losing one, and a new one for every request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from gateway.sandbox import Level, SandboxSettings, make_launcher
from gateway.sandbox.launch import Launcher
from tests.benchmarks import proc, servers
from tests.benchmarks.bench import NO_SANDBOX, Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import Server, agent_command
from tests.benchmarks.wire import BadAnswerError, Client
from tests.harness import descendants

MIB = 1 << 20
IMPORTS = "import anyio, msgspec"

SPARE_SECONDS = 30.0
"""Time for a spare worker to be ready again."""

WARM_SECONDS = 0.5
"""Time from the `ready` of a spare worker to the crash, so that it is warm, not just started."""

APART = 0.25
"""Seconds between two paced requests, so that each of two agents is asked twice a second."""


def spawn(bench: Bench) -> Iterator[Figure]:
    """From spawn to `ready`, beside an interpreter that only does the imports."""
    times = bench.scaled(10, 2)
    subjects: dict[str, Callable[[], float]] = {
        "gateway": partial(spawn_to_ready, _launcher("strict")),
        NO_SANDBOX: partial(spawn_to_ready, _launcher("off")),
        "bare python": _bare_python,
        "bare python, to the end of its imports": _bare_imports,
    }
    taken = bench.interleave(
        {name: partial(_typical, once, times) for name, once in subjects.items()}
    )["ms"]
    yield Figure(
        "spawn", "spawn to ready", "ms", taken,
        (Target("bare python", at_most=1.5),), higher_is_better=False,
        note=f'bare python: python -c "{IMPORTS}", to its end',
    )  # fmt: skip
    pairs = zip(taken["gateway"], taken[NO_SANDBOX], strict=True)
    yield Figure(
        "spawn", "what the sandbox adds to it", "ms", {"gateway": [a - b for a, b in pairs]},
        (Target(at_most=15.0),), higher_is_better=False,
    )  # fmt: skip


def _typical(once: Callable[[], float], times: int) -> Samples:
    return {"ms": median(once() for _ in range(times)) * 1000}


def _launcher(level: Level) -> Launcher:
    return make_launcher(
        "echo", agent_command("echo"), SandboxSettings(),
        level=level, environ=os.environ, cwd=str(servers.ROOT),
    )  # fmt: skip


def spawn_to_ready(launcher: Launcher) -> float:
    """Seconds until the first line, including the preparation of the sandbox."""
    start = time.perf_counter()
    with launcher.launch() as launch:
        process = subprocess.Popen(
            launch.argv, env=launch.env, cwd=launch.cwd, pass_fds=launch.pass_fds,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        assert json.loads(line)["method"] == "ready"
    return seconds


def _bare_python() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - start


def _bare_imports() -> float:
    start = time.perf_counter()
    code = f"{IMPORTS}; print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return time.perf_counter() - start


def memory(bench: Bench) -> Iterator[Figure]:
    """One worker that has answered, with the sandbox's own processes."""
    levels = {"gateway": "strict", NO_SANDBOX: "off"}
    taken = bench.interleave(
        {name: partial(_memory_of_worker, bench, name, level) for name, level in levels.items()},
        rehearse=False,
    )["MiB"]
    yield Figure("memory", "one worker (PSS)", "MiB", taken, higher_is_better=False)
    pairs = zip(taken["gateway"], taken[NO_SANDBOX], strict=True)
    yield Figure(
        "memory", "what the sandbox adds to it", "MiB", {"gateway": [a - b for a, b in pairs]},
        (Target(at_most=2.0),), higher_is_better=False,
    )  # fmt: skip


def _memory_of_worker(bench: Bench, name: str, level: str) -> Samples:
    with servers.gateway(bench.folder, sandbox=level, name=name) as server:
        with Client(server.port) as client:
            client.timed(server.invoke(1))
        (worker,) = server.state("echo")["workers"]
        pids = {worker["pid"]} | descendants(worker["pid"])
        return {"MiB": sum(proc.proportional_bytes(pid) for pid in pids) / MIB}


def crash(bench: Bench) -> Iterator[Figure]:
    """A worker dies in a request; the next request goes to the spare one."""
    times = bench.scaled(10, 2)
    # At least two workers: one serves and crashes, the other is the spare.
    with servers.gateway(bench.folder, agents={"fragile": {"workers": {"min": 2}}}) as server:
        taken = bench.interleave({"gateway": partial(_crash_some, server, times)})
    yield Figure(
        "crash", "a request right after a crash, one warm spare", "ms",
        {"gateway": taken["next"]["gateway"], "ordinary request": taken["ordinary"]["gateway"]},
        (Target("ordinary request", at_most=2.0),), higher_is_better=False,
    )  # fmt: skip
    yield Figure(
        "crash", "the request that crashes: sent to its 501", "ms", taken["crash"],
        higher_is_better=False,
    )  # fmt: skip


def _crash_some(server: Server, times: int) -> Samples:
    ordinary, crashed, after = [], [], []
    fatal, harmless = (server.invoke(value, agent="fragile") for value in ("crash", "hello"))
    for _ in range(times):
        with Client(server.port) as first, Client(server.port) as second:
            _until_spare_is_ready(server)
            first.timed(harmless)
            ordinary.append(second.timed(harmless))
            start = time.perf_counter()
            status, body = first.post(fatal)
            crashed.append(time.perf_counter() - start)
            if status != 501:
                raise BadAnswerError(f"a crash was answered with {status}: {body!r}")
            after.append(second.timed(harmless))
    return {
        "ordinary": median(ordinary) * 1000,
        "crash": median(crashed) * 1000,
        "next": median(after) * 1000,
    }


def _until_spare_is_ready(server: Server) -> None:
    until = time.monotonic() + SPARE_SECONDS
    while time.monotonic() < until:
        workers = server.state("fragile")["workers"]
        if len(workers) > 1 and all(worker["state"] == "ready" for worker in workers):
            time.sleep(WARM_SECONDS)  # ready comes before the event loop is imported
            return
        time.sleep(0.02)
    raise BadAnswerError(f"no spare worker within {SPARE_SECONDS} s: {server.state('fragile')}")


def fresh(bench: Bench) -> Iterator[Figure]:
    """A new process for every request, two requests a second."""
    agents = {
        "echo": {},
        "fresh": {
            "command": agent_command("echo"),
            "max_requests": 1,
            "workers": {"spare": 2},
        },
    }
    times = bench.scaled(20, 2)
    with servers.gateway(bench.folder, agents=agents) as server:
        taken = bench.interleave({"gateway": partial(_alternate, server, times)})
    yield Figure(
        "fresh", "a process for each request, 2 requests/s, p50", "ms",
        {"gateway": taken["fresh"]["gateway"], "ordinary request": taken["echo"]["gateway"]},
        (Target("ordinary request", at_most=1.5),), higher_is_better=False,
    )  # fmt: skip
    yield Figure(
        "fresh", "a process for each request, 2 requests/s, slowest", "ms", taken["slowest"],
        higher_is_better=False,
    )  # fmt: skip


def _alternate(server: Server, times: int) -> Samples:
    """Ask both agents in turn, twice a second each, on their own connections."""
    taken: dict[str, list[float]] = {"echo": [], "fresh": []}
    with _clients(server, list(taken)) as clients:
        for name, client in clients.items():
            client.timed(server.invoke("the first one of a worker loads things", agent=name))
        due = time.monotonic()
        for number in range(2 * times):
            due += APART
            time.sleep(max(0.0, due - time.monotonic()))  # the pace is what is measured
            name = ("echo", "fresh")[number % 2]
            taken[name].append(clients[name].timed(server.invoke("hello", agent=name)))
    return {
        **{name: median(seconds) * 1000 for name, seconds in taken.items()},
        "slowest": max(taken["fresh"]) * 1000,
    }


@contextmanager
def _clients(server: Server, names: list[str]) -> Iterator[dict[str, Client]]:
    clients = {name: Client(server.port) for name in names}
    try:
        yield clients
    finally:
        for client in clients.values():
            client.__exit__()


MEASURES = (
    Measure("spawn", "spawn to ready", spawn),
    Measure("memory", "the memory of a worker", memory),
    Measure("crash", "the request after a crash", crash),
    Measure("fresh", "a new process for every request", fresh),
)
