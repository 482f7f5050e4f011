// `Agent`: a name, its handlers, and what a worker declares about them.
//
// This module does not know how handlers are run.

import { describe } from "./errors.js";
import { run } from "./run.js";

/**
 * Requests that one worker runs at the same time: enough to overlap the waiting that agents mostly
 * do, few enough to keep memory small.
 */
export const DEFAULT_CONCURRENCY = 8;

/** Kinds of content that a message may hold. */
const MODES = ["text", "image", "audio", "file"];

/** Marks agents, also those of another copy of the SDK, in the agent's own node_modules. */
const BRAND = Symbol.for("agent-gateway-worker.Agent");

/**
 * @typedef {import("./wire.js").Method} Method
 * @typedef {(payload: any, context: any) => unknown} HandlerFunction
 * @typedef {{whole?: HandlerFunction, stream?: HandlerFunction}} Wrapped
 * @typedef {{call: HandlerFunction, schema?: import("./index.js").StandardSchema}} Handler
 */

/** Something that answers requests, with one handler for `invoke`, one for `chat`, or both. */
export class Agent {
  /** @type {Map<Method, Wrapped>} */
  #wrapped = new Map();

  /**
   * @param {string} name letters, digits, `-` and `_`
   * @param {import("./index.js").AgentOptions} [options]
   */
  constructor(name, options = {}) {
    const { description, metadata = {}, concurrency = DEFAULT_CONCURRENCY } = options;
    const { input, output, modes = [], tools = false, asks = false } = options;
    if (!/^[a-zA-Z0-9_-]+$/.test(name)) {
      throw new TypeError(
        `the name ${JSON.stringify(name)} may hold only letters, digits, "-" and "_"`,
      );
    }
    if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
      throw new RangeError(`concurrency is ${concurrency}, expected an integer of 1 or more`);
    }
    if (description !== undefined && typeof description !== "string") {
      throw new TypeError(`description is ${describe(description)}, expected a string`);
    }
    if (!Array.isArray(modes) || !modes.every((mode) => MODES.includes(mode))) {
      throw new TypeError(
        `modes are ${JSON.stringify(modes)}, expected some of ${MODES.join(", ")}`,
      );
    }
    this.name = name;
    this.description = description;
    this.metadata = plainObject(metadata);
    this.concurrency = concurrency;
    this.input = jsonSchema("input", input);
    this.output = jsonSchema("output", output);
    this.modes = modes;
    this.tools = tools === true;
    this.asks = asks === true;
    /** @type {Map<Method, Handler>} */
    this.handlers = new Map();
  }

  get [BRAND]() {
    return true;
  }

  /** @param {unknown} value @returns {value is Agent} */
  static isAgent(value) {
    return typeof value === "object" && value !== null && BRAND in value;
  }

  /** @param {HandlerFunction} handler @param {import("./index.js").HandlerOptions} [options] */
  invoke(handler, options) {
    return this.#register("invoke", handler, options);
  }

  /** @param {HandlerFunction} handler @param {import("./index.js").HandlerOptions} [options] */
  chat(handler, options) {
    return this.#register("chat", handler, options);
  }

  // The reference API's names. Their handlers wrap what they answer, and one of the two that a method may
  // have is chosen by what the caller asks for.

  /** @param {HandlerFunction} handler returns `{ output }` */
  onInvoke(handler) {
    return this.#registerWrapped("invoke", { whole: handler });
  }

  /** @param {HandlerFunction} handler yields `{ chunk }` */
  onInvokeStream(handler) {
    return this.#registerWrapped("invoke", { stream: handler });
  }

  /** @param {HandlerFunction} handler returns `{ message }` */
  onChat(handler) {
    return this.#registerWrapped("chat", { whole: handler });
  }

  /** @param {HandlerFunction} handler yields `{ chunk }` */
  onChatStream(handler) {
    return this.#registerWrapped("chat", { stream: handler });
  }

  /**
   * Serve requests from stdin until stdin ends. Then the process exits. The wire is moved out of the
   * agent's reach before this returns.
   */
  run() {
    return run(this);
  }

  /** @param {Method} method @param {Wrapped} handlers */
  #registerWrapped(method, handlers) {
    const known = this.#wrapped.get(method);
    if (known !== undefined && !Object.keys(handlers).some((kind) => kind in known)) {
      Object.assign(known, handlers);
      return this;
    }
    this.#wrapped.set(method, handlers);
    return this.#register(method, (payload, context) => {
      const { whole, stream } = handlers;
      if (stream && (context.stream || !whole)) return unwrapChunks(stream(payload, context));
      return unwrap(method === "invoke" ? "output" : "message", whole?.(payload, context));
    });
  }

  /** @param {Method} method @param {HandlerFunction} handler @param {{schema?: any}} [options] */
  #register(method, handler, { schema } = {}) {
    if (typeof handler !== "function") {
      throw new TypeError(`the ${method} handler is ${describe(handler)}, not a function`);
    }
    if (schema !== undefined && !isSchema(schema)) {
      throw new TypeError(`the schema of the ${method} handler is no Standard Schema`);
    }
    if (this.handlers.has(method)) {
      throw new TypeError(`agent "${this.name}" has a handler for ${method} already`);
    }
    if (method === "invoke") this.input ??= derived(schema);
    this.handlers.set(method, { call: handler, schema });
    return this;
  }
}

