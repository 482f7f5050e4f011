// Streams that handlers return: which values are streams, and the text of their chunks.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ChunkText, chunksOf } from "../chunks.js";

/** @param {Iterable<unknown>} chunks */
function texts(chunks) {
  const text = new ChunkText("chat");
  const taken = [];
  for (const chunk of chunks) taken.push(text.take(chunk));
  text.end();
  return taken.filter((each) => each !== undefined);
}

test("iterators, iterables and streams are streams; other values are not", () => {
  const streams = [
    (function* () {})(),
    (async function* () {})(),
    new ReadableStream(),
    new Set(["a"]),
    { [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: undefined }) }) },
  ];
  for (const stream of streams) assert.ok(chunksOf(stream));
  const values = ["text", ["a"], { a: 1 }, null, undefined, 7, Buffer.from("a"), () => {}];
  for (const value of values) assert.equal(chunksOf(value), undefined);
});

test("a character that was cut in two is put together", () => {
  assert.deepEqual(texts(["a\ud83d", "\ude00b"]), ["a", "😀b"]);
  assert.deepEqual(texts(["\ud83d", "", "\ude00"]), ["", "😀"]);
});

test("bytes are text however their characters were cut", () => {
  const bytes = new TextEncoder().encode("aü😀");
  const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
  assert.equal(texts(single).join(""), "aü😀");
  assert.deepEqual(texts([bytes]), ["aü😀"]);
});

for (const [chunks, why] of /** @type {[unknown[], RegExp][]} */ ([
  [["\ude00"], /holds half of a surrogate pair/],
  [["a\ud83d", "b"], /holds half of a surrogate pair/],
  [["a\ud83d"], /ends with half of a surrogate pair/],
  [[Uint8Array.of(0xff)], /is not UTF-8/],
  [[Uint8Array.of(0xc3)], /ends within a UTF-8 sequence/],
  [[7], /the chat handler yielded a number, expected a string/],
  [[null], /yielded null/],
  [[{ text: "a" }], /yielded an object/],
])) {
  test(`chunks that are no text are told: ${JSON.stringify(chunks)}`, () => {
    assert.throws(() => texts(chunks), why);
  });
}

test("an empty chunk is a chunk", () => {
  assert.deepEqual(texts(["", "a"]), ["", "a"]);
});

test("closing ends a read of a stream that waits", async () => {
  /** @type {unknown} */
  let reason = "not cancelled";
  const stream = new ReadableStream({
    cancel: (why) => {
      reason = why;
    },
  });
  const chunks = chunksOf(stream);
  const step = chunks?.next();
  await chunks?.close();
  assert.equal((await step).done, true);
  assert.equal(reason, undefined);
});

test("an error while closing does not hide why it is closed", async () => {
  const generator = (function* () {
    try {
      yield "a";
    } finally {
      // biome-ignore lint/correctness/noUnsafeFinally: an agent may do so
      throw new Error("closing");
    }
  })();
  const chunks = chunksOf(generator);
  chunks?.next();
  await chunks?.close();
});

test("closing runs a generator's finally once, and not when it has ended", async () => {
  let closed = 0;
  const generator = (function* () {
    try {
      yield "a";
    } finally {
      closed++;
    }
  })();
  const chunks = chunksOf(generator);
  chunks?.next();
  await Promise.all([chunks?.close(), chunks?.close()]);
  assert.equal(closed, 1);
});
