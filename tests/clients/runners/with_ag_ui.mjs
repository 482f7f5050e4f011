/** AG-UI's own client: `HttpAgent`, which verifies every event and its place. In two versions: the
 * older one is the one that CopilotKit's runtime has within it. */

import * as current from "@ag-ui/client";
import * as before from "@ag-ui/client-0.0";
import { MAX_STEPS, PICTURE, SECONDS, serve, TOOL } from "./runner.mjs";

const [base] = process.argv.slice(2);
const CLIENTS = { current, before };

/** What the client would have to mend or to drop: nothing of a gateway's. */
const warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));

function content(order) {
  if (!order.image) return order.text;
  const [, mimeType, value] = /^data:(.*);base64,(.*)$/.exec(PICTURE);
  const source = { type: "data", value, mimeType };
  return [
    { type: "text", text: order.text },
    { type: "image", source },
  ];
}

/** Notes what comes of one run, and how it ended. */
class Listener {
  constructor(order, reply, agent) {
    Object.assign(this, { order, reply, agent, pending: [], interrupts: [] });
  }

  onTextMessageContentEvent({ event }) {
    this.reply.say(event.delta);
    if (this.order.do === "leave") this.agent.abortRun();
  }

  onReasoningMessageContentEvent({ event }) {
    this.reply.reasoning += event.delta;
  }

  onStepStartedEvent({ event }) {
    this.reply.statuses.push(event.stepName);
  }

  onCustomEvent({ event }) {
    const { name, mime, data } = event.value;
    if (event.name === "file") this.reply.files.push([name, mime, data]);
  }

  onRunErrorEvent({ event }) {
    if (event.code !== "abort") this.reply.fail(event.code, event.message);
  }

  onRunFinishedEvent({ event, interrupts, pendingToolCallIds }) {
    this.reply.finish = event.metadata?.finish ?? event.outcome.type;
    this.reply.spent(event.usage?.[0].inputTokens, event.usage?.[0].outputTokens);
    this.interrupts = interrupts ?? event.outcome.interrupts ?? [];
    this.reply.asks.push(...this.interrupts.map((each) => each.message));
    this.pending = event.outcome.pendingToolCallIds;
    // What the client takes for its own is what the gateway says is its own.
    if (this.pending && String(this.pending) !== String(pendingToolCallIds)) {
      throw new Error(`pending: ${this.pending}, and the client finds ${pendingToolCallIds}`);
    }
  }
}

/** Whether a call is left to the client: the older one is not told, and takes those without a
 * result. */
function isPending(listener, call) {
  if (listener.interrupts.length) return false;
  return listener.pending ? listener.pending.includes(call.id) : call.result === undefined;
}

/** The tool calls in new messages, each with what was returned for it. */
function callsIn(messages) {
  const results = new Map(
    messages.filter((each) => each.role === "tool").map((each) => [each.toolCallId, each.content]),
  );
  return messages
    .flatMap((each) => each.toolCalls ?? [])
    .map((call) => ({ ...call, result: results.get(call.id) }));
}

async function carryOut(order, reply) {
  const agent = new CLIENTS[order.api].HttpAgent({
    url: `${base}/ag-ui/${order.model}`,
    headers: { Authorization: `Bearer ${order.key}` },
    initialMessages: [{ id: "m1", role: "user", content: content(order) }],
  });
  const tools = order.tools ? [TOOL] : [];
  let resume;
  for (let step = 0; step < MAX_STEPS; step++) {
    const listener = new Listener(order, reply, agent);
    const abortController = new AbortController();
    const clock = setTimeout(() => abortController.abort(), SECONDS * 1000);
    let newMessages = [];
    try {
      ({ newMessages } = await agent.runAgent({ tools, resume, abortController }, listener));
    } catch (error) {
      if (error.name !== "AbortError") reply.caught(error);
      break;
    } finally {
      clearTimeout(clock);
    }
    let left = 0;
    for (const call of callsIn(newMessages)) {
      const { id, function: called, result } = call;
      if (isPending(listener, call)) {
        const content = reply.call(called.name, called.arguments);
        agent.addMessage({ id: `of-${id}`, role: "tool", toolCallId: id, content });
        left += 1;
      } else {
        reply.own.push([called.name, JSON.parse(called.arguments), result]);
      }
    }
    resume = undefined;
    if (order.answer && listener.interrupts.length) {
      resume = listener.interrupts.map(({ id }) => ({
        interruptId: id,
        status: "resolved",
        payload: order.answer,
      }));
    }
    if (!left && !resume) break;
  }
  if (Object.keys(agent.state).length) reply.state = agent.state;
  if (warnings.length) throw new Error(warnings.splice(0).join("\n"));
}

await serve(["@ag-ui/client", "@ag-ui/client-0.0"], carryOut);
