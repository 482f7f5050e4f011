// What a handler says beside text: the lines that events and messages become.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Agent } from "../agent.js";
import { readyLine } from "../run.js";
import { Turn } from "../turn.js";
import { endLine, messageLine } from "../wire.js";

/** @typedef {import("../index.js").Event} Event */

/** @param {{events?: boolean, tools?: {name: string}[]}} [settings] */
function newTurn({ events = true, tools = [{ name: "weather" }] } = {}) {
  return new Turn(1, "chat", { events, tools });
}

/** @param {string} lines */
function read(lines) {
  const messages = lines
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  return messages.map(({ params, result }) => params?.event ?? params?.chunk ?? result);
}

/** What the gateway is told when a handler yields these. @param {unknown[]} events @param {Turn} [turn] */
function said(events, turn = newTurn()) {
  return read(events.map((each) => turn.note(each)).join("") + endLine(1, turn.outcome()));
}

test("events become lines, and the rest comes with the end", () => {
  /** @type {Event[]} */
  const shown = [
    { type: "reasoning", text: "Hm. " },
    { type: "tool_call", call: "c1", name: "own", arguments: { city: "Oslo" } },
    { type: "tool_result", call: "c1", content: null },
    { type: "tool_result", call: "c1", content: [1], is_error: true },
    { type: "status", text: "Half", progress: 1, total: 2.5 },
    { type: "file", name: "a.txt", mime: "text/plain", path: "out/a.txt" },
    { type: "state", value: 1 },
    { type: "state", patch: [] },
    { type: "x-plan", steps: [1] },
  ];
  /** @type {Event[]} */
  const kept = [
    { type: "usage", input_tokens: 3, output_tokens: 4 },
    { type: "usage", input_tokens: 1, output_tokens: 1, cached_input_tokens: 1 },
    { type: "finish", reason: "length" },
  ];
  const usage = { input_tokens: 4, output_tokens: 5, cached_input_tokens: 1 };
  assert.deepEqual(said([...shown, ...kept]), [...shown, { finish: "length", usage }]);
});

test("a file's bytes are base64", () => {
  const bytes = Buffer.from("xabcx").subarray(1, 4);
  const file = { type: "file", name: "a", mime: "text/plain" };
  for (const data of [bytes, new Uint8Array(bytes), "YWJj"]) {
    assert.deepEqual(said([{ ...file, data }])[0], { ...file, data: "YWJj" });
  }
});

test("a file may be as long as a line", () => {
  const file = { type: "file", name: "a", mime: "text/plain", data: "YWJj".repeat(1_900_000) };
  assert.equal(said([file])[0].data.length, file.data.length);
  const longer = { ...file, data: "YWJj".repeat(2_200_000) };
  assert.throws(() => said([longer]), /cannot be sent: a line of \d+ bytes, and the most is/);
  assert.throws(() => said([{ ...file, data: `${file.data}=A==` }]), /file\.data is a string/);
});

test("a caller who wants text gets no event, and questions as text", () => {
  const turn = newTurn({ events: false });
  const events = [
    { type: "reasoning", text: "Hm." },
    { type: "tool_call", call: "c", name: "weather", arguments: {} },
    { type: "usage", input_tokens: 1, output_tokens: 1 },
    { type: "finish", reason: "length" },
    { type: "x-plan" },
  ];
  assert.deepEqual(said(events, turn), [{}]);
  assert.deepEqual(said([{ type: "ask", id: "a", message: "Really?" }], turn), ["Really?", {}]);
});

test("a call of the client's without a result ends the turn", () => {
  const call = { type: "tool_call", call: "c1", name: "weather" };
  const whole = { ...call, arguments: {} };
  const pieces = [
    { ...call, delta: "{" },
    { ...call, delta: "}" },
  ];
  assert.deepEqual(said([whole]).at(-1), { finish: "tool_calls" });
  assert.deepEqual(said(pieces), [...pieces, { finish: "tool_calls" }]);
  assert.deepEqual(said([whole, { type: "tool_result", call: "c1", content: 1 }]).at(-1), {});
  assert.deepEqual(said([whole], newTurn({ tools: [] })).at(-1), {});
  // Its result counts, whatever follows, and whatever results there were of no call.
  const result = { type: "tool_result", call: "c1", content: 1 };
  const others = Array.from({ length: 1025 }, (_, n) => ({ ...result, call: `invented ${n}` }));
  assert.deepEqual(said([...others, pieces[0], result, pieces[1]]).at(-1), {});
});

