"""A field of a request's head costs what its size costs, whatever it holds.

The head of a request may have 32 KiB, and everybody waits while it is read: a reader that looks at
each pair of its bytes would take seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.front.a2a.rpc import check_version
from gateway.front.cors import Cors
from gateway.front.head import check_media_type, read_head
from gateway.front.hosts import parse_authority
from gateway.front.http1 import MAX_HEAD_BYTES
from gateway.front.runs.wishes import accepts_events, read_position, read_query, read_wish
from gateway.front.target import read_target
from gateway.front.ui.files import _DATA_URL
from gateway.observe.tracecontext import read_trace_context

CPU_SECONDS = 2.0
"""Of this process: a hundred times what is needed, and less than the square of the size takes."""

BEGINNINGS = (
    *(b"", b"a", b"a=", b'a="', b"a;", b"a,", b"a/b", b"a/b;", b"a/b;c=", b'a/b;c="', b"1.0"),
    *(b"respond-async", b"respond-async=", b'respond-async=""', b"respond-async;"),
    *(b"text/event-stream", b"text/event-stream;", b"text/event-stream;q=0."),
    *(b"application/json", b"application/json;", b"application/json;charset=", b"data:a/b;c="),
    *(b"http://", b"stream=", b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-00-"),
)
REPEATED = (
    b" ",
    b'"',
    b'""',
    b"\\",
    b"; ",
    b";a=b",
    b", ",
    b"a,",
    b"a",
    b"0",
    b"=",
    b"%2f",
    b"+a",
    b"&",
)
END = b"x"

FIELDS = (
    *(b"a2a-version", b"accept", b"content-type", b"content-encoding", b"prefer"),
    *(b"idempotency-key", b"last-event-id", b"traceparent", b"tracestate", b"x-request-id"),
)


def read_all(value: bytes) -> None:
    """Have everything read that a request's fields may be read for."""
    fields = dict.fromkeys(FIELDS, value)
    head = read_head(fields.items())
    cors = Cors(["https://page.example"])
    preflight = [
        (b"origin", b"https://page.example"),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", value),
    ]
    target = {"method": "POST", "path": "/", "raw_path": value}
    readers: tuple[Callable[[], Any], ...] = (
        lambda: read_wish({b"prefer": value}, "/"),
        lambda: read_wish({b"idempotency-key": value}, "/"),
        lambda: accepts_events(fields),
        lambda: read_position(fields),
        lambda: read_query(value, {}),
        lambda: check_media_type(head),
        lambda: parse_authority(value),
        lambda: check_version(head),
        lambda: read_trace_context({b"traceparent": value}),
        lambda: read_trace_context({b"traceparent": BEGINNINGS[-1][:-1], b"tracestate": value}),
        lambda: cors.answer_preflight({"method": "OPTIONS", "headers": preflight}),
        lambda: read_target(target),
        lambda: _DATA_URL.match(value.decode("latin-1")),
    )
    for read in readers:
        with suppress(GatewayError, UnicodeDecodeError):
            read()


@contextmanager
def cpu_seconds(most: float) -> Iterator[None]:
    """Fail if more are used: time of this process alone, however busy the machine is."""

    def fail(*_: object) -> None:
        pytest.fail(f"more than {most} s of work")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_field_takes_time_in_proportion_to_its_size(beginning: bytes) -> None:
    for repeated in REPEATED:
        count = (MAX_HEAD_BYTES - len(beginning)) // len(repeated)
        with cpu_seconds(CPU_SECONDS):
            read_all(beginning + repeated * count + END)
