// The lines of the wire, without I/O: those of the gateway read, and those of a worker written.
//
// # Theory of operation
//
// The gateway is trusted to speak the protocol (protocol/README.md). A line that breaks it throws
// ProtocolError, and the worker should end, because it can no longer tell which requests it owes. A
// later gateway may send more, however: a request whose method is unknown is refused, a
// notification whose method is unknown is ignored.
//
// The functions that write lines return strings, each with its newline. They throw TypeError or
// RangeError for what cannot be sent, so that an error can be sent instead. JSON.stringify writes
// half of a surrogate pair as an escape, which the gateway refuses, as UTF-8 cannot express it; and
// it nests as deeply as the stack allows: both are checked here.

import { isUtf8 } from "node:buffer";
import { describe, ProtocolError } from "./errors.js";

/** Bytes of the longest line, its newline included. */
export const MAX_LINE_BYTES = 8 * 1024 * 1024;

/** Depth of arrays and objects in one line, the message itself included. */
export const MAX_NESTING = 512;

const ROLES = ["system", "user", "assistant", "tool"];
const NEWLINE = 10;

/**
 * @typedef {{id?: unknown, input?: unknown, messages?: unknown, stream?: boolean, context?: unknown,
 *   request_id?: string, events?: boolean, tools?: unknown, resume?: unknown, traceparent?: string,
 *   tracestate?: string}} Params
 * @typedef {"invoke" | "chat"} Method
 * @typedef {{kind: "request", id: number, method: string, params: Params, text: string}
 *   | {kind: "cancel", id: number}} FromGateway
 */

/** Cuts bytes into lines, however they were split on their way. */
export class LineBuffer {
  /** @type {Buffer[]} */
  #held = [];
  #size = 0;

  /** @param {Buffer} data @returns {string[]} the lines that these bytes complete, without blank ones */
  feed(data) {
    const end = data.lastIndexOf(NEWLINE);
    if (end < 0) {
      this.#hold(data);
      return [];
    }
    const lines = this.#join(data.subarray(0, end));
    if (end + 1 < data.length) this.#hold(data.subarray(end + 1));
    return lines;
  }

  /** @param {Buffer} data */
  #hold(data) {
    this.#held.push(data);
    this.#size += data.length;
    if (this.#size >= MAX_LINE_BYTES) {
      throw new ProtocolError(`the gateway sent a line of more than ${MAX_LINE_BYTES} bytes`);
    }
  }

  /** @param {Buffer} data */
  #join(data) {
    const bytes = this.#size ? Buffer.concat([...this.#held, data]) : data;
    this.#held = [];
    this.#size = 0;
    if (!isUtf8(bytes)) throw new ProtocolError("the gateway sent bytes that are not UTF-8");
    return bytes
      .toString("utf8")
      .split("\n")
      .filter((line) => line.trim());
  }
}

/**
 * The message of one line; undefined for one that is ignored.
 *
 * @param {string} text
 * @returns {FromGateway | undefined}
 */
export function read(text) {
  const message = parse(text);
  const { id, method } = message;
  if (typeof method !== "string") throw new ProtocolError(`the gateway sent ${quote(text)}`);
  const known = method === "invoke" || method === "chat";
  if (method === "cancel") return { kind: "cancel", id: integer(message.params?.id, "cancel") };
  if (id === undefined && !known) return undefined;
  const params = known ? checked(method, message.params) : {};
  return { kind: "request", id: integer(id, method), method, params, text };
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    const message = JSON.parse(text);
    if (typeof message === "object" && message !== null && !Array.isArray(message)) return message;
  } catch {
    // said below
  }
  throw new ProtocolError(`the gateway sent ${quote(text)}, which is no message`);
}

/** @param {"invoke" | "chat"} method @param {any} params @returns {Params} */
function checked(method, params) {
  const payload = method === "invoke" ? "input" : "messages";
  if (typeof params !== "object" || params === null || params[payload] === undefined) {
    throw new ProtocolError(`the gateway sent ${method} without params.${payload}`);
  }
  return params;
}

/** @param {unknown} id @param {string} method */
function integer(id, method) {
  // 2^53 itself is a double of its own, and the largest id that there is.
  if (Number.isInteger(id) && Number(id) <= 2 ** 53) return Number(id);
  throw new ProtocolError(`the gateway sent ${method} with the id ${id}`);
}

/** @param {string} text */
function quote(text) {
  return JSON.stringify(text.slice(0, 80));
}

/**
 * A text that holds a number beyond every double has many digits in a row, or three in an exponent.
 * Looking behind keeps the search linear, whatever a caller sends.
 */
const MAY_OVERFLOW = /(?<!\d)\d{200}|e\+?\d{3}/i;

/**
 * Whether a value that was parsed from `text` holds a number that became infinite.
 *
 * @param {unknown} value
 * @param {string} text
 */
export function overflows(value, text) {
  return MAY_OVERFLOW.test(text) && holdsInfinity(value);
}

/** @param {unknown} value @returns {boolean} */
function holdsInfinity(value) {
  if (typeof value === "number") return !Number.isFinite(value);
  return typeof value === "object" && value !== null && Object.values(value).some(holdsInfinity);
}

