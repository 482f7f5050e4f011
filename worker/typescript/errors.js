// What can go wrong, and whose fault it is.

/** Codes of an error response. Any other code is the agent's own failure (JSON-RPC 2.0, 5.1). */
export const ErrorCode = Object.freeze({
  HANDLER_NOT_IMPLEMENTED: -32601,
  INVALID_INPUT: -32602,
  INTERNAL: -32603,
  CANCELLED: -32800,
});

/** Throw this in a handler to refuse the caller's input: the caller gets 400 and the text. */
export class InvalidInput extends Error {
  /** @param {string} [message] @param {ErrorOptions} [options] */
  constructor(message, options) {
    super(message, options);
    this.name = "InvalidInput";
  }
}

/** The gateway broke the protocol: nothing that follows can be trusted. */
export class ProtocolError extends Error {}

/** What `process.exit` throws in a handler: the end of its request instead of the worker's. */
export class ProcessExit extends Error {
  /** @param {unknown} status */
  constructor(status) {
    super(`process.exit(${status ?? ""}) was called`);
    this.name = "ProcessExit";
  }
}

/**
 * The type of a value in a sentence: "an array", "null", "a Date".
 *
 * @param {unknown} value
 */
export function describe(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  const kind = typeof value === "object" ? value.constructor?.name || "Object" : typeof value;
  return `${/^[aeiou]/i.test(kind) ? "an" : "a"} ${kind === "Object" ? "object" : kind}`;
}
