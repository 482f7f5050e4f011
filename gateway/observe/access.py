"""The access log: one line for each request and each run, at its end.

A line has no word of a payload, unless `log_payloads` asks for it, and never a key, only its name.
Times are in seconds. What the probes of load balancers ask for, and a scrape of metrics, is logged
at the level `debug`: they come every few seconds and say nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.observe import logs

if TYPE_CHECKING:
    from gateway.observe.observation import Observation

log = logging.getLogger("gateway.access")

PROBES = frozenset({"/agent/{name}/health", "/health", "/live", "/metrics", "/ready"})


def log_access(seen: Observation) -> None:
    """Log the end of a request or of a run; an `Observer`."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if log.isEnabledFor(level):
        logs.event(log, level, f"{seen.kind} ended", **_fields(seen))


def log_access_with_payloads(seen: Observation) -> None:
    """As `log_access`, with the beginnings of both bodies, where they were kept."""
    level = logging.DEBUG if seen.route in PROBES else logging.INFO
    if log.isEnabledFor(level):
        bodies = {
            "request_body": _text(seen.request_body),
            "response_body": _text(seen.response_body),
        }
        logs.event(log, level, f"{seen.kind} ended", **_fields(seen), **bodies)


def _fields(seen: Observation) -> dict[str, object]:
    """What is empty is left out, so that each line holds what there is to say."""
    of_request: dict[str, object] = {}
    if seen.kind == "request":
        of_request = {
            "method": seen.method,
            "route": seen.route or None,
            "status": seen.status or None,
            "bytes_in": seen.bytes_in,
            "bytes_out": seen.bytes_out,
            "client_left": seen.client_left or None,
        }
    return {
        "request": seen.request_id,
        "run": seen.run or None,
        "agent": seen.agent or None,
        "key": seen.key or None,
        "dialect": seen.dialect or None,
        "handler": seen.handler or None,
        **of_request,
        "error": seen.error_type or None,
        "trace": None if seen.trace is None else str(seen.trace),
        "total": _seconds(seen.total),
        "first": _seconds(seen.first),
        "queue": _seconds(seen.queued),
        "pid": seen.pid,
        "stream": seen.stream or None,
        "chunks": seen.chunks or None,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _text(body: bytes) -> str | None:
    return body.decode("utf-8", "backslashreplace") or None