/** @param {unknown} metadata @returns {Record<string, unknown>} as JSON holds it */
function plainObject(metadata) {
  const text = JSON.stringify(metadata);
  if (!text?.startsWith("{")) {
    throw new TypeError(`metadata is ${describe(metadata)}, expected an object`);
  }
  return JSON.parse(text);
}

/**
 * A JSON Schema: an object as it is, or what a schema makes of itself.
 *
 * @param {"input" | "output"} what
 * @param {any} schema
 * @returns {Record<string, unknown> | undefined}
 */
function jsonSchema(what, schema) {
  if (schema === undefined) return undefined;
  const found = converted(what, schema) ?? schema;
  if (typeof found !== "object" || found === null || "~standard" in found) {
    throw new TypeError(
      `${what} is ${describe(schema)}, expected a JSON Schema, or a schema that has one`,
    );
  }
  return plainObject(found);
}

/**
 * The JSON Schema of what a handler's schema takes, where it can tell: not all that a schema checks has one.
 *
 * @param {any} schema
 */
function derived(schema) {
  try {
    const found = converted("input", schema);
    return found && plainObject(found);
  } catch {
    return undefined;
  }
}

/**
 * What a schema makes of itself: a Standard JSON Schema (zod 4.2, arktype), or by a method of its own (zod 4, arktype).
 *
 * @param {"input" | "output"} what
 * @param {any} schema
 */
function converted(what, schema) {
  const standard = schema?.["~standard"]?.jsonSchema?.[what];
  if (standard) return standard({ target: "draft-2020-12" });
  if (typeof schema?.toJSONSchema === "function") return schema.toJSONSchema({ io: what });
  if (typeof schema?.toJsonSchema === "function") return schema.toJsonSchema();
  return undefined;
}

/** @param {any} schema @returns {schema is import("./index.js").StandardSchema} */
function isSchema(schema) {
  // arktype's schemas are functions.
  const found = schema?.["~standard"];
  return found?.version === 1 && typeof found.validate === "function";
}

/** @param {string} member @param {unknown} result */
async function unwrap(member, result) {
  const answer = /** @type {any} */ (await result);
  if (typeof answer === "object" && answer !== null && member in answer) return answer[member];
  throw new TypeError(
    `the handler returned ${describe(answer)}, expected an object with ${member}`,
  );
}

/** @param {any} chunks */
async function* unwrapChunks(chunks) {
  for await (const each of chunks) yield typeof each === "string" ? each : (each?.chunk ?? each);
}
