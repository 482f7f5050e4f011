"""Traces: the spans of each request, told to a collector by OpenTelemetry's exporter.

# Theory of operation

    POST /agent/{name}/invoke    SERVER    the request: a child of the caller's span, or a new trace
     ├ queue                     INTERNAL  until the call is given to a worker
     └ invoke_agent {name}       CLIENT    from then to the end of the response
        └ …                                the agent's own, if it goes on with `traceparent`

Whoever gets a request on must be told the id of the span that it belongs to before that span is
over, and what the span holds is known at its end. So `begin` decides the ids, and whether the trace
is recorded, and puts the worker's span in place of the caller's into the request's head, from where
it goes on to the agent. `observe` makes the three spans at the end, with these ids and with the
times that the observation holds: nothing is open meanwhile, and nothing can leak or stay open. The
spans of a call that is a run are made at the run's end.

A trace is recorded if its caller recorded it; a new one is if OTEL_TRACES_SAMPLER says so, which
is to record all. Of one that is not recorded, the ids are handed on all the same.

Spans wait in a bounded queue for a thread, which sends them. If the collector cannot be reached, or
is slower than spans are made, spans are lost and counted, and no request waits.

Imported only where traces are switched on: OpenTelemetry is an extra.
"""

from __future__ import annotations

import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any

import requests
import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway import clock
from gateway.observe import logs
from gateway.observe.access import PROBES
from gateway.observe.tracecontext import (
    PARENT,
    STATE,
    Spans,
    TraceContext,
    read_trace_context,
    trace_context,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from gateway.config.settings import TraceSettings
    from gateway.observe.observation import Observation

    Headers = Sequence[tuple[bytes, bytes]]

log = logging.getLogger("gateway.traces")

MAX_QUEUE = 2048
"""Spans that wait for the exporter, if OTEL_BSP_MAX_QUEUE_SIZE does not say otherwise."""

FLUSH_SECONDS = 2.0
"""How long the end of the gateway waits for the last spans to be sent."""

MAX_ANSWER = 64 * 1024
"""Bytes that are read of a collector's answer, which says what is wrong with spans, if anything."""

_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
"""Variables that name a package of the operator's which makes the session."""

QUIET_SECONDS = 60.0
"""Between two lines of the log that tell of lost spans."""


class Traces:
    """See the module's docstring."""

    def __init__(self, settings: TraceSettings) -> None:
        # A provider of its own for what the environment says about sampling: whether a trace is
        # recorded is decided in `begin`, and not asked for again when its spans are made.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._ids = _PlannedIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({SERVICE_NAME: _service_name()}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._exporter = CountingExporter(_exporter(settings))
        most = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUE))
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=most)
        self._most = most
        self._made = self._dropped = 0
        self._origin = 0
        """The time of day, in nanoseconds, at which running time was 0; set whenever spans are
        made, so that their times fit together though clocks are set."""
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("gateway")

    def __repr__(self) -> str:
        return f"<Traces {self._made} spans sent or waiting, {self.lost} lost>"

    @property
    def lost(self) -> int:
        """How many spans were made and never came to the collector."""
        return self._dropped + self._exporter.failed

    # A request's beginning

    def begin(self, seen: Observation, headers: Headers) -> Headers:
        """Decide about the spans of a request with these fields; returns those that it goes on
        with, which have the worker's span for its parent."""
        found: dict[bytes, bytes] = {}
        others = []
        for each in headers:
            name, value = each
            if name in {PARENT, STATE}:
                found[name] = value if name not in found else b"%b\n%b" % (found[name], value)
            else:
                others.append(each)
        parent = read_trace_context(found) if found else None
        trace = self._trace(parent)
        seen.trace = trace
        own = trace_context(trace.trace_id, trace.worker_span, None, sampled=trace.recorded)
        others.append((PARENT, own.parent.encode()))
        if trace.state is not None:
            others.append((STATE, trace.state.encode()))
        return others

    def _trace(self, parent: TraceContext | None) -> Spans:
        trace_id = _random_id(128) if parent is None else parent.trace_id
        sampled = self._sampler.should_sample(
            _context_of(parent), trace_id, "request", SpanKind.SERVER
        )
        state = sampled.trace_state
        return Spans(
            trace_id=trace_id,
            request_span=_random_id(64),
            worker_span=_random_id(64),
            parent=parent,
            recorded=sampled.decision is Decision.RECORD_AND_SAMPLE,
            state=state.to_header() or None if state is not None else None,
        )

    # Its end

    def observe(self, ended: Sequence[Observation]) -> None:
        """Make the spans of requests and runs that have ended; an `Observer`."""
        self._origin = time.time_ns() - int(clock.now() * 1e9)
        for seen in ended:
            trace = seen.trace
            if trace is not None and trace.recorded and seen.route not in PROBES:
                self._make_spans(seen, trace)

    def _make_spans(self, seen: Observation, trace: Spans) -> None:
        if seen.kind == "request":
            self._make_request_span(seen, trace)
        if seen.admitted_at is not None:
            own = trace_context(trace.trace_id, trace.request_span, trace.state, sampled=True)
            self._make_call_spans(seen, seen.admitted_at, trace, _context_of(own))

    def _make_request_span(self, seen: Observation, trace: Spans) -> None:
        attributes: dict[str, Any] = {
            "http.request.method": seen.method,
            "url.scheme": "http",
            "http.request.body.size": seen.bytes_in,
            "http.response.body.size": seen.bytes_out,
            "gateway.request_id": seen.request_id,
        }
        if seen.route:
            attributes["http.route"] = seen.route
        if seen.status:
            attributes["http.response.status_code"] = seen.status
        if seen.client_left:
            attributes["gateway.client_left"] = True
        if seen.run:
            attributes["gateway.run"] = seen.run
        if seen.key:
            attributes["gateway.key"] = seen.key
        self._make(
            trace,
            trace.request_span,
            _context_of(trace.parent),
            name=f"{seen.method} {seen.route}".rstrip(),
            kind=SpanKind.SERVER,
            times=(seen.began, seen.ended),
            attributes=attributes | _error(seen),
            # What the caller has done wrong is no error of the server's span (OpenTelemetry, HTTP).
            failed=seen.status >= 500 or (seen.error is not None and seen.error.status >= 500),
        )

    def _make_call_spans(
        self, seen: Observation, admitted: float, trace: Spans, parent: Context
    ) -> None:
        given = seen.given_at
        self._make(
            trace,
            _random_id(64),
            parent,
            name="queue",
            kind=SpanKind.INTERNAL,
            times=(admitted, seen.ended if given is None else given),
            attributes={"gen_ai.agent.name": seen.agent},
            failed=given is None and seen.error is not None,
        )
        if given is None:
            return
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": seen.agent,
            "gateway.handler": seen.handler,
            "gateway.dialect": seen.dialect,
            "gateway.stream": seen.stream,
            "gateway.chunks": seen.chunks,
        }
        if seen.pid is not None:
            attributes["process.pid"] = seen.pid
        if seen.spoke_at is not None:
            attributes["gateway.first_word"] = round(seen.spoke_at - given, 6)
        self._make(
            trace,
            trace.worker_span,
            parent,
            name=f"invoke_agent {seen.agent}",
            kind=SpanKind.CLIENT,
            times=(given, seen.ended),
            attributes=attributes | _error(seen),
            failed=seen.error is not None,
        )

    def _make(
        self,
        trace: Spans,
        span_id: int,
        parent: Context,
        *,
        name: str,
        kind: SpanKind,
        times: tuple[float, float],
        attributes: dict[str, Any],
        failed: bool,
    ) -> None:
        if self._made - self._exporter.taken >= self._most:
            self._dropped += 1
            self._exporter.tell(self.lost)
            return
        self._made += 1
        self._ids.trace_id, self._ids.span_id = trace.trace_id, span_id
        began, ended = (self._origin + int(at * 1e9) for at in times)
        span = self._tracer.start_span(name, parent, kind, attributes, start_time=began)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(ended)

    async def flush(self) -> None:
        """Send what waits, for at most `FLUSH_SECONDS`, and nothing from then on."""
        with trio.move_on_after(FLUSH_SECONDS):
            await trio.to_thread.run_sync(self._processor.force_flush, abandon_on_cancel=True)
        self._exporter.shutdown()  # ends an attempt that waits for the next one
        if self.lost:
            logs.event(log, logging.WARNING, "spans were lost", count=self.lost)