/**
 * The outcome of an answer: JSON texts by the names of a result's members.
 *
 * @typedef {Record<string, string>} Outcome
 */

/** @param {number} id @param {unknown} output @param {Outcome} [outcome] */
export function outputLine(id, output, outcome) {
  return resultLine(id, { output: stringify(output === undefined ? null : output), ...outcome });
}

/**
 * @param {number} id
 * @param {unknown} answer a string, or an object with `role` and `content`
 * @param {Outcome} [outcome]
 */
export function messageLine(id, answer, outcome) {
  const message = typeof answer === "string" ? { role: "assistant", content: answer } : answer;
  const text = stringify(message);
  checkMessage(JSON.parse(text));
  return resultLine(id, { message: text, ...outcome });
}

/** @param {number} id @param {Outcome} [outcome] */
export function endLine(id, outcome) {
  return resultLine(id, { ...outcome });
}

/** @param {number} id @param {string} event as JSON text */
export function eventLine(id, event) {
  return line(`{"jsonrpc":"2.0","method":"event","params":{"id":${id},"event":${event}}}`);
}

/** @param {number} id @param {number} code @param {string} message */
export function errorLine(id, code, message) {
  return line(`{"jsonrpc":"2.0","id":${id},"error":${stringify({ code, message })}}`);
}

/** @param {number} id @param {Outcome} result */
function resultLine(id, result) {
  const members = Object.entries(result).map(([name, json]) => `"${name}":${json}`);
  return line(`{"jsonrpc":"2.0","id":${id},"result":{${members.join(",")}}}`);
}

/**
 * A function that writes chunks of one request. A chunk of text must be well-formed.
 *
 * @param {number} id
 */
export function chunkWriter(id) {
  const head = `{"jsonrpc":"2.0","method":"chunk","params":{"id":${id},"chunk":`;
  return (/** @type {string} */ chunk) => {
    // This frame around one JSON string neither nests nor holds a newline.
    const text = `${head}${JSON.stringify(chunk)}}}\n`;
    checkLength(text);
    return text;
  };
}

/** A value as JSON text. Throws TypeError. @param {unknown} value @returns {string} */
export function stringify(value) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`${describe(value)} has no JSON form`);
  if (text.includes("\\ud") && hasLoneSurrogate(text)) {
    throw new TypeError("a string holds half of a surrogate pair, which UTF-8 cannot express");
  }
  return text;
}

/** @param {string} text a JSON text */
function hasLoneSurrogate(text) {
  // What is left of escapes without escaped backslashes and whole pairs is halves.
  const rest = text.replaceAll(/\\\\|\\ud[89ab]..\\ud[c-f]../gi, "");
  return /\\ud[89a-f]/i.test(rest);
}

/** @param {any} message */
function checkMessage(message) {
  if (typeof message !== "object" || message === null || Array.isArray(message)) {
    throw new TypeError(`${describe(message)} is neither a string nor a message`);
  }
  if (!ROLES.includes(message.role)) {
    throw new TypeError(`a message whose role is none of ${ROLES.join(", ")}`);
  }
  const { content } = message;
  if (typeof content !== "string" && typeof content !== "object") {
    const what = content === undefined ? "missing" : describe(content);
    throw new TypeError(
      `a message whose content is ${what}, expected a string, array, object or null`,
    );
  }
}

/** @param {string} text */
function line(text) {
  checkLength(text);
  if (nestsDeeper(text, MAX_NESTING)) {
    throw new RangeError(`it nests more than ${MAX_NESTING} arrays and objects`);
  }
  return `${text}\n`;
}

/** @param {string} text */
function checkLength(text) {
  // A UTF-16 unit is at most three bytes of UTF-8: only a long text needs to be measured.
  if (text.length * 3 < MAX_LINE_BYTES) return;
  const bytes = Buffer.byteLength(text);
  if (bytes >= MAX_LINE_BYTES) {
    throw new RangeError(`a line of ${bytes} bytes, and the most is ${MAX_LINE_BYTES}`);
  }
}

/**
 * Whether arrays and objects in a JSON text nest deeper than `limit`.
 *
 * @param {string} text
 * @param {number} limit
 */
export function nestsDeeper(text, limit) {
  // Every bracket that opens must close, so a shorter text cannot nest as deeply.
  if (text.length <= 2 * limit || !opensMoreThan(limit, text)) return false;
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x22) at = endOfString(text, at);
    else if (unit === 0x5b || unit === 0x7b) {
      if (++depth > limit) return true;
    } else if (unit === 0x5d || unit === 0x7d) depth--;
  }
  return false;
}

/** @param {number} limit @param {string} text strings may hold brackets: these are counted, too */
function opensMoreThan(limit, text) {
  for (const bracket of "[{") {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
      if (--limit < 0) return true;
    }
  }
  return false;
}

/** @param {string} text @param {number} start the place of its opening quote */
function endOfString(text, start) {
  let at = start + 1;
  while (text.charCodeAt(at) !== 0x22) at += text.charCodeAt(at) === 0x5c ? 2 : 1;
  return at;
}
