// The lines of the wire, read and written.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ProtocolError } from "../errors.js";
import {
  chunkWriter,
  endLine,
  errorLine,
  LineBuffer,
  MAX_LINE_BYTES,
  messageLine,
  nestsDeeper,
  outputLine,
  overflows,
  read,
} from "../wire.js";

const LONE = "half of a surrogate pair";

/** @param {number} depth */
function nested(depth) {
  return `${"[".repeat(depth)}${"]".repeat(depth)}`;
}

test("lines are the same however their bytes were split", () => {
  const bytes = Buffer.from('{"a":"ü😀"}\n\n  \r\n{"b":1}\n{"c"');
  for (let size = 1; size <= bytes.length; size++) {
    const buffer = new LineBuffer();
    const lines = [];
    for (let at = 0; at < bytes.length; at += size) {
      lines.push(...buffer.feed(bytes.subarray(at, at + size)));
    }
    assert.deepEqual(lines, ['{"a":"ü😀"}', '{"b":1}']);
  }
});

test("a line without an end is given up at the limit", () => {
  const buffer = new LineBuffer();
  buffer.feed(Buffer.alloc(MAX_LINE_BYTES - 1, "x"));
  assert.throws(() => buffer.feed(Buffer.from("x")), ProtocolError);
});

test("bytes that are not UTF-8 break the protocol", () => {
  assert.throws(() => new LineBuffer().feed(Buffer.from([0x22, 0xff, 0x0a])), ProtocolError);
});

test("requests, cancels and what a later gateway may send are told apart", () => {
  const line = '{"id":1,"method":"invoke","params":{"input":null}}';
  assert.deepEqual(read(line), {
    kind: "request",
    id: 1,
    method: "invoke",
    params: { input: null },
    text: line,
  });
  assert.deepEqual(read('{"method":"cancel","params":{"id":7}}'), { kind: "cancel", id: 7 });
  assert.equal(read('{"id":2,"method":"later","params":[]}')?.kind, "request");
  assert.equal(read('{"method":"later"}'), undefined);
});

for (const line of [
  "no JSON",
  "[]",
  "null",
  '{"id":1}',
  '{"id":1,"method":"invoke"}',
  '{"id":1,"method":"chat","params":{"input":1}}',
  '{"id":1,"method":"invoke","params":null}',
  '{"method":"invoke","params":{"input":1}}',
  '{"id":"1","method":"invoke","params":{"input":1}}',
  '{"id":1.5,"method":"invoke","params":{"input":1}}',
  '{"method":"cancel","params":{}}',
  '{"method":"cancel"}',
]) {
  test(`a line that breaks the protocol is told: ${line}`, () => {
    assert.throws(() => read(line), ProtocolError);
  });
}

test("answers are the lines of the golden transcript", () => {
  assert.equal(outputLine(1, { n: 5 }), '{"jsonrpc":"2.0","id":1,"result":{"output":{"n":5}}}\n');
  assert.equal(
    messageLine(1, "Hi."),
    '{"jsonrpc":"2.0","id":1,"result":{"message":{"role":"assistant","content":"Hi."}}}\n',
  );
  assert.equal(
    chunkWriter(1)('a "line"\n'),
    '{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":"a \\"line\\"\\n"}}\n',
  );
  assert.equal(endLine(1), '{"jsonrpc":"2.0","id":1,"result":{}}\n');
  assert.equal(
    errorLine(1, -32800, "cancelled"),
    '{"jsonrpc":"2.0","id":1,"error":{"code":-32800,"message":"cancelled"}}\n',
  );
});

test("nothing returned is null, and so are NaN and the infinities", () => {
  assert.match(outputLine(1, undefined), /"output":null/);
  assert.match(outputLine(1, [Number.NaN, Number.POSITIVE_INFINITY]), /"output":\[null,null\]/);
});

for (const [value, why] of /** @type {[unknown, RegExp][]} */ ([
  [() => 1, /a function has no JSON form/],
  [Symbol("s"), /a symbol has no JSON form/],
  [1n, /BigInt/],
  ["\ud83d", /surrogate/],
  [{ "\ude00": 1 }, /surrogate/],
  ["\\\ud83d", /surrogate/],
  ["x".repeat(MAX_LINE_BYTES), /a line of \d+ bytes, and the most is 8388608/],
  ["ü".repeat(MAX_LINE_BYTES / 2), /a line of \d+ bytes/],
])) {
  test(`an output that cannot be sent is told: ${String(why)}, ${typeof value}`, () => {
    assert.throws(() => outputLine(1, value), why);
  });
}

test("text that only looks like half of a surrogate pair is sent", () => {
  for (const text of ["\\ud83d", "\\\\ud83d", "😀", "\\😀"]) {
    assert.equal(JSON.parse(outputLine(1, text)).result.output, text, LONE);
  }
});

test("a value that nests too deeply is told, and the deepest legal one is sent", () => {
  // The message and its result are two levels of the 512.
  assert.ok(outputLine(1, JSON.parse(nested(510))));
  assert.throws(() => outputLine(1, JSON.parse(nested(511))), /more than 512/);
  /** @type {unknown[]} */
  const endless = [];
  endless.push(endless);
  assert.throws(() => outputLine(1, endless), TypeError);
});

test("brackets in strings do not nest", () => {
  const text = JSON.stringify([["[".repeat(2000)], '\\"[{', { "}": ["]"] }]);
  assert.equal(nestsDeeper(text, 3), false);
  assert.equal(nestsDeeper(`[${nested(600)}]`, 600), true);
  assert.equal(nestsDeeper(nested(600), 600), false);
});

for (const [answer, why] of /** @type {[unknown, RegExp][]} */ ([
  [7, /a number is neither a string nor a message/],
  [undefined, /undefined has no JSON form/],
  [["x"], /an array is neither/],
  [{ content: "x" }, /role/],
  [{ role: "robot", content: "x" }, /role/],
  [{ role: "assistant" }, /content is missing/],
  [{ role: "assistant", content: 7 }, /content is a number/],
])) {
  test(`a chat's answer that is no message is told: ${JSON.stringify(answer)}`, () => {
    assert.throws(() => messageLine(1, answer), why);
  });
}

test("a message is what its JSON says, and other members pass", () => {
  const answer = { toJSON: () => ({ role: "tool", content: null, tool_call_id: "c" }) };
  assert.match(messageLine(1, answer), /\{"role":"tool","content":null,"tool_call_id":"c"\}/);
});

test("looking for such numbers takes no longer for a text that is made for it", () => {
  // Quadratic, this would take minutes.
  assert.equal(overflows(null, `${"9".repeat(199)} `.repeat(40_000)), false);
  assert.equal(overflows(null, "e99".repeat(2_000_000)), false);
});

test("numbers beyond every double are found, and others are not", () => {
  for (const text of [
    "1e999",
    "-1E+400",
    "9".repeat(400),
    `[{"a":[1e999]}]`,
    `${"9".repeat(250)}e99`,
  ]) {
    assert.equal(overflows(JSON.parse(text), text), true, text);
  }
  for (const text of ["1e308", '"1e999"', "1.5e-999", `"${"9".repeat(400)}"`]) {
    assert.equal(overflows(JSON.parse(text), text), false, text);
  }
});
