"""Requests that are refused by their heads, again and again: what their neighbours notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tests.benchmarks import servers
from tests.benchmarks.bench import Bench, Measure, Samples
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.servers import Server
from tests.benchmarks.wire import Client, connect

CLIENTS = 8
FIELDS = 20_000
HEAD = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % (b"a: b\r\n" * FIELDS)

ALONE, BESIDE = "alone", f"beside {CLIENTS} clients"


def heads(bench: Bench) -> Iterator[Figure]:
    """A client whose requests are answered, alone and beside clients whose heads are refused."""
    with servers.gateway(bench.folder) as server:
        subjects = {
            ALONE: partial(_neighbour, bench, server),
            BESIDE: partial(_beside, bench, server),
        }
        taken = bench.interleave(subjects)
    yield Figure(
        "heads", f"p50 of a neighbour's requests, heads of {FIELDS:,} fields", "ms", taken["p50"],
        (Target(ALONE, at_most=2.0, subject=BESIDE),), higher_is_better=False,
    )  # fmt: skip


def _neighbour(bench: Bench, server: Server) -> Samples:
    request = server.invoke({"question": "Is anybody there?"})
    with Client(server.port) as client:
        times = [client.timed(request) for _ in range(bench.scaled(500, 5))]
    return {"p50": percentile(times, 50) * 1000}


def _beside(bench: Bench, server: Server) -> Samples:
    with _refused_clients(server.port):
        return _neighbour(bench, server)


@contextmanager
def _refused_clients(port: int) -> Iterator[None]:
    stop, begun = threading.Event(), threading.Barrier(CLIENTS + 1)
    threads = [
        threading.Thread(target=_send_heads, args=(port, stop, begun)) for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _send_heads(port: int, stop: threading.Event, begun: threading.Barrier) -> None:
    """Be refused until told to stop, each time on a new connection."""
    begun.wait()
    while not stop.is_set():
        with connect(port) as connection, suppress(OSError):
            connection.sendall(HEAD)  # fails if the gateway closes before all of it was sent
            while connection.recv(64 * 1024):
                pass


MEASURES = (Measure("heads", "a neighbour of clients whose heads are refused", heads),)
