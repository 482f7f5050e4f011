// What the declarations allow, and what they refuse. `tsc` is the test.

import type * as agent from "../agent.js";
import * as adapter from "../ai-sdk.js";
import * as context from "../context.js";
import { Agent, Context, InvalidInput, type StandardSchema } from "../index.js";

declare const person: StandardSchema<unknown, { name: string; age: number }>;

new Agent("a", { description: "d", metadata: { version: "1" }, concurrency: 2 })
  .invoke(
    async (input, ctx) => {
      const name: string = input.name;
      const user: string | undefined = ctx.userId;
      // @ts-expect-error: the schema has no such member
      input.missing;
      return { name, user, gone: ctx.signal.aborted };
    },
    { schema: person },
  )
  .chat(async function* (messages, ctx) {
    yield `${messages.length} messages of ${ctx.conversationId}`;
  });

new Agent("b").invoke((input: { text: string }) => input.text.length);
new Agent("b").invoke((input) => input.whatever.it.may.be);
new Agent("c").chat(() => "text");
new Agent("c").chat(async () => ({ role: "assistant", content: "text" }));
new Agent("c").chat(() => new ReadableStream<string>());
new Agent("c").chat(async () => new ReadableStream<Uint8Array>());
new Agent("c").chat(function* () {
  yield new Uint8Array();
});

new Agent("e")
  .onInvoke(async (input, ctx) => ({ output: [input, ctx.userId] }))
  .onInvokeStream(async function* () {
    yield { chunk: "text" };
  })
  .onChat((messages) => ({ message: { role: "assistant", content: `${messages.length}` } }))
  .onChatStream(function* () {
    yield "text";
  });
// @ts-expect-error: the reference's handlers wrap what they return
new Agent("f").onInvoke(() => "text");
// @ts-expect-error: and what they yield
new Agent("f").onChatStream(function* () {
  yield { text: "text" };
});

// @ts-expect-error: a name is needed
new Agent();
// @ts-expect-error: concurrency is a number
new Agent("d", { concurrency: "8" });
// @ts-expect-error: a chat answers with text, a message or a stream
new Agent("d").chat(() => 7);
// @ts-expect-error: a role is one of four
new Agent("d").chat(() => ({ role: "robot", content: "x" }));
// @ts-expect-error: chunks are text or bytes
new Agent("d").chat(async function* () {
  yield 7;
});
// @ts-expect-error: no Standard Schema
new Agent("d").invoke((input) => input, { schema: {} });

new Agent("g", {
  tools: true,
  asks: true,
  modes: ["image"],
  input: { type: "string" },
  output: person,
});
new Agent("g").chat(async function* (_, ctx) {
  yield { type: "reasoning", text: `${ctx.tools[0]?.name} ${ctx.resume[0]?.payload}` };
  yield "text";
  yield { type: "tool_call", call: "1", name: "n", arguments: { a: 1 } };
  yield { type: "usage", input_tokens: 1, output_tokens: 2 };
  yield { type: "x-plan", steps: [] };
});
new Agent("g").chat(() => ({ type: "ask", id: "1", message: "?" }));
new Agent("g").chat(() => ({
  role: "assistant",
  content: null,
  tool_calls: [],
  usage: { input_tokens: 1, output_tokens: 2 },
  finish: "tool_calls",
}));
new Agent("g").chat(() => adapter.events(new ReadableStream<{ type: string }>()));
new Agent("g").onChatStream(function* () {
  yield { chunk: "text" };
  yield { type: "status", text: "…" };
});
// @ts-expect-error: kinds of content are four
new Agent("g", { modes: ["smell"] });
// @ts-expect-error: an event has its own members
new Agent("g").chat(async function* () {
  yield { type: "status", progress: 1 };
});
// @ts-expect-error: either arguments or a delta
new Agent("g").chat(async function* () {
  yield { type: "tool_call", call: "1", name: "n", arguments: {}, delta: "{}" };
});

const ctx = new Context({ userId: "u1", custom: { tenant: "acme" } });
// @ts-expect-error: what the caller sent does not change
ctx.userId = "u2";

const refusal = new InvalidInput("input.name is missing", { cause: ctx });

// The declarations describe what the modules export.
const declaredContext: typeof Context = context.Context;
const declaredInvalidInput: typeof InvalidInput = context.InvalidInput;
type Members = keyof Agent;
declare const real: agent.Agent;
const declaredMembers: Pick<agent.Agent, Members> = real;

export { declaredContext, declaredInvalidInput, declaredMembers, refusal };
