// Errors, contexts, schemas, agents and the outbox.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Agent } from "../agent.js";
import { Context, readContext } from "../context.js";
import { ErrorCode, InvalidInput } from "../errors.js";
import { explain, MAX_ERROR_TEXT, trace } from "../explain.js";
import { HIGH_WATER, Outbox } from "../outbox.js";
import { readyLine } from "../run.js";
import { validate } from "../schema.js";

class NoMoney extends Error {}

for (const [thrown, message] of /** @type {[unknown, string][]} */ ([
  [new TypeError('no such "thing"'), 'TypeError: no such "thing"'],
  [new NoMoney("pay"), "NoMoney: pay"],
  [new RangeError(), "RangeError"],
  ["a string", "a string"],
  [undefined, "undefined"],
  [{ code: 7 }, "{ code: 7 }"],
  [new Error("\ud800"), "Error: \\ud800"],
  [new AggregateError([new TypeError("inside")]), "TypeError: inside"],
  [new DOMException("gone", "AbortError"), "AbortError: gone"],
])) {
  test(`an error is shown by its type and text: ${message}`, () => {
    assert.deepEqual(explain(thrown), { code: ErrorCode.INTERNAL, message });
  });
}

test("a refused input is shown by its text alone", () => {
  assert.deepEqual(explain(new InvalidInput("why")), {
    code: ErrorCode.INVALID_INPUT,
    message: "why",
  });
  assert.match(explain(new InvalidInput()).message, /refused/);
});

test("a long text is cut, and an error with defects is survived", () => {
  assert.equal(explain(new Error("x".repeat(9999))).message.length, MAX_ERROR_TEXT + 1);
  const broken = new Error("x");
  Object.defineProperty(broken, "message", {
    get() {
      throw new Error("broken");
    },
  });
  assert.equal(explain(broken).code, ErrorCode.INTERNAL);
  assert.equal(typeof trace(broken), "string");
});

test("the context tells what the caller sent", () => {
  const context = readContext({
    context: { conversation_id: "c", user_id: null, custom: { k: 1 }, other: [2] },
    request_id: "r",
    stream: true,
  });
  assert.equal(context.conversationId, "c");
  assert.equal(context.userId, undefined);
  assert.deepEqual([context.custom, context.extras], [{ k: 1 }, { other: [2] }]);
  assert.deepEqual([context.requestId, context.stream, context.signal.aborted], ["r", true, false]);
});

for (const [context, why] of /** @type {[any, RegExp][]} */ ([
  [{ user_id: 7 }, /context.user_id is a number, expected a string or null/],
  [{ conversation_id: ["c"] }, /context.conversation_id is an array/],
  [{ custom: "x" }, /context.custom is a string, expected an object or null/],
  [{ custom: [] }, /context.custom is an array/],
  ["x", /context is a string, expected an object/],
])) {
  test(`a context of wrong types is refused by name: ${JSON.stringify(context)}`, () => {
    assert.throws(() => readContext({ context }), why);
  });
}

test("the signal is aborted, whether it was asked for before or after", () => {
  for (const askBefore of [true, false]) {
    const context = new Context({ userId: "u" });
    if (askBefore) assert.equal(context.signal.aborted, false);
    const reason = new DOMException("gone", "AbortError");
    Context.abort(context, reason);
    assert.equal(context.signal.reason, reason);
  }
});

/** @param {any} result */
function schemaOf(result) {
  return {
    "~standard": { version: /** @type {const} */ (1), vendor: "test", validate: () => result },
  };
}

test("a schema's issues are shown with their paths, and no more than ten", async () => {
  const issues = [
    { message: "expected a number", path: ["items", 0, { key: "price" }] },
    { message: "required" },
  ];
  await assert.rejects(validate(schemaOf({ issues }), {}, "input"), {
    name: "InvalidInput",
    message: "input.items[0].price: expected a number; input: required",
  });
  const many = Array.from({ length: 12 }, () => ({ message: "no" }));
  await assert.rejects(validate(schemaOf({ issues: many }), {}, "input"), /and 2 more/);
  assert.equal(await validate(schemaOf(Promise.resolve({ value: 7 })), {}, "input"), 7);
});

