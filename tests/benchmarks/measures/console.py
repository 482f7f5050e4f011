"""What the console costs while nothing happens, with and without somebody who looks at it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from tests.benchmarks import proc, servers
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.servers import START_SECONDS, UNOBSERVED, Server, StartError
from tests.benchmarks.wire import READ_BYTES, BadAnswerError, connect

REST_SECONDS = 10.0
"""Length of the rest in which processor time is counted: workers are looked at every 10 s."""

SETTLE_SECONDS = 2.0
"""From a change of what is open until processor time is counted."""

MOST_OPEN = 1.0
"""Percent of a core, for a console that one page reads."""

MOST_CLOSED = 0.1
"""Percent of a core that a console may seem to take while nobody looks: two gateways that do the
same differ by as much."""

LIVE = "/console/api/live?topics=agents,requests,log"
OFF, CLOSED, OPEN = "off", "closed", "open"


def console(bench: Bench) -> Iterator[Figure]:
    """Two gateways with agents at rest: one without a console, and one whose console is read by
    nobody, then by one page."""
    count = bench.scaled(30, 3)
    agents: Mapping[str, Mapping[str, Any]] = {
        f"agent-{number}": {"command": ["python", *servers.agent_command("echo")[1:]]}
        for number in range(count)
    }
    on = {**UNOBSERVED, "console": True}
    with (
        servers.gateway(bench.folder, agents=agents, name=OFF) as without,
        servers.gateway(bench.folder, agents=agents, server=on, name="on") as with_console,
    ):
        for server in (without, with_console):
            _wait_until_ready(server, agents)
        taken = bench.interleave(
            {
                "nobody": partial(_nobody_looks, bench, without, with_console),
                "one page": partial(_one_page, bench, with_console),
            }
        )
    closed, off = taken[CLOSED]["nobody"], taken[OFF]["nobody"]
    case = f"{count} agents at rest"
    yield Figure(
        "console", f"{case}: processor time of the gateway", "% of a core",
        {OFF: off, CLOSED: closed, OPEN: taken[OPEN]["one page"]},
        (Target(at_most=MOST_OPEN, subject=OPEN),), higher_is_better=False,
    )  # fmt: skip
    yield Figure(
        "console", f"{case}: more than without a console", "% of a core",
        {CLOSED: [more - less for more, less in zip(closed, off, strict=True)]},
        (Target(at_most=MOST_CLOSED, subject=CLOSED),), higher_is_better=False,
    )  # fmt: skip


def _nobody_looks(bench: Bench, without: Server, with_console: Server) -> Samples:
    _settle(bench)
    before = {server.pid: proc.cpu_seconds(server.pid) for server in (without, with_console)}
    start = time.perf_counter()
    time.sleep(_rest_seconds(bench))
    seconds = time.perf_counter() - start
    return {
        name: (proc.cpu_seconds(server.pid) - before[server.pid]) / seconds * 100
        for name, server in ((OFF, without), (CLOSED, with_console))
    }


def _one_page(bench: Bench, server: Server) -> Samples:
    with closing(connect(server.port)) as page:
        page.sendall(f"GET {LIVE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        text = b""
        while b"event: log" not in text:  # the last topic of the first step
            text += _receive(page)
        _settle(bench)
        before, start = proc.cpu_seconds(server.pid), time.perf_counter()
        _read_for(page, _rest_seconds(bench))
        seconds = time.perf_counter() - start
        return {OPEN: (proc.cpu_seconds(server.pid) - before) / seconds * 100}


def _read_for(page: socket.socket, seconds: float) -> None:
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(page, selectors.EVENT_READ)
        while (left := until - time.perf_counter()) > 0:
            if selector.select(left):
                _receive(page)


def _receive(page: socket.socket) -> bytes:
    data = page.recv(READ_BYTES)
    if not data:
        raise BadAnswerError("the console's live stream was cut")
    return data


def _settle(bench: Bench) -> None:
    time.sleep(0 if bench.quick else SETTLE_SECONDS)


def _rest_seconds(bench: Bench) -> float:
    return bench.seconds if bench.quick else max(bench.seconds, REST_SECONDS)


def _wait_until_ready(server: Server, agents: Iterable[str]) -> None:
    until = time.monotonic() + START_SECONDS
    while any(server.state(agent)["state"] != "ready" for agent in agents):
        if time.monotonic() > until:
            raise StartError(f"not all agents are ready:\n{servers.end_of(server.log)}")
        time.sleep(0.1)


MEASURES = (Measure("console", "agents at rest beside the console, read and unread", console),)
