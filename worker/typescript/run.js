// The first milliseconds of a worker: the checks that it can be served, and `ready`.
//
// `ready` says that the agent is loaded and which handlers it has. The rest of the server is imported
// while the gateway routes the first request: each module costs a thirtieth of a start.

import fs from "node:fs";
import { takeStdio } from "./stdio.js";

const MAX_DESCRIPTION = 4096; // characters
const MAX_METADATA_BYTES = 65536;

const KEY = Symbol.for("agent-gateway-worker.host");
const shared = /** @type {Record<symbol, Host | undefined>} */ (globalThis);
shared[KEY] ??= {};

/**
 * What this process serves. Shared with another copy of the SDK, in the agent's own node_modules.
 *
 * @typedef {{wire?: import("./stdio.js").Wire, isServing?: boolean}} Host
 */
const host = /** @type {Host} */ (shared[KEY]);

/** @returns {string | undefined} why this runtime is too old */
export function tooOld() {
  if ("isWellFormed" in String.prototype) return undefined;
  return `the runtime is Node ${process.versions.node}, expected 20 or newer`;
}

/** Whether this process serves an agent already. */
export const isServing = () => host.isServing === true;

/**
 * Serve over a wire that was moved before the agent's module was imported.
 *
 * @param {import("./stdio.js").Wire} wire
 */
export function useWire(wire) {
  host.wire = wire;
}

/**
 * Declare the agent, and serve it until the process ends.
 *
 * Throws TypeError or RangeError for an agent that cannot be served.
 *
 * @param {import("./agent.js").Agent} agent
 */
export async function run(agent) {
  const why = tooOld();
  if (why) throw new TypeError(why);
  if (isServing()) throw new TypeError("this process serves an agent already");
  if (agent.handlers.size === 0) {
    throw new TypeError(
      `agent "${agent.name}" has no handlers; call agent.invoke or agent.chat first`,
    );
  }
  const ready = readyLine(agent);
  host.isServing = true;
  const wire = host.wire ?? takeStdio();
  fs.writeSync(wire.output, ready); // one write suffices: the pipe is empty and blocking
  const { serve } = await import("./server.js");
  serve(agent, wire);
}

/**
 * The line that declares an agent. Throws RangeError for what may not stand in it.
 *
 * @param {import("./agent.js").Agent} agent
 */
export function readyLine(agent) {
  const { handlers, concurrency, description, metadata } = agent;
  if (description !== undefined && description.length > MAX_DESCRIPTION) {
    throw new RangeError(`the description is longer than ${MAX_DESCRIPTION} characters`);
  }
  if (Buffer.byteLength(JSON.stringify(metadata)) > MAX_METADATA_BYTES) {
    throw new RangeError(`metadata is longer than ${MAX_METADATA_BYTES} bytes as JSON`);
  }
  for (const name of /** @type {const} */ (["input", "output"])) {
    if (Buffer.byteLength(JSON.stringify(agent[name] ?? {})) > MAX_METADATA_BYTES) {
      throw new RangeError(`${name} is longer than ${MAX_METADATA_BYTES} bytes as JSON`);
    }
  }
  const params = {
    protocol: 1,
    handlers: [...handlers.keys()],
    concurrency,
    description,
    metadata,
    input: agent.input,
    output: agent.output,
    // Only what says something: an older gateway has no use for the rest.
    modes: agent.modes?.length ? agent.modes : undefined,
    tools: agent.tools || undefined,
    asks: agent.asks || undefined,
  };
  return `${JSON.stringify({ jsonrpc: "2.0", method: "ready", params })}\n`;
}