for (const [make, why] of /** @type {[() => unknown, RegExp][]} */ ([
  [() => new Agent("no spaces"), /may hold only letters/],
  [() => new Agent("a", { concurrency: 0 }), /concurrency is 0/],
  [() => new Agent("a", { concurrency: 1.5 }), /concurrency is 1.5/],
  [() => new Agent("a", { metadata: /** @type {any} */ ([]) }), /metadata is an array/],
  [() => new Agent("a", { metadata: { n: 1n } }), /BigInt/],
  [() => new Agent("a", { description: /** @type {any} */ (7) }), /description is a number/],
  [() => new Agent("a").invoke(/** @type {any} */ ("f")), /a string, not a function/],
  [() => new Agent("a").invoke(() => 1).invoke(() => 2), /has a handler for invoke already/],
  [() => new Agent("a").chat(() => "", { schema: /** @type {any} */ ({}) }), /no Standard Schema/],
])) {
  test(`an agent that cannot be is told: ${why}`, () => {
    assert.throws(make, why);
  });
}

/** @param {unknown} stream */
async function collected(stream) {
  const chunks = [];
  for await (const chunk of /** @type {AsyncIterable<unknown>} */ (stream)) chunks.push(chunk);
  return chunks;
}

test("the reference's handlers are unwrapped, and chosen by what the caller asks for", async () => {
  const agent = new Agent("a")
    .onInvoke((input) => ({ output: `whole ${input}` }))
    .onInvokeStream(function* (input) {
      yield { chunk: "stream " };
      yield input;
    })
    .onChat(async () => ({ message: { role: "assistant", content: "hi" } }));
  const invoke = agent.handlers.get("invoke")?.call;
  assert.equal(await invoke?.("x", new Context()), "whole x");
  assert.deepEqual(await collected(invoke?.("x", new Context({ stream: true }))), ["stream ", "x"]);
  const chat = agent.handlers.get("chat")?.call;
  assert.deepEqual(await chat?.([], new Context()), { role: "assistant", content: "hi" });
  const streaming = new Agent("a").onChatStream(() => ["a"]).handlers.get("chat")?.call;
  assert.deepEqual(await collected(streaming?.([], new Context())), ["a"]);
  assert.throws(() => agent.onInvoke(() => 1), /has a handler for invoke already/);
  assert.throws(() => agent.chat(() => ""), /has a handler for chat already/);
  const bare = new Agent("a").onInvoke(() => "x").handlers.get("invoke")?.call;
  await assert.rejects(
    async () => bare?.(1, new Context()),
    /a string, expected an object with output/,
  );
});

test("ready declares an agent, and what it may not hold is told", () => {
  const agent = new Agent("a", { concurrency: 2, description: "d", metadata: { v: "1" } });
  assert.equal(
    readyLine(agent.invoke(() => 1)),
    '{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["invoke"],"concurrency":2,"description":"d","metadata":{"v":"1"}}}\n',
  );
  assert.throws(() => readyLine(new Agent("a", { description: "x".repeat(4097) })), /description/);
  const metadata = { x: "x".repeat(65536) };
  assert.throws(() => readyLine(new Agent("a", { metadata })), /metadata/);
});

/** An outbox whose writes end when the test says so. */
function outbox() {
  /** @type {string[]} */
  const written = [];
  /** @type {((error?: Error) => void)[]} */
  const ends = [];
  let broken = 0;
  const box = new Outbox(
    (text, done) => {
      written.push(text);
      ends.push(done);
    },
    () => {
      broken++;
    },
  );
  const end = (/** @type {Error} */ error) => ends.shift()?.(error);
  return { box, written, end: /** @type {(error?: Error) => void} */ (end), broken: () => broken };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("lines of one turn leave in one write, and later ones when it has ended", async () => {
  const { box, written, end } = outbox();
  box.put("a\n");
  await Promise.resolve();
  box.put("b\n");
  await turn();
  box.put("c\n");
  box.put("d\n");
  await turn();
  assert.deepEqual(written, ["a\nb\n"]);
  end();
  assert.deepEqual(written, ["a\nb\n", "c\nd\n"]);
});

test("producers wait above the mark until there is room, or until they need not", async () => {
  const { box, end } = outbox();
  box.put("x".repeat(HIGH_WATER));
  assert.equal(box.isFull, false);
  box.put("x");
  assert.equal(box.isFull, true);
  let cancelled = false;
  const ended = box.room(() => cancelled);
  cancelled = true;
  box.wake();
  await ended;
  const room = box.room(() => false);
  end();
  await room;
  await box.drained();
});

test("lines are dropped when nobody reads any more, which is told once", async () => {
  const { box, written, end, broken } = outbox();
  box.put("a\n");
  await turn();
  box.put("b\n");
  end(new Error("EPIPE"));
  box.put("c\n");
  await box.drained();
  assert.deepEqual([written, broken()], [["a\n"], 1]);
});