test("questions end the turn", () => {
  const first = { id: "a1", message: "Delete it?", schema: { type: "boolean" }, call: "c1" };
  const second = { id: "a2", message: "And that?", reason: "approval" };
  const asks = [{ reason: "question", ...first }, second];
  const events = [first, second].map((ask) => ({ type: "ask", ...ask }));
  assert.deepEqual(said(events), [{ finish: "input_required", asks }]);
});

for (const [event, why] of /** @type {[any, RegExp][]} */ ([
  [{ type: "reasoning", text: 7 }, /reasoning\.text is 7, expected a string/],
  [{ type: "reasoning" }, /reasoning\.text is undefined, expected a string/],
  [{ type: "reasoning", text: "x".repeat(2 ** 20) }, /reasoning has \d+ bytes, expected at most/],
  [{ type: "reasoning", text: "\ud800" }, /half of a surrogate pair/],
  [{ type: "tool_call", call: "", name: "n", arguments: {} }, /tool_call\.call is a string/],
  [{ type: "tool_call", call: "c", name: null, arguments: {} }, /tool_call\.name is null/],
  [{ type: "tool_call", call: "c", name: "n".repeat(129), arguments: {} }, /1 to 128 characters/],
  [{ type: "tool_call", call: "c", name: "n", arguments: [1] }, /arguments is an array/],
  [{ type: "tool_call", call: "c", name: "n" }, /tool_call has either arguments or delta/],
  [{ type: "tool_result", call: "c" }, /content is undefined, expected a JSON value/],
  [{ type: "tool_result", call: "c", content: () => {}, is_error: 1 }, /is_error is 1/],
  [{ type: "status", text: "x", progress: Number.NaN }, /status\.progress is NaN/],
  [{ type: "status", text: "x", total: -1 }, /total is -1, expected a finite number of 0 or more/],
  [{ type: "status", text: "x".repeat(4097) }, /status\.text is a string, expected .* 4096/],
  [{ type: "file", name: "n", mime: "image/png", data: "no base64!" }, /file\.data is a string/],
  [
    { type: "file", name: "n", mime: "image", data: "" },
    /file\.mime is a string, expected a media/,
  ],
  [{ type: "file", name: "n", mime: "image/png" }, /file has either data or path/],
  [{ type: "state" }, /state has either value or patch/],
  [{ type: "usage", input_tokens: 0.5 }, /usage\.input_tokens is 0\.5, expected an integer/],
  [{ type: "finish", reason: "over" }, /finish\.reason is a string, expected "stop", "length"/],
  [{ type: "ask", id: "a" }, /ask\.message is undefined/],
  [{ type: "ask", id: "a", message: "?", schema: 1 }, /ask\.schema is 1, expected an object/],
  [
    { type: "ask", id: "a", message: "?", schema: { x: "x".repeat(70_000) } },
    /ask\.schema has more/,
  ],
  [{ type: "song" }, /the type is "song", expected reasoning, tool_call, .* or x-/],
  [{ type: "x-" }, /the type is "x-"/],
  [{ type: "x-y", z: 1n }, /BigInt/],
])) {
  test(`an event that cannot be sent is told: ${why}`, () => {
    for (const events of [true, false]) {
      const turn = newTurn({ events });
      assert.throws(() => turn.note(event), why);
      assert.throws(() => turn.note(event), /an event of the chat handler cannot be sent: /);
    }
  });
}

for (const [events, why] of /** @type {[any[], RegExp][]} */ ([
  [
    ["c", "c"].map((call) => ({ call, name: "n", arguments: {} })),
    /goes on after all its arguments/,
  ],
  [["n", "m"].map((name) => ({ call: "c", name, delta: "{" })), /has two names, n and m/],
  [
    [{ delta: "{" }, { arguments: {} }].map((part) => ({ call: "c", name: "n", ...part })),
    /after a/,
  ],
])) {
  test(`parts of a call that do not belong together are told: ${why}`, () => {
    assert.throws(() => said(events.map((event) => ({ type: "tool_call", ...event }))), why);
  });
}

