"""The access log: one line for each request and each run, at its end.

A line has no word of a payload, unless `log_payloads` asks for it, and never a key, only its name.
Times are in seconds. What the probes of load balancers ask for, a scrape of metrics, and what the
console reads, is logged at the level `debug`: they come every few seconds and say nothing.

**What a line costs.** There is one per request, so it must be cheap. Where records of this log are
JSON lines and go nowhere else (`logs.json_writer`), the lines of a batch are encoded from Structs,
together, and handed to the writer itself, and the Structs to whoever keeps lines (`logs.keepers`):
by way of a `logging.LogRecord`, its handlers and its formatter, the same bytes cost three times as
much. Everywhere else, a line is a record like others. The time of a line is when it is written.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.observe import logs
from gateway.observe.access_line import AccessLine
from gateway.observe.harmless import escaped_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.observation import Observation

log = logging.getLogger("gateway.access")

PROBES = frozenset(
    {
        *("/agent/{name}/health", "/health", "/live", "/metrics", "/ready"),
        *("/console", "/console/page/{name}", "/console/api/hello", "/console/api/live"),
        *("/console/api/agents/{name}", "/console/api/requests/{wanted}"),
    }
)

_encode_lines = msgspec.json.Encoder().encode_lines


def log_access(ended: Sequence[Observation]) -> None:
    """Log the ends of requests and runs; an `Observer`."""
    now = datetime.now(UTC)
    lines = [_line(seen, now) for seen in _logged(ended)]
    if not lines:
        return
    writer = logs.json_writer(log)
    if writer is None:
        for line in lines:
            logs.event(log, line.number, line.event, **line.fields)
        return
    writer.write(escaped_lines(_encode_lines(lines)), lines=len(lines), urgent=False)
    for keeper in logs.keepers:
        keeper.keep_lines(lines)


def log_access_with_payloads(ended: Sequence[Observation]) -> None:
    """As `log_access`, with the beginnings of both bodies, where they were kept."""
    now = datetime.now(UTC)
    for seen in _logged(ended):
        line = _line(seen, now)
        bodies = {
            "request_body": _text(seen.request_body),
            "response_body": _text(seen.response_body),
        }
        logs.event(log, line.number, line.event, **line.fields, **bodies)


def _logged(ended: Sequence[Observation]) -> Sequence[Observation]:
    """Those that are not below the log's level."""
    if log.isEnabledFor(logging.DEBUG):
        return ended
    if log.isEnabledFor(logging.INFO):
        return [seen for seen in ended if seen.route not in PROBES]
    return ()


def _line(seen: Observation, now: datetime) -> AccessLine:
    of_request = seen.kind == "request"
    first, queued = seen.first, seen.queued
    return AccessLine(
        now,
        "debug" if seen.route in PROBES else "info",
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
        _microseconds(seen.total),
        first if first is None else _microseconds(first),
        queued if queued is None else _microseconds(queued),
        seen.pid,
        seen.stream,
        seen.chunks,
    )


def _microseconds(seconds: float) -> float:
    """The seconds without what is below a microsecond, at a fifth of what `round` costs."""
    return int(seconds * 1e6 + 0.5) / 1e6


def _text(body: bytes) -> str | None:
    return body.decode("utf-8", "backslashreplace") or None
