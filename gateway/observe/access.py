"""The access log: one line for each request and each run, at its end.

A line has no word of a payload, unless `log_payloads` asks for it, and never a key, only its name.
Times are in seconds. What the probes of load balancers ask for, a scrape of metrics, and what the
console reads, is logged at the level `debug`: they come every few seconds and say nothing.

**What a line costs.** There is one per request, so it must be cheap. Where records of this log are
JSON lines and go nowhere else (`logs.json_writer`), the line is encoded as one Struct and handed to
the writer itself, and the Struct to whoever keeps lines (`logs.keepers`): by way of a
`logging.LogRecord`, its handlers and its formatter, the same bytes cost three times as much.
Everywhere else, the line is a record like others.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.observe import logs
from gateway.observe.access_line import AccessLine
from gateway.observe.harmless import escaped_bytes

if TYPE_CHECKING:
    from gateway.observe.observation import Observation

log = logging.getLogger("gateway.access")

PROBES = frozenset(
    {
        *("/agent/{name}/health", "/health", "/live", "/metrics", "/ready"),
        *("/console", "/console/page/{name}", "/console/api/hello", "/console/api/live"),
        *("/console/api/agents/{name}", "/console/api/requests/{wanted}"),
    }
)

_encode = msgspec.json.Encoder().encode


def log_access(seen: Observation) -> None:
    """Log the end of a request or of a run; an `Observer`."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    line = _line(seen, level)
    writer = logs.json_writer(log)
    if writer is None:
        logs.event(log, level, line.event, **line.fields)
        return
    writer.write(escaped_bytes(_encode(line)) + b"\n", urgent=False)
    for keeper in logs.keepers:
        keeper.keep_line(line)


def log_access_with_payloads(seen: Observation) -> None:
    """As `log_access`, with the beginnings of both bodies, where they were kept."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if log.isEnabledFor(level):
        line = _line(seen, level)
        bodies = {
            "request_body": _text(seen.request_body),
            "response_body": _text(seen.response_body),
        }
        logs.event(log, level, line.event, **line.fields, **bodies)


def _line(seen: Observation, level: int) -> AccessLine:
    of_request = seen.kind == "request"
    measures = seen.measure()
    first, queued = measures.first, measures.queued
    return AccessLine(
        datetime.now(UTC),
        "info" if level == logging.INFO else "debug",
        log.name,
        "request ended" if of_request else "run ended",
        seen.request_id,
        seen.run,
        seen.agent,
        seen.key,
        seen.dialect,
        seen.handler,
        seen.method,
        seen.route if of_request else "",
        seen.status,
        seen.bytes_in if of_request else None,
        seen.bytes_out if of_request else None,
        seen.client_left,
        seen.error_type,
        "" if seen.trace is None else str(seen.trace),
        round(measures.total, 6),
        first if first is None else round(first, 6),
        queued if queued is None else round(queued, 6),
        seen.pid,
        seen.stream,
        measures.chunks,
    )


def _text(body: bytes) -> str | None:
    return body.decode("utf-8", "backslashreplace") or None