test("questions are bounded, and each has an id of its own", () => {
  const asks = Array.from({ length: 17 }, (_, n) => ({ type: "ask", id: `a${n}`, message: "?" }));
  assert.throws(() => said(asks), /more than 16 questions/);
  assert.throws(() => said([asks[0], asks[0]]), /ask\.id is "a0" twice/);
});

const HI = { role: "assistant", content: "hi" };
const CALL = { id: "c1", type: "function", function: { name: "weather", arguments: '{"n":1}' } };

/** What the gateway is told when a handler returns this. @param {any} message @param {Turn} [turn] */
function answered(message, turn = newTurn()) {
  const [lines, rest] = turn.takeApart(message);
  return read(lines + messageLine(1, rest, turn.outcome()));
}

test("a message may carry its usage, its finish and tool calls", () => {
  const called = { type: "tool_call", call: "c1", name: "weather", arguments: { n: 1 } };
  const message = { role: "assistant", content: null };
  const usage = { input_tokens: 3, output_tokens: 4 };
  const openai = { prompt_tokens: 3, completion_tokens: 4, details: { a: 1 } };
  assert.deepEqual(answered({ ...message, tool_calls: [CALL], usage }), [
    called,
    { message: { ...message, content: "" }, finish: "tool_calls", usage },
  ]);
  assert.deepEqual(answered({ ...HI, usage: openai }), [{ message: HI, usage }]);
  assert.deepEqual(answered({ ...HI, usage: { type: "usage", ...usage } })[0].usage, usage);
  assert.deepEqual(answered({ ...HI, finish: "length" }), [{ message: HI, finish: "length" }]);
  assert.deepEqual(answered("hi"), [{ message: HI }]);
});

test("a message is left as it is for a caller who wants text", () => {
  const message = { ...HI, tool_calls: [CALL], usage: { input_tokens: 1 }, finish: "length" };
  assert.deepEqual(answered(message, newTurn({ events: false })), [{ message }]);
});

test("what a message carries is checked", () => {
  assert.throws(() => answered({ ...HI, finish: "over" }), /the finish is "over", expected stop/);
  assert.throws(() => answered({ ...HI, usage: 7 }), /the usage is a number, expected an object/);
  assert.throws(() => answered({ ...HI, tool_calls: 7 }), /the tool_calls are a number/);
  assert.throws(() => answered({ ...HI, tool_calls: [7] }), /tool_call\.call is undefined/);
  assert.throws(
    () => answered({ ...HI, usage: { input_tokens: -1 } }),
    /usage\.input_tokens is -1/,
  );
});

test("arguments that are no JSON are passed on as the model wrote them", () => {
  const call = { ...CALL, function: { name: "weather", arguments: '{"n":' } };
  assert.equal(answered({ ...HI, tool_calls: [call] })[0].delta, '{"n":');
});

test("ready declares what an agent takes and asks", () => {
  const zod = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: () => ({ value: 1 }),
      jsonSchema: { output: () => ({ type: "array" }) },
    },
  };
  const input = { type: "string" };
  /** @type {any} */
  const options = { input, output: zod, modes: ["text", "image"], tools: true, asks: true };
  const { params } = JSON.parse(readyLine(new Agent("a", options)));
  assert.deepEqual(
    { ...params, protocol: 1 },
    {
      protocol: 1,
      handlers: [],
      concurrency: 8,
      metadata: {},
      ...options,
      output: { type: "array" },
    },
  );
  const plain = JSON.parse(readyLine(new Agent("a"))).params;
  assert.deepEqual(Object.keys(plain), ["protocol", "handlers", "concurrency", "metadata"]);
  assert.throws(
    () => new Agent("a", /** @type {any} */ ({ modes: ["smell"] })),
    /modes are \["smell"\]/,
  );
  assert.throws(
    () => new Agent("a", /** @type {any} */ ({ input: 7 })),
    /input is a number, expected/,
  );
  const large = { x: "x".repeat(70_000) };
  assert.throws(() => readyLine(new Agent("a", { input: large })), /input is longer than 65536/);
});
