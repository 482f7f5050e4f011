// What a handler learns about a request besides its input.

import { describe, InvalidInput } from "./errors.js";

export { InvalidInput };

/**
 * What the caller sent as `context`, and what is known about the request.
 *
 * Tests of your own handlers can construct one: `new Context({ userId: "u1" })`.
 */
export class Context {
  #aborter = /** @type {AbortController | undefined} */ (undefined);
  #reason = /** @type {Error | undefined} */ (undefined);

  /** @param {Partial<import("./index.js").ContextFields>} [fields] */
  constructor(fields = {}) {
    this.conversationId = fields.conversationId;
    this.userId = fields.userId;
    this.custom = fields.custom ?? {};
    this.extras = fields.extras ?? {};
    this.requestId = fields.requestId ?? "";
    this.stream = fields.stream ?? false;
    this.events = fields.events ?? false;
    this.tools = fields.tools ?? [];
    this.resume = fields.resume ?? [];
    this.traceparent = fields.traceparent;
    this.tracestate = fields.tracestate;
  }

  /** Aborted when nobody waits for the answer any more. */
  get signal() {
    // An AbortController costs as much as the rest of a small request: most handlers want none.
    if (this.#aborter === undefined) {
      this.#aborter = new AbortController();
      if (this.#reason !== undefined) this.#aborter.abort(this.#reason);
    }
    return this.#aborter.signal;
  }

  /** @param {Context} context @param {Error} reason */
  static abort(context, reason) {
    context.#reason ??= reason;
    context.#aborter?.abort(context.#reason);
  }
}

/**
 * The Context that a request's params describe. Throws InvalidInput.
 *
 * @param {import("./wire.js").Params} params
 */
export function readContext({ context = {}, request_id, stream, ...params }) {
  if (context === null) context = {};
  if (typeof context !== "object" || Array.isArray(context)) {
    throw new InvalidInput(`context is ${describe(context)}, expected an object`);
  }
  const { conversation_id, user_id, custom, ...extras } = /** @type {Record<string, any>} */ (
    context
  );
  return new Context({
    conversationId: optional("conversation_id", conversation_id, "string"),
    userId: optional("user_id", user_id, "string"),
    custom: optional("custom", custom, "object"),
    extras,
    requestId: request_id,
    stream,
    events: params.events === true,
    tools: listOf("tools", params.tools, ["name"]).map(({ name, description, parameters }) => ({
      name,
      description: description ?? "",
      parameters: parameters ?? {},
    })),
    resume: listOf("resume", params.resume, ["id"]).map((each) => ({
      status: "resolved",
      ...each,
    })),
    traceparent: params.traceparent ?? undefined,
    tracestate: params.tracestate ?? undefined,
  });
}

/**
 * The gateway has checked them. @param {string} name @param {any} value @param {string[]} members
 * @returns {any[]}
 */
function listOf(name, value = [], members) {
  const whole = Array.isArray(value) && value.every((each) => members.every((key) => each?.[key]));
  if (!whole) throw new InvalidInput(`${name} is not a list of objects with ${members.join(", ")}`);
  return value;
}

/** @param {string} key @param {any} value @param {"string" | "object"} expected */
function optional(key, value, expected) {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== expected || Array.isArray(value)) {
    const name = expected === "string" ? "a string" : "an object";
    throw new InvalidInput(`context.${key} is ${describe(value)}, expected ${name} or null`);
  }
  return value;
}
