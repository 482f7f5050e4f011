"""Scrapes: what is counted, as the text that Prometheus reads.

# Theory of operation

To write the text takes about 1.5 ms for each busy agent, which is done in a thread. There is one
rendering at a time: scrapes that come meanwhile and ask for the same format share its text, so
that any number of scrapers costs one thread, one copy and one rendering after the other. Whoever
renders does it for all: if its client leaves, the thread goes on to its end.

The memory of workers is not kept by anybody, but has to be asked from the kernel, process by
process. That is done in a thread as well, and at most every `MEMORY_SECONDS`.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import trio
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from gateway.observe.metrics.families import families
from gateway.observe.metrics.loop_delay import LoopDelay
from gateway.observe.metrics.readings import Readings
from gateway.observe.metrics.requests import RequestSums

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from gateway.observe.metrics.readings import (
        AgentReading,
        ConnectionsReading,
        FleetReading,
        RunsReading,
    )

MEMORY_SECONDS = 10.0
"""Between two looks at the memory of workers, which takes up to a millisecond for each of them."""

OPENMETRICS = "application/openmetrics-text"


class Sources(NamedTuple):
    """Where the values of the moment come from. All but `memory` answer at once."""

    agents: Callable[[], list[AgentReading]]
    streams: Callable[[], Mapping[str, int]]
    memory: Callable[[], Awaitable[Mapping[str, int]]]
    connections: Callable[[], ConnectionsReading]
    runs: Callable[[], RunsReading]
    log_dropped: Callable[[], int]
    names: Callable[[], Collection[str]]
    """Of the agents that there are."""
    fleet: Callable[[], FleetReading | None] = lambda: None
    keys: Callable[[], Collection[str]] = tuple
    """The names of the keys that there are."""
    catch_up: Callable[[], None] = lambda: None
    """Has all requests that have ended counted."""


class Text(NamedTuple):
    """What a scrape is answered with."""

    body: bytes
    content_type: str


class Metrics:
    """The metrics of one gateway. `run` must be running for the event loop's delay to be known."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._requests = RequestSums()
        self.observe = self._requests.observe
        """An `Observer` of requests."""
        self._delay = LoopDelay()
        self.run = self._delay.run
        self._memory: Mapping[str, int] = {}
        self._memory_due = 0.0
        self._version = version("agent-gateway")
        self._lock = trio.Lock()
        self._renderings: dict[bool, _Rendering] = {}
        """Those under way, of which one has the lock, by whether they are OpenMetrics."""

    async def scrape(self, accept: str) -> Text:
        """All metrics, in the format that the header `Accept` asks for: OpenMetrics or
        Prometheus' own."""
        openmetrics = OPENMETRICS in accept
        while True:
            rendering = self._renderings.get(openmetrics)
            if rendering is None:
                return await self._render(openmetrics=openmetrics)
            await rendering.over.wait()
            if rendering.text is not None:
                return rendering.text

    async def _render(self, *, openmetrics: bool) -> Text:
        rendering = self._renderings[openmetrics] = _Rendering()
        try:
            async with self._lock:
                memory = await self._measure()
                write = partial(_write, self._read(memory), self._version, openmetrics=openmetrics)
                rendering.text = await _in_thread(write)
            return rendering.text
        finally:
            del self._renderings[openmetrics]
            rendering.over.set()

    async def _measure(self) -> Mapping[str, int]:
        now = trio.current_time()
        if now >= self._memory_due:
            self._memory_due = now + MEMORY_SECONDS
            self._memory = await self._sources.memory()
        return self._memory

    def _read(self, memory: Mapping[str, int]) -> Readings:
        """What is known at this moment. Forgets what no longer belongs to anybody."""
        sources = self._sources
        sources.catch_up()
        agents = sources.agents()
        self._requests.keep(sources.names())
        self._requests.keep_keys(sources.keys())
        return Readings(
            requests=self._requests.read(),
            keys=self._requests.read_keys(),
            agents=agents,
            streams=sources.streams(),
            memory=memory,
            connections=sources.connections(),
            runs=sources.runs(),
            log_dropped=sources.log_dropped(),
            loop_delay=self._delay.seconds.copy(),
            fleet=sources.fleet(),
        )


class _Rendering:
    """One that is under way, or waits for its turn."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.text: Text | None = None
        """None as well where it was given up."""


class _Collector:
    """Readings as prometheus_client takes them."""

    def __init__(self, readings: Readings, version: str) -> None:
        self._readings = readings
        self._version = version

    def collect(self) -> Iterator[Metric]:
        return families(self._readings, self._version)


def _write(readings: Readings, version: str, *, openmetrics: bool) -> Text:
    registry = CollectorRegistry()
    registry.register(_Collector(readings, version))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    # Not the client's own words: any version that they name would stand in the response.
    encode, content_type = choose_encoder(OPENMETRICS if openmetrics else "")
    return Text(encode(registry), content_type)


async def _in_thread(write: Callable[[], Text]) -> Text:
    try:
        return await trio.to_thread.run_sync(write)
    except RuntimeError:  # the user may have no more threads: better late than not at all
        return write()
