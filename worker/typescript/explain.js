// Errors in words: what a caller is told, and what is logged.
//
// Loaded after `ready`, or when there is something to explain: node:util costs a tenth of a start.

import { inspect } from "node:util";
import { ErrorCode } from "./errors.js";

/** Characters of an error's text that a caller is shown: some errors quote their whole input. */
export const MAX_ERROR_TEXT = 4096;

/**
 * The error code and the text that a caller is shown for whatever a handler threw.
 *
 * An AggregateError of one error stands for that error.
 *
 * @param {unknown} thrown
 * @returns {{code: number, message: string}}
 */
export function explain(thrown) {
  try {
    const error = single(thrown);
    const text = error instanceof Error ? String(error.message) : brief(error);
    // By name, because an agent may have installed an SDK of its own beside the one that serves it.
    if (error instanceof Error && error.name === "InvalidInput") {
      const message = presentable(text || "the agent refused its input");
      return { code: ErrorCode.INVALID_INPUT, message };
    }
    const kind = error instanceof Error ? nameOf(error) : "";
    const message = presentable([kind, text].filter(Boolean).join(": "));
    return { code: ErrorCode.INTERNAL, message };
  } catch {
    // An agent's own class of errors may have any defect.
    return { code: ErrorCode.INTERNAL, message: "an error that cannot be described" };
  }
}

/**
 * Everything that is known about an error, for the log.
 *
 * @param {unknown} error
 */
export function trace(error) {
  try {
    return inspect(error);
  } catch {
    return "an error that cannot be shown";
  }
}

/** @param {unknown} error */
function single(error) {
  while (error instanceof AggregateError && error.errors.length === 1) error = error.errors[0];
  return error;
}

/** @param {Error} error */
function nameOf(error) {
  // `class NoMoney extends Error {}` has the name Error, and a class that says what it is.
  return error.name === "Error" ? error.constructor?.name || "Error" : String(error.name);
}

/** @param {unknown} value */
function brief(value) {
  return typeof value === "string" ? value : inspect(value, { depth: 2 });
}

/** @param {string} text */
function presentable(text) {
  const cut = text.length > MAX_ERROR_TEXT ? `${text.slice(0, MAX_ERROR_TEXT)}…` : text;
  // Half of a surrogate pair has no UTF-8: it is shown as its escape.
  return cut.replace(/\p{Surrogate}/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`);
}
