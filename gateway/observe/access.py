"""The access log: one line for each request and each run, at its end.

A line has no word of a payload, unless `log_payloads` asks for it, and never a key, only its name.
Times are in seconds. What the probes of load balancers ask for, and a scrape of metrics, is logged
at the level `debug`: they come every few seconds and say nothing.

**What a line costs.** There is one per request, so it must be cheap. Where records of this log are
JSON lines and go nowhere else (`logs.json_writer`), the line is encoded as one Struct and handed to
the writer itself: by way of a `logging.LogRecord`, its handlers and its formatter, the same bytes
cost three times as much. Everywhere else, the line is a record like others.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from gateway.observe import logs
from gateway.observe.harmless import escaped_bytes

if TYPE_CHECKING:
    from gateway.observe.observation import Observation

log = logging.getLogger("gateway.access")

PROBES = frozenset({"/agent/{name}/health", "/health", "/live", "/metrics", "/ready"})

_encode = msgspec.json.Encoder().encode


class _Line(Struct, omit_defaults=True, gc=False):
    """What a line says, in this order. What is empty is left out, so that each line holds what
    there is to say. All texts are short: names of the configuration, ids, the gateway's own words.
    """

    timestamp: datetime
    level: str
    logger: str
    event: str
    request: str
    run: str | None = None
    agent: str | None = None
    key: str | None = None
    dialect: str | None = None
    handler: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    client_left: bool | None = None
    error: str | None = None
    trace: str | None = None
    total: float | None = None
    first: float | None = None
    queue: float | None = None
    pid: int | None = None
    stream: bool | None = None
    chunks: int | None = None


_OF_EVERY_RECORD = frozenset({"timestamp", "level", "logger", "event"})
"""What is not a field of the record, where there is one."""


def log_access(seen: Observation) -> None:
    """Log the end of a request or of a run; an `Observer`."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    line = _line(seen, level)
    writer = logs.json_writer(log)
    if writer is None:
        logs.event(log, level, line.event, **_fields(line))
    else:
        writer.write(escaped_bytes(_encode(line)) + b"\n", urgent=False)


def log_access_with_payloads(seen: Observation) -> None:
    """As `log_access`, with the beginnings of both bodies, where they were kept."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if log.isEnabledFor(level):
        line = _line(seen, level)
        bodies = {
            "request_body": _text(seen.request_body),
            "response_body": _text(seen.response_body),
        }
        logs.event(log, level, line.event, **_fields(line), **bodies)


def _line(seen: Observation, level: int) -> _Line:
    of_request = seen.kind == "request"
    measures = seen.measure()
    first, queued = measures.first, measures.queued
    return _Line(
        datetime.now(UTC),
        "debug" if level == logging.DEBUG else "info",
        log.name,
        "request ended" if of_request else "run ended",
        seen.request_id,
        seen.run or None,
        seen.agent or None,
        seen.key or None,
        seen.dialect or None,
        seen.handler or None,
        method=seen.method if of_request else None,
        route=(seen.route or None) if of_request else None,
        status=seen.status or None,
        bytes_in=seen.bytes_in if of_request else None,
        bytes_out=seen.bytes_out if of_request else None,
        client_left=seen.client_left or None,
        error=seen.error_type or None,
        trace=None if seen.trace is None else str(seen.trace),
        total=round(measures.total, 6),
        first=None if first is None else round(first, 6),
        queue=None if queued is None else round(queued, 6),
        pid=seen.pid,
        stream=seen.stream or None,
        chunks=measures.chunks or None,
    )


def _fields(line: _Line) -> dict[str, object]:
    return {
        name: value for name, value in structs.asdict(line).items() if name not in _OF_EVERY_RECORD
    }


def _text(body: bytes) -> str | None:
    return body.decode("utf-8", "backslashreplace") or None
