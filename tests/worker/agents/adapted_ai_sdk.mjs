// An agent of the Vercel AI SDK behind `agent-gateway-worker/ai-sdk`, with a scripted model.

import { Agent } from "agent-gateway-worker";
import { approvals, clientTools, events, modelMessages } from "agent-gateway-worker/ai-sdk";
import { jsonSchema, stepCountIs, streamText, tool } from "ai";
import { MockLanguageModelV4 } from "ai/test";

const USAGE = {
  inputTokens: { total: 5, noCache: 1, cacheRead: 4, cacheWrite: 0 },
  outputTokens: { total: 2, text: 1, reasoning: 1 },
};

const call = (toolCallId, toolName, input) => ({
  type: "tool-call",
  toolCallId,
  toolName,
  input: JSON.stringify(input),
});

/** What the model says next, by the last part of what it was told. */
function script(prompt) {
  const last = prompt.at(-1).content.at(-1);
  if (last.type === "tool-result") {
    if (last.toolName === "find") return ["see. ", call("c2", "weather", { city: "Rome" })];
    return [`It is ${last.output.value}.`];
  }
  if (last.text === "Weather?") return [call("c2", "weather", { city: "Rome" })];
  if (last.text === "Delete it.") return [call("c3", "remove", { n: 1 })];
  if (last.text === "Break.") return [call("c4", "fail", {})];
  if (last.type === "file") return [`A ${last.mediaType}.`];
  if (last.text === "Draw.") return [{ type: "file", mediaType: "image/png", data: { type: "data", data: "YWJj" } }];
  if (last.text === "Take long.") return ["Well, ", { type: "time is up" }];
  if (last.text === "Fail.") throw new Error("the model is out of order");
  return [{ type: "reasoning", text: "Where? " }, "Let me ", call("c1", "find", { user: "Ada" })];
}

async function* stream(prompt) {
  yield { type: "stream-start", warnings: [] };
  let called = false;
  let id = 0;
  for (const part of script(prompt)) {
    id++;
    if (part.type === "time is up") {
      timeLimit.abort(new Error("the time is up"));
      await new Promise(() => {});
    }
    if (typeof part === "string" || part.type === "reasoning") {
      const type = typeof part === "string" ? "text" : "reasoning";
      yield { type: `${type}-start`, id: `${id}` };
      yield { type: `${type}-delta`, id: `${id}`, delta: part.text ?? part };
      yield { type: `${type}-end`, id: `${id}` };
    } else {
      called ||= part.type === "tool-call";
      yield part;
    }
  }
  const unified = called ? "tool-calls" : "length";
  yield { type: "finish", finishReason: { unified, raw: unified }, usage: USAGE };
}

/** A limit of the agent's own, beside the caller's. */
const timeLimit = new AbortController();

const model = new MockLanguageModelV4({
  doStream: async ({ prompt }) => ({ stream: ReadableStream.from(stream(prompt)) }),
});

const object = jsonSchema({ type: "object" });
const own = {
  find: tool({ inputSchema: object, execute: ({ user }) => `${user} is in Rome` }),
  remove: tool({ inputSchema: object, needsApproval: true, execute: ({ n }) => `gone, all ${n}` }),
  fail: tool({
    inputSchema: object,
    execute: () => {
      throw new Error("no luck");
    },
  }),
};

/** Messages of runs that wait for an approval, by conversation. */
const waiting = new Map();

export const agent = new Agent("ai-sdk", { tools: true, asks: true, modes: ["text", "image"] });

agent.chat(async function* (messages, ctx) {
  const decided = approvals(ctx);
  const before = decided ? waiting.get(ctx.conversationId) : modelMessages(messages);
  const run = streamText({
    model,
    messages: decided ? [...before, decided] : before,
    allowSystemInMessages: true, // those of the caller
    tools: { ...own, ...clientTools(ctx, jsonSchema) },
    stopWhen: stepCountIs(5),
    abortSignal: AbortSignal.any([ctx.signal, timeLimit.signal]),
    maxRetries: 0,
    onError: () => {},
  });
  yield* events(run);
  if (timeLimit.signal.aborted) return; // the run has no response then
  waiting.set(ctx.conversationId, [...before, ...(await run.response).messages]);
});