class CountingExporter(SpanExporter):
    """Counts what an exporter takes, and what does not come to the collector. Of a thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = self.failed = 0
        self._told_at = -QUIET_SECONDS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:  # the boundary: a defect there loses these spans, and no others
            log.exception("spans could not be exported")
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
            self.tell(self.failed)
        return result

    def tell(self, lost: int) -> None:
        """Log how many spans were lost so far, now and then."""
        now = time.monotonic()
        if now >= self._told_at + QUIET_SECONDS:
            self._told_at = now
            message = "spans are lost: the collector does not take them"
            logs.event(log, logging.WARNING, message, count=lost)

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _PlannedIds(IdGenerator):
    """The ids of the next span, which were decided before."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


def _context_of(parent: TraceContext | None) -> Context:
    """The context of a span's parent, which may be none."""
    if parent is None:
        return Context()
    span = SpanContext(
        parent.trace_id,
        parent.span_id,
        is_remote=True,
        trace_flags=TraceFlags(parent.sampled),
        trace_state=TraceState.from_header([parent.state]) if parent.state else None,
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _error(seen: Observation) -> dict[str, str]:
    return {"error.type": seen.error_type} if seen.error is not None else {}


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1


def _service_name() -> str:
    """What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES), or our own."""
    return str(OTELResourceDetector().detect().attributes.get(SERVICE_NAME, "agent-gateway"))


class CollectorSession(requests.Session):
    """Sends to a collector, and takes no more from it than a status.

    An answer is not read beyond `MAX_ANSWER` bytes, and never decompressed: nobody looks at it. A
    redirect is an error, or spans that nobody has got would count as sent.
    """

    def request(self, *args: Any, **options: Any) -> requests.Response:
        options |= {"allow_redirects": False, "stream": True}
        response = super().request(*args, **options)
        # Read to its end, a connection is used again.
        response.raw.read(MAX_ANSWER, decode_content=False)
        response.close()
        if response.is_redirect:
            where = response.headers["location"]
            message = f"the collector says to go to {where}: expected its address in the settings"
            raise requests.TooManyRedirects(message, response=response)
        return response


def _exporter(settings: TraceSettings) -> OTLPSpanExporter:
    names_own = any(name in os.environ for name in _CREDENTIAL_PROVIDERS)
    session = None if names_own else CollectorSession()
    return OTLPSpanExporter(endpoint=_endpoint(settings), session=session)


def _endpoint(settings: TraceSettings) -> str | None:
    """The whole URL of the collector; None: the exporter looks into the environment."""
    if not settings.endpoint:
        return None
    return f"{settings.endpoint.rstrip('/')}/v1/traces"
