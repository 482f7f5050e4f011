/**
 * The agent of traced.py in JavaScript: it makes a span in its caller's trace, another one within
 * that, and asks a service meanwhile.
 *
 * Its spans go to the collector as its service, which is all that it can reach.
 */
import { context, propagation, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { Agent } from "agent-gateway-worker";

context.setGlobalContextManager(new AsyncLocalStorageContextManager());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
trace.setGlobalTracerProvider(
  new TracerProvider({
    resource: resourceFromAttributes({ "service.name": "traced" }),
    spanProcessors: [new SimpleSpanProcessor({ exporter: new OTLPTraceExporter() })],
  }),
);
const tracer = trace.getTracer("traced");

/** Calls `run` in a span that is active meanwhile, and ends with it. */
function spanned(name, run) {
  return tracer.startActiveSpan(name, async (span) => {
    try {
      return await run();
    } finally {
      span.end();
    }
  });
}

export const agent = new Agent("traced", { concurrency: 2 });

agent.invoke((what, { traceparent, tracestate }) => {
  const carrier = { traceparent, tracestate };
  return context.with(propagation.extract(context.active(), carrier), () =>
    spanned("think", async () => {
      const headers = {};
      await spanned("look up", async () => {
        propagation.inject(context.active(), headers);
        await (await fetch(`${process.env.STUB_BASE_URL}/${what}`, { headers })).text();
      });
      return { ...carrier, sent: headers };
    }),
  );
});

agent.chat(async function* (_messages, { traceparent, tracestate }) {
  const caller = propagation.extract(ROOT_CONTEXT, { traceparent, tracestate });
  const span = tracer.startSpan("say", {}, caller);
  try {
    yield "one ";
    yield "two";
  } finally {
    span.end();
  }
});
