"""A collector of traces, and a service that others trace themselves into: a server of the test's
own, on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECONDS = 30


@dataclass
class Span:
    """One span as it came, with the ids in hexadecimal digits."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """Takes OTLP below `/v1/traces`, and notes the fields of any other request.

    `answers` says what an export is answered with; it may wait.
    """

    def __init__(self, answers: Callable[[], int] = lambda: 200) -> None:
        self.spans: list[Span] = []
        self.requests: list[dict[str, str]] = []
        self.exports = 0
        self.answers = answers
        self._came = threading.Condition()
        self.url = ""

    def take_in(self, path: str, headers: dict[str, str], body: bytes) -> int:
        status = self.answers() if path == "/v1/traces" else 200
        with self._came:
            if path != "/v1/traces":
                self.requests.append({"path": path, **headers})
            else:
                self.exports += 1
                if status == 200:
                    self.spans += read_spans(body)
            self._came.notify_all()
        return status

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what makes the condition true."""

        def wait() -> bool:
            with self._came:
                return self._came.wait_for(condition, SECONDS)

        assert await trio.to_thread.run_sync(wait), [span.name for span in self.spans]

    def of(self, trace: str) -> dict[str, Span]:
        """The spans of a trace, by name."""
        return {span.name: span for span in self.spans if span.trace == trace}


def read_spans(body: bytes) -> Iterator[Span]:
    for each in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {item.key: item.value.string_value for item in each.resource.attributes}
        for scope in each.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=resource["service.name"],
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    state=span.trace_state,
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes={item.key: _value(item.value) for item in span.attributes},
                )


def read_body(file: BinaryIO, headers: Message) -> Iterator[bytes]:
    """The parts of a request's body, which may be chunked: OpenTelemetry for Node sends it so."""
    if headers.get("transfer-encoding") != "chunked":
        yield file.read(int(headers.get("content-length", 0)))
        return
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collector(answers: Callable[[], int] = lambda: 200) -> Iterator[Collector]:
    """Run one until the end of the block."""
    it = Collector(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = b"".join(read_body(self.rfile, self.headers))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = it.take_in(self.path, headers, body)
            self.send_response(status)
            if status == 307:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
