"""An agent that goes on with its caller's trace: it makes a span, and asks a service within it.

Its spans go to the collector as its service, which is all that it can reach.
"""

from __future__ import annotations

import os
import urllib.request
from typing import Any

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from worker import Agent, Context

provider = TracerProvider(resource=Resource.create({"service.name": "traced"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("traced")

agent = Agent("traced")


@agent.invoke
def answer(what: str, context: Context) -> dict[str, Any]:
    carrier = {"traceparent": context.traceparent or "", "tracestate": context.tracestate or ""}
    headers: dict[str, str] = {}
    with tracer.start_as_current_span("think", propagate.extract(carrier)):
        propagate.inject(headers)
        request = urllib.request.Request(f"{os.environ['STUB_BASE_URL']}/{what}", headers=headers)
        with urllib.request.urlopen(request) as response:
            response.read()
    return {**carrier, "sent": headers}
