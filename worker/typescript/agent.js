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

/** Marks agents, also those of another copy of the SDK, in the agent's own node_modules. */
const BRAND = Symbol.for("agent-gateway-worker.Agent");

/**
 * @typedef {import("./wire.js").Method} Method
 * @typedef {(payload: any, context: any) => unknown} HandlerFunction
 * @typedef {{call: HandlerFunction, schema?: import("./index.js").StandardSchema}} Handler
 */

/** Something that answers requests, with one handler for `invoke`, one for `chat`, or both. */
export class Agent {
  /**
   * @param {string} name letters, digits, `-` and `_`
   * @param {import("./index.js").AgentOptions} [options]
   */
  constructor(name, options = {}) {
    const { description, metadata = {}, concurrency = DEFAULT_CONCURRENCY } = options;
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
    this.name = name;
    this.description = description;
    this.metadata = plainObject(metadata);
    this.concurrency = concurrency;
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

  /**
   * Serve requests from stdin until stdin ends. Then the process exits. The wire is moved out of the
   * agent's reach before this returns.
   */
  run() {
    return run(this);
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

/** @param {any} schema @returns {schema is import("./index.js").StandardSchema} */
function isSchema(schema) {
  // arktype's schemas are functions.
  const found = schema?.["~standard"];
  return found?.version === 1 && typeof found.validate === "function";
}
