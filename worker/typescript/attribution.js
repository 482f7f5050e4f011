// Whose fault it is: errors that no handler caught, and process.exit, are traced to their request.
//
// An AsyncLocalStorage follows each request through its promises, timers and callbacks. Node 24
// propagates it for free; on Node 20 it costs a generator that never waits up to two fifths of its
// rate, which still exceeds what one gateway passes on. Bun does not tell whose a stray rejection
// is: it is logged, and nobody pays for it.

import { AsyncLocalStorage } from "node:async_hooks";
import { ProcessExit } from "./errors.js";

const current = new AsyncLocalStorage();

/** The runtime's own, whatever the agent does to `process`. */
export const exit = process.exit.bind(process);

/**
 * Call a function on behalf of `request`.
 *
 * @template T
 * @param {object} request
 * @param {() => T} call
 * @returns {T}
 */
export function onBehalfOf(request, call) {
  return current.run(request, call);
}

/** @type {(error: unknown, request: any) => void} */
let blame = () => {};

/**
 * Hand over each error that nobody caught, with its request, if it is known. Replaces an earlier
 * receiver.
 *
 * @param {(error: unknown, request: any) => void} receiver
 */
export function attribute(receiver) {
  blame = receiver;
  process.exit = exitHandler;
  for (const event of ["uncaughtException", "unhandledRejection"]) {
    process.off(event, receive);
    process.on(event, receive);
  }
}

/** @param {unknown} error */
function receive(error) {
  blame(error, current.getStore());
}

/** @param {number | string | null} [status] @returns {never} */
function exitHandler(status) {
  if (current.getStore() !== undefined) throw new ProcessExit(status);
  return exit(status);
}
