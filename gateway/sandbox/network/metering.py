"""What an agent's network has done: sums of its processes' records, and their lines in the log.

The status, the metrics and the budgets of new processes read the sums. The processes talk to agents
and to strangers, so that their records are not trusted: they are bounded in size, in rate and in
the names that they may introduce.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from gateway.observe import logs
from gateway.observe.metrics.readings import TrafficReading
from gateway.readiness import readable
from gateway.sandbox.network.audit import (
    ALLOWED_BURST,
    ALLOWED_PER_SECOND,
    MAX_PACKET,
    MAX_SUMS,
    OTHERS_BURST,
    OTHERS_PER_SECOND,
    Rate,
    Record,
    read_record,
)
from gateway.sandbox.network.budget import day_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.config.services import Service

log = logging.getLogger("gateway.agent")

MAX_SERVICES = 256
"""Services of an agent that are counted by name. Its settings name fewer; what its process names is
not trusted."""
PACKETS_AT_ONCE = 64
"""Records that are read before other tasks have their turn."""
PAUSE = 0.01
"""Seconds until the next records after as many as that: thousands a second, and no flood. What does
not fit meanwhile, the processes sum up (`audit`)."""

LINES_PER_SECOND = ALLOWED_PER_SECOND + OTHERS_PER_SECOND + MAX_SUMS
LINES_BURST = ALLOWED_BURST + OTHERS_BURST
"""Records of a process that are logged: as many as an honest one sends."""

MOST_HELD = LINES_BURST + 5 * LINES_PER_SECOND
"""Records of a process that ends: as many as an honest one sends in the seconds that this may take
(`proxy.STOP_TIMEOUT`)."""

_UNNAMED = "(others)"
"""What was asked for by no name of a service, and services beyond `MAX_SERVICES`."""


@dataclass(slots=True)
class Sums:
    """What was decided of one service, or of the hosts of `network` together. Numbers only grow."""

    requests: int = 0
    """Those that were passed on."""
    refused: int = 0
    failed: int = 0
    sent: int = 0
    """Bytes from the agent."""
    received: int = 0
    seconds: float = 0.0
    """Of all requests that were recorded one by one."""
    tokens_in: int = 0
    tokens_out: int = 0
    without_usage: int = 0
    """Requests whose answers said nothing of tokens."""

    def add(self, record: Record) -> None:
        if record.verdict == "allowed":
            self.requests += record.count
        elif record.verdict == "refused":
            self.refused += record.count
        else:
            self.failed += record.count
        self.sent += record.sent
        self.received += record.received
        self.seconds += record.duration
        self.tokens_in += record.tokens_in or 0
        self.tokens_out += record.tokens_out or 0
        if record.verdict == "allowed" and record.tokens_in is record.tokens_out is None:
            self.without_usage += record.count


@dataclass(slots=True)
class Meter:
    """The sums of one agent, for as long as it is served: whatever launchers it has had."""

    services: dict[str, Sums] = field(default_factory=dict)
    network: Sums = field(default_factory=Sums)
    budgets: dict[str, int] = field(default_factory=dict)
    """`tokens_per_day` of the services that have it."""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    """Of the agent's workers, each of which takes one: no two have the same, whatever the launcher
    that started them."""
    _serving: dict[int, tuple[str | None, float]] = field(default_factory=dict)
    """By the worker's number, the last request that it was given, None if it had others then, and
    when."""
    _charged: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By service, the day and the tokens that its budget was charged on it."""

    def add(self, record: Record, at: float) -> None:
        """Add a record that came at the Unix time `at`, in seconds."""
        if record.at == "network":
            self.network.add(record)
            return
        name = record.name or _UNNAMED
        if name not in self.services and len(self.services) >= MAX_SERVICES:
            name = _UNNAMED
        self.services.setdefault(name, Sums()).add(record)
        if record.charged:
            day, before = self._charged.get(name, (0, 0))
            today = day_of(at)
            self._charged[name] = (today, record.charged + (before if day == today else 0))

    def serves(self, worker: int, request: str, *, alone: bool) -> None:
        """A worker was given a request; `alone`: it has no other."""
        self._serving[worker] = (request if alone else None, time.monotonic())

    def forget(self, worker: int) -> None:
        """A worker has ended."""
        self._serving.pop(worker, None)

    def request_of(self, record: Record) -> str | None:
        """The request on whose behalf something was asked for; None where it may be another one's.

        It is that of the worker's last request if there was no other from before the record's
        beginning on.
        """
        request, at = self._serving.get(record.worker, (None, 0.0))
        return request if at <= record.began else None

    def set_budgets(self, services: Iterable[Service]) -> None:
        """Take over the limits of the agent's services, which may have changed."""
        budgets = {each.name: each.settings.tokens_per_day for each in services}
        self.budgets = {name: tokens for name, tokens in budgets.items() if tokens}

    def spent(self) -> dict[str, tuple[int, int]]:
        """By service, the day and its tokens so far: what a new process goes on with."""
        return dict(self._charged)

    def read(
        self, names: Iterable[str], at: float
    ) -> tuple[dict[str, TrafficReading], TrafficReading]:
        """The sums at the Unix time `at`: of the services of these names, with one entry for all
        others if there were any, and of `network`."""
        own = {name: self.services.get(name, Sums()) for name in names}
        others = [astuple(sums) for name, sums in self.services.items() if name not in own]
        if others:
            own[_UNNAMED] = Sums(*map(sum, zip(*others, strict=True)))
        return {
            name: _reading(sums, self._spent_on(name, at), self.budgets.get(name))
            for name, sums in own.items()
        }, _reading(self.network, 0, None)

    def _spent_on(self, name: str, at: float) -> int:
        """The tokens that a service's budget was charged on the day of `at`."""
        day, tokens = self._charged.get(name, (0, 0))
        return tokens if day == day_of(at) else 0

    def describe(self, at: float) -> dict[str, Any]:
        """The sums as plain values, ready for JSON, at the Unix time `at`."""
        return {
            "services": {
                name: self._describe_service(name, at)
                for name in {**dict.fromkeys(self.budgets), **self.services}
            },
            "network": _describe(self.network),
        }

    def _describe_service(self, name: str, at: float) -> dict[str, Any]:
        sums = self.services.get(name, Sums())
        return _describe(sums) | {
            "tokens": {"input": sums.tokens_in, "output": sums.tokens_out},
            "without_usage": sums.without_usage,
            "tokens_today": self._spent_on(name, at),
            "tokens_per_day": self.budgets.get(name),
        }


