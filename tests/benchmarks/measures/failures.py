"""Hosts of a fleet that fail, and how soon the clients of each are told.

Two fronts and three hosts on NATS. Each failure finds streams that wait for their next word, spread
over the hosts; a sample is the time until the last stream of the failed host has its error. All of
a host's errors name it, and then every front serves the next request, else the measure fails.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks import servers
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.measures.fleet import nats_server
from tests.benchmarks.measures.streams import words
from tests.benchmarks.servers import START_SECONDS, UNOBSERVED, Server, StartError
from tests.benchmarks.wire import READ_BYTES, SECONDS, BadAnswerError, Client, connect

AGENT = "words"
FRONTS, HOSTS = ("front1", "front2"), ("host1", "host2", "host3")
FAILING = HOSTS[0]

STREAMS = 30
"""Open at a failure, in turn at each front."""

FAILURES = 3
"""Of each kind in a round, each with a sample of its own."""

KILLED, STOPPED = "kill -9", "SIGSTOP"

WORD_IS_WHOLE = b'"}\n\n\r\n'
"""The end of an event and of the chunk of the body that holds it."""


def failures(bench: Bench) -> Iterator[Figure]:
    """Kill a host and stop one, beside two others."""
    with ExitStack() as stack:
        _, url = stack.enter_context(nats_server(bench.folder))

        def start(name: str) -> Server:
            role = "front" if name in FRONTS else "host"
            return stack.enter_context(_member(bench.folder, name, role, url))

        host = start(FAILING)
        for name in HOSTS[1:]:
            start(name)
        fronts = [start(name) for name in FRONTS]

        def killed() -> Samples:
            nonlocal host
            taken = _until_told(fronts, partial(os.kill, host.pid, signal.SIGKILL))
            host = start(FAILING)
            return {"seconds": taken}

        def stopped() -> Samples:
            try:
                taken = _until_told(fronts, partial(os.kill, host.pid, signal.SIGSTOP))
            finally:
                os.kill(host.pid, signal.SIGCONT)  # a process that is stopped ends no other way
            return {"seconds": taken}

        taken = bench.interleave(
            {KILLED: killed, STOPPED: stopped}, rounds=bench.rounds * bench.scaled(FAILURES, 1)
        )
    yield Figure(
        "failures", "a host fails: until the last of its clients has an error", "s",
        taken["seconds"],
        (Target(at_most=0.3, subject=KILLED), Target(at_most=1.0, subject=STOPPED)),
        higher_is_better=False, note=f"{len(FRONTS)} fronts, {len(HOSTS)} hosts, {STREAMS} streams",
    )  # fmt: skip


def _member(folder: Path, name: str, role: str, url: str) -> AbstractContextManager[Server]:
    return servers.gateway(
        folder,
        agents={AGENT: {}} if role == "host" else {},
        server=UNOBSERVED,
        name=name,
        more={"fleet": {"role": role, "name": name, "servers": [url]}},
    )


def _until_told(fronts: Sequence[Server], fail: Callable[[], None]) -> float:
    """Seconds from a failure of the host until the last of its streams has an error."""
    for front in fronts:
        _wait_until_ready(front)
    before = sum(_hosts(front)[FAILING]["given"] for front in fronts)
    with ExitStack() as stack:
        waiting = []
        for number in range(STREAMS):
            front = fronts[number % len(fronts)]
            waiting.append(stack.enter_context(connect(front.port)))
            waiting[-1].sendall(words(front, 0).encode())
        for stream in waiting:
            _read_until(stream, WORD_IS_WHOLE)
        lost = sum(_hosts(front)[FAILING]["given"] for front in fronts) - before
        if not lost:
            raise BadAnswerError(f"{FAILING} was given none of {STREAMS} streams")
        start = time.perf_counter()
        fail()
        told = _first_told(waiting, lost)
        seconds = time.perf_counter() - start
        for stream in told:
            text = _read_until(stream, b"\n\n")
            if b"event: error" not in text or f'"host":"{FAILING}"'.encode() not in text:
                raise BadAnswerError(f"not an error of {FAILING}: {text!r}")
        for front in fronts:
            with Client(front.port) as client:
                client.timed(front.invoke({"chunks": 1}, agent=AGENT))
    return seconds


def _first_told(streams: Sequence[socket.socket], count: int) -> list[socket.socket]:
    """Wait until so many of the streams have something to read, and return these."""
    told: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ, stream)
        while len(told) < count:
            ready = selector.select(SECONDS)
            if not ready:
                raise BadAnswerError(f"{len(told)} of {count} streams of {FAILING} were told")
            for key, _ in ready:
                selector.unregister(key.data)
                told.append(key.data)
    return told


def _read_until(stream: socket.socket, end: bytes) -> bytes:
    text = b""
    while end not in text:
        data = stream.recv(READ_BYTES)
        if not data:
            raise BadAnswerError(f"a stream was cut: {text!r}")
        text += data
    return text


def _wait_until_ready(front: Server) -> None:
    """Wait until a front knows that each host has workers: only then do all get their share."""
    until = time.monotonic() + START_SECONDS
    while True:
        found = _hosts(front)
        if set(found) == set(HOSTS) and all(host["state"] == "ready" for host in found.values()):
            return
        if time.monotonic() > until:
            raise StartError(f"{front.name} has not all hosts: {found}")
        time.sleep(0.05)


def _hosts(front: Server) -> dict[str, dict[str, Any]]:
    """What a front says of the agent's hosts, by name."""
    with Client(front.port) as client:
        status, body = client.get(f"/agent/{AGENT}")
    found = msgspec.json.decode(body) if status == 200 else {}
    return {host["name"]: host for host in found.get("hosts", ())}


MEASURES = (
    Measure("failures", "until clients of a host that is killed or stopped are told", failures),
)
