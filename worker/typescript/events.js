// What a handler may say beside text: plain objects with a `type`, checked and written as JSON.
//
// The members and their bounds are those of the wire (protocol/README.md, "Events"). Whatever is wrong
// throws TypeError or RangeError that names the member. What needs to know other events of the same
// request is in turn.js.

import { Buffer } from "node:buffer";
import { describe } from "./errors.js";
import { stringify } from "./wire.js";

/** Bytes of an event as JSON; a file may be as long as its line. */
export const MAX_EVENT_BYTES = 1024 * 1024;

/** Bytes of a JSON Schema. */
const MAX_SCHEMA_BYTES = 64 * 1024;

/** Members of a usage. */
const MAX_COUNTS = 32;

const MIME = /^[!-.0-~]+\/[!-.0-~]+$/;
const CUSTOM = /^x-./;
/** One at a time: a pattern of groups of four would need the stack for each of them. */
const NOT_BASE64 = /[^A-Za-z0-9+/]/;

/** @typedef {(value: any) => string | undefined} Check what was expected instead of a value */

/** @param {number} most characters @param {number} [least] @returns {Check} */
function text(most, least = 0) {
  const bounds = least ? ` of ${least} to ${most} characters` : ` of at most ${most} characters`;
  return (value) => {
    if (typeof value !== "string") return "a string";
    // A character is at most two UTF-16 units. What is longer than that is not taken apart.
    const fits = () => value.length <= 2 * most && [...value].length <= most;
    const within = value.length >= least && (value.length <= most || fits());
    return within ? undefined : `a string${bounds}`;
  };
}

/** @type {Check} */
const anyText = (value) => (typeof value === "string" ? undefined : "a string");
/** @type {Check} */
const anything = (value) => (value === undefined ? "a JSON value" : undefined);
/** @type {Check} */
const flag = (value) => (typeof value === "boolean" ? undefined : "a boolean");
/** @type {Check} */
const amount = (value) =>
  Number.isFinite(value) && value >= 0 ? undefined : "a finite number of 0 or more";
/** @type {Check} */
const count = (value) =>
  Number.isSafeInteger(value) && value >= 0 ? undefined : "an integer of 0 or more";
/** @type {Check} */
const object = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? undefined : "an object";
/** @type {Check} */
const array = (value) => (Array.isArray(value) ? undefined : "an array");
/** @type {Check} */
const bytes = (value) =>
  value instanceof Uint8Array || (typeof value === "string" && isBase64(value))
    ? undefined
    : "bytes (a Uint8Array), or a string of them in base64";
/** @type {Check} */
const mime = (value) =>
  typeof value === "string" && value.length <= 255 && MIME.test(value)
    ? undefined
    : 'a media type, such as "image/png"';
/** @type {Check} */
const reason = (value) =>
  ["stop", "length", "refused"].includes(value) ? undefined : '"stop", "length" or "refused"';

const id = text(128, 1);

/** Members by type: those that must be there, and those that may. @type {Record<string, [Record<string, Check>, Record<string, Check>]>} */
const MEMBERS = {
  reasoning: [{ text: anyText }, {}],
  tool_call: [
    { call: id, name: id },
    { arguments: object, delta: anyText },
  ],
  tool_result: [{ call: id, content: anything }, { is_error: flag }],
  file: [
    { name: text(255, 1), mime },
    { data: bytes, path: text(4096, 1) },
  ],
  status: [{ text: text(4096) }, { progress: amount, total: amount }],
  state: [{}, { value: anything, patch: array }],
  usage: [{}, {}],
  finish: [{ reason }, {}],
  ask: [
    { id, message: text(16 * 1024) },
    { reason: text(64), schema: object, call: id },
  ],
};

/** Of these types, exactly one of two members is there. @type {Record<string, [string, string]>} */
const EITHER = {
  tool_call: ["arguments", "delta"],
  file: ["data", "path"],
  state: ["value", "patch"],
};

/** @param {unknown} value @returns {value is {type: string, [member: string]: any}} */
export function isEvent(value) {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (/** @type {any} */ (value).type) === "string"
  );
}

/**
 * An event as JSON text. Throws TypeError or RangeError.
 *
 * @param {{type: string, [member: string]: any}} event
 */
export function encodeEvent(event) {
  const { type } = event;
  const known = Object.hasOwn(MEMBERS, type) ? MEMBERS[type] : undefined;
  if (known === undefined) checkCustom(type);
  else checkMembers(event, ...known);
  if (type === "usage") checkCounts(event);
  const data = event.data instanceof Uint8Array ? base64(event.data) : event.data;
  const json = stringify(type === "file" ? { ...event, data } : event);
  if (type !== "file" && json.length * 3 > MAX_EVENT_BYTES) {
    const size = Buffer.byteLength(json);
    if (size > MAX_EVENT_BYTES) {
      throw new RangeError(`${type} has ${size} bytes, expected at most ${MAX_EVENT_BYTES}`);
    }
  }
  if (
    type === "ask" &&
    event.schema &&
    Buffer.byteLength(stringify(event.schema)) > MAX_SCHEMA_BYTES
  ) {
    throw new RangeError(`ask.schema has more than ${MAX_SCHEMA_BYTES} bytes`);
  }
  return json;
}

/** @param {string} type */
function checkCustom(type) {
  if (CUSTOM.test(type) && type.length <= 64) return;
  const types = Object.keys(MEMBERS).join(", ");
  throw new TypeError(
    `the type is ${JSON.stringify(type.slice(0, 80))}, expected ${types}, or x-…`,
  );
}

/**
 * @param {{type: string, [member: string]: any}} event
 * @param {Record<string, Check>} required
 * @param {Record<string, Check>} optional
 */
function checkMembers(event, required, optional) {
  const { type } = event;
  for (const [name, check] of Object.entries(required)) checkMember(type, name, check, event[name]);
  for (const [name, check] of Object.entries(optional)) {
    if (event[name] !== undefined) checkMember(type, name, check, event[name]);
  }
  const [one, another] = EITHER[type] ?? [];
  if (one && another && (event[one] === undefined) === (event[another] === undefined)) {
    throw new TypeError(`${type} has either ${one} or ${another}`);
  }
}

/** @param {string} type @param {string} name @param {Check} check @param {unknown} value */
function checkMember(type, name, check, value) {
  const expected = check(value);
  if (expected === undefined) return;
  const found = typeof value === "number" ? String(value) : describe(value);
  throw new TypeError(`${type}.${name} is ${found}, expected ${expected}`);
}

/** @param {{type: string, [member: string]: any}} usage */
function checkCounts({ type, ...counts }) {
  if (Object.keys(counts).length > MAX_COUNTS) {
    throw new RangeError(`usage has more than ${MAX_COUNTS} counts`);
  }
  for (const [name, value] of Object.entries(counts)) {
    if (value !== undefined) checkMember(type, name, count, value);
  }
}

/** @param {string} value */
function isBase64(value) {
  return value.length % 4 === 0 && !NOT_BASE64.test(value.replace(/={1,2}$/, ""));
}

/** @param {Uint8Array} data */
function base64(data) {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
}
