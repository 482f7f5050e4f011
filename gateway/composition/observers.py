"""Who is told of every request: the access log, traces and metrics, each if it is switched on."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from gateway.front.sockets import has_console
from gateway.observe import logs
from gateway.observe.access import log_access, log_access_with_payloads
from gateway.observe.batch import Batch

if TYPE_CHECKING:
    from gateway.agents.dispatcher import Dispatcher
    from gateway.composition.member import Member
    from gateway.config import CallerKeys, ServerSettings, Settings
    from gateway.front.auth import Keys
    from gateway.front.console.console import Console
    from gateway.front.console.fleet import Fleet
    from gateway.front.listen import Places
    from gateway.front.observed import Begin
    from gateway.front.runs.service import Runs
    from gateway.observe.metrics.exposition import Metrics
    from gateway.observe.observation import Observer, Tell
    from gateway.observe.traces import Traces

log = logging.getLogger("gateway")

_PAYLOADS = (
    "LOG_PAYLOADS IS ON: what callers ask and agents answer is written to this log, whatever "
    "secrets people put into it; set log_payloads = false where that is not meant"
)


class Observers:
    """The observers of one gateway. Where there are none, requests are not observed at all."""

    def __init__(self, settings: ServerSettings) -> None:
        self._told: list[Observer] = []
        self.batch = Batch(self._told)
        self._traces = _make_traces(settings)
        if self._traces is not None:
            self.add(self._traces.observe)
        if settings.log_payloads:
            logs.event(log, logging.WARNING, _PAYLOADS)
            self.add(log_access_with_payloads)
        elif settings.access_log:
            self.add(log_access)

    def add(self, observer: Observer) -> None:
        """Have an observer told."""
        self._told.append(observer)

    @property
    def tell(self) -> Tell | None:
        """Call this with each observation that has ended; None where nobody wants to know."""
        return self.batch.tell if self._told else None

    @property
    def begin(self) -> Begin | None:
        """What each request begins with."""
        return None if self._traces is None else self._traces.begin

    async def flush(self) -> None:
        """Hand out what waits, for a moment at most."""
        self.batch.catch_up()
        if self._traces is not None:
            await self._traces.flush()


def _make_traces(settings: ServerSettings) -> Traces | None:
    if settings.traced is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from gateway.observe.traces import Traces  # noqa: PLC0415 - of an extra

    return Traces(settings.traced)


def make_console(
    observers: Observers,
    dispatcher: Dispatcher,
    settings: Settings,
    keys: CallerKeys,
    addresses: list[str],
    *,
    fleet: Fleet | None = None,
) -> Console | None:
    """The console, which is also told of every request; None where there is none."""
    if not has_console(settings.server, keys, addresses):
        return None
    from gateway.front.console.console import Console  # noqa: PLC0415 - only if used

    catch_up = observers.batch.catch_up
    console = Console(dispatcher, settings, keys, addresses, catch_up=catch_up, fleet=fleet)
    observers.add(console.observe)
    return console


def make_metrics(
    observers: Observers,
    dispatcher: Dispatcher,
    runs: Runs,
    places: Places,
    keys: Keys,
    *,
    member: Member,
) -> Metrics:
    """The metrics of these, which are also told of every request."""
    from gateway.observe.metrics.exposition import Metrics, Sources  # noqa: PLC0415 - only if used

    metrics = Metrics(
        Sources(
            agents=lambda: dispatcher.readings,
            streams=lambda: dispatcher.open_streams,
            memory=dispatcher.memory,
            connections=lambda: places.reading,
            runs=lambda: runs.reading,
            log_dropped=logs.dropped,
            names=lambda: dispatcher.agents,
            fleet=lambda: member.reading,
            keys=lambda: keys.names,
            catch_up=observers.batch.catch_up,
        )
    )
    observers.add(metrics.observe)
    return metrics