def _describe(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "refused": sums.refused,
        "failed": sums.failed,
        "sent": sums.sent,
        "received": sums.received,
    }


def _reading(sums: Sums, today: int, per_day: int | None) -> TrafficReading:
    return TrafficReading(
        requests={"allowed": sums.requests, "refused": sums.refused, "failed": sums.failed},
        sent=sums.sent,
        received=sums.received,
        seconds=sums.seconds,
        tokens={"input": sums.tokens_in, "output": sums.tokens_out},
        tokens_today=today,
        tokens_per_day=per_day,
    )


class RecordReader:
    """Reads the records of an agent's process, of which each is added to the sums and logged.

    `run` does that while the process runs. What it has sent last is taken out of the socket by
    whoever ends it (`hold`), and is added by `settle`: records of a process that has ended count,
    and the budgets of the next one know of them.
    """

    def __init__(self, descriptor: int, meter: Meter, agent: str) -> None:
        """`descriptor` is of a socket of packets, and must not block."""
        self.descriptor = descriptor
        self._meter = meter
        self._agent = agent
        self._held: deque[bytes] = deque()
        self._lines = Rate(LINES_PER_SECOND, LINES_BURST)
        self._left_out = 0

    def __repr__(self) -> str:
        return f"<RecordReader {self._agent}, {len(self._held)} held>"

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await readable(self.descriptor)
            packets = list(_packets(self.descriptor, PACKETS_AT_ONCE))
            for packet in packets:
                self._add(packet)
            if len(packets) == PACKETS_AT_ONCE:
                await trio.sleep(PAUSE)

    def hold(self) -> bool:
        """Take what was sent so far out of the socket. Returns whether there is room for more.

        Does not block. May be called in any thread while `run` is not running.
        """
        self._held.extend(_packets(self.descriptor, MOST_HELD - len(self._held)))
        return len(self._held) < MOST_HELD

    def settle(self) -> None:
        """Add what was held."""
        while self._held:
            self._add(self._held.popleft())

    def forget(self) -> None:
        """Discard what was sent so far."""
        self.hold()
        self._held.clear()

    def _add(self, packet: bytes) -> None:
        if (record := read_record(packet)) is not None:
            self._meter.add(record, time.time())
        if not self._lines.take(time.monotonic()):
            self._left_out += 1
            return
        if self._left_out:
            message = f"{self._left_out} records of the network were not logged"
            logs.event(log, logging.ERROR, message, agent=self._agent)
            self._left_out = 0
        if record is None:
            message = "a record of the network is unreadable"
            logs.event(log, logging.ERROR, message, agent=self._agent)
        else:
            _log(record, self._agent, self._meter.request_of(record))


def _packets(descriptor: int, most: int) -> Iterable[bytes]:
    for _ in range(most):
        try:
            yield os.read(descriptor, MAX_PACKET)
        except BlockingIOError:
            break


def _log(record: Record, agent: str, request: str | None) -> None:
    allowed, single = record.verdict == "allowed", record.count == 1
    logs.event(
        log,
        logging.INFO if allowed else logging.WARNING,
        _message(record),
        count=None if single else record.count,
        **{record.at: record.name or None},
        method=None if allowed else record.method or None,  # else they are the message
        path=None if allowed else record.path or None,
        rule=record.rule or None,
        status=record.status or None,
        sent=record.sent,
        received=record.received,
        tokens_in=record.tokens_in,
        tokens_out=record.tokens_out,
        seconds=round(record.duration, 3) if single else None,
        request=request,
        agent=agent,  # last, as in all records of an agent's helpers
    )


def _message(record: Record) -> str:
    asked = " ".join(filter(None, (record.method, record.path))) or record.at
    if record.verdict == "allowed":
        why = f", {record.why}" if record.why else ""
        return f"{asked}{why}" if record.count == 1 else f"further requests in sum: {asked}{why}"
    said = f"{record.verdict}: {record.why}"
    return said if record.count == 1 else f"further ones in sum, such as {said}"
