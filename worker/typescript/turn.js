// A turn: what the handler of one request says beside text, and how its answer ends because of it.
//
// # Theory of operation
//
// A handler yields text and events. Text goes the way it always went (chunks.js); each event comes to
// `note`. Reasoning, tool calls and their results, statuses and files become lines of the wire at
// once, in their place among the chunks. Usage, a finish and questions are kept: they are the answer's
// outcome, which travels with its end.
//
// A caller who did not ask for events gets none, and no outcome. What was yielded is checked all the
// same, so that a mistake is found by whoever tries the agent first. A question is the one thing that
// such a caller would miss: its message is text for them.
//
// A tool call is the *client's* if the request's `tools` have its name. Such a call without a result
// when the handler ends makes the finish `tool_calls`; any question makes it `input_required`.

import { describe } from "./errors.js";
import { encodeEvent, isEvent, MAX_EVENT_BYTES } from "./events.js";
import { chunkWriter, eventLine, stringify } from "./wire.js";

const MAX_CALLS = 1024;
const MAX_ASKS = 16;
const FINISHES = ["stop", "length", "refused", "tool_calls"];

/** @type {Record<string, string>} */
const OPENAI_COUNTS = { prompt_tokens: "input_tokens", completion_tokens: "output_tokens" };

/** One request's answer while it is given. */
export class Turn {
  #method;
  #clientTools;
  /** @type {Map<string, {name: string, size: number | undefined}>} calls, and the size of their pieces */
  #calls = new Map();
  /** @type {Set<string>} the client's calls that wait for a result */
  #pending = new Set();
  /** @type {Map<string, string>} questions as JSON, by id */
  #asks = new Map();
  /** @type {Record<string, number> | undefined} */
  #usage = undefined;
  /** @type {string | undefined} */
  #finish = undefined;

  /**
   * @param {number} id
   * @param {string} method
   * @param {{events: boolean, tools: readonly {name: string}[]}} context
   */
  constructor(id, method, { events, tools }) {
    this.id = id;
    this.#method = method;
    /** Whether the caller asked for more than text. */
    this.events = events;
    this.#clientTools = tools;
  }

  /**
   * The line to send for an event, or nothing. Throws TypeError or RangeError, worded for the agent's
   * author.
   *
   * @param {unknown} event
   * @returns {string}
   */
  note(event) {
    if (!isEvent(event)) {
      const found = describe(event);
      throw new TypeError(`the ${this.#method} handler yielded ${found}, expected a string`);
    }
    try {
      return this.#note(event);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const Kind = error instanceof RangeError ? RangeError : TypeError;
      throw new Kind(`an event of the ${this.#method} handler cannot be sent: ${why}`);
    }
  }

  /**
   * The lines for the tool calls of a message, and the message without them, its usage and its
   * finish. Nothing is taken for a caller who did not ask for events.
   *
   * @param {any} answer
   * @returns {[string, any]}
   */
  takeApart(answer) {
    const isMessage = typeof answer === "object" && answer !== null && !Array.isArray(answer);
    if (!this.events || !isMessage) return ["", answer];
    const { tool_calls, usage, finish, ...message } = answer;
    if (!Array.isArray(tool_calls ?? [])) {
      throw new TypeError(`the tool_calls are ${describe(tool_calls)}, expected an array`);
    }
    if (typeof (usage ?? {}) !== "object") {
      throw new TypeError(`the usage is ${describe(usage)}, expected an object of counts`);
    }
    if (!FINISHES.includes(finish ?? "stop")) {
      throw new TypeError(
        `the finish is ${JSON.stringify(finish)}, expected ${FINISHES.join(", ")}`,
      );
    }
    const lines = (tool_calls ?? []).map((/** @type {any} */ call) => this.note(toolCall(call)));
    if (usage) this.note({ type: "usage", ...countsOf(usage) });
    this.#finish = finish ?? this.#finish;
    // Else a stream would have the JSON text of what is left.
    if (lines.length) message.content ??= "";
    return [lines.join(""), message];
  }

  /** The members that the answer's result has because of the outcome, as JSON texts. */
  outcome() {
    /** @type {Record<string, string>} */
    const members = {};
    if (!this.events) return members;
    let finish = this.#finish;
    if (this.#pending.size) finish = "tool_calls";
    if (this.#asks.size) finish = "input_required";
    if (finish !== undefined) members.finish = JSON.stringify(finish);
    if (this.#usage !== undefined) members.usage = stringify(this.#usage);
    if (this.#asks.size) members.asks = `[${[...this.#asks.values()].join(",")}]`;
    return members;
  }

  /** @param {{type: string, [member: string]: any}} event @returns {string} */
  #note(event) {
    const json = encodeEvent(event);
    switch (event.type) {
      case "usage":
        this.#addUsage(event);
        return "";
      case "finish":
        this.#finish = event.reason;
        return "";
      case "ask":
        return this.#ask(event);
      case "tool_call":
        this.#call(event);
        break;
      case "tool_result":
        this.#pending.delete(event.call);
    }
    return this.events ? eventLine(this.id, json) : "";
  }

  /** @param {Record<string, any>} event */
  #addUsage({ type: _, ...counts }) {
    this.#usage ??= {};
    for (const [name, count] of Object.entries(counts)) {
      if (count !== undefined) this.#usage[name] = (this.#usage[name] ?? 0) + count;
    }
  }

  /** @param {Record<string, any>} event @returns {string} */
  #ask({ type: _, ...ask }) {
    if (this.#asks.has(ask.id)) throw new TypeError(`ask.id is ${JSON.stringify(ask.id)} twice`);
    if (this.#asks.size >= MAX_ASKS) throw new RangeError(`more than ${MAX_ASKS} questions`);
    this.#asks.set(ask.id, stringify({ reason: "question", ...ask }));
    return this.events ? "" : chunkWriter(this.id)(ask.message);
  }

  /** @param {Record<string, any>} event */
  #call({ call, name, delta }) {
    const before = this.#calls.get(call);
    const which = `tool_call ${JSON.stringify(call)}`;
    if (before === undefined) {
      if (this.#calls.size >= MAX_CALLS) throw new RangeError(`more than ${MAX_CALLS} tool calls`);
      if (this.#clientTools.some((tool) => tool.name === name)) this.#pending.add(call);
    } else {
      if (before.name !== name)
        throw new TypeError(`${which} has two names, ${before.name} and ${name}`);
      if (before.size === undefined)
        throw new TypeError(`${which} goes on after all its arguments`);
      if (delta === undefined) throw new TypeError(`${which} has arguments after a delta`);
    }
    const size = delta === undefined ? undefined : (before?.size ?? 0) + delta.length;
    if (size !== undefined && size > MAX_EVENT_BYTES) {
      throw new RangeError(`${which} has more than ${MAX_EVENT_BYTES} characters of arguments`);
    }
    this.#calls.set(call, { name, size });
  }
}

/** A member of a message's `tool_calls`, as OpenAI's API has it, as an event. @param {any} call */
function toolCall(call) {
  const { name, arguments: text = "" } = call?.function ?? {};
  const event = { type: "tool_call", call: call?.id, name };
  if (typeof text !== "string") return { ...event, arguments: text };
  try {
    const parsed = JSON.parse(text || "{}");
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) {
      return { ...event, arguments: parsed };
    }
  } catch {
    // as the model wrote it
  }
  return { ...event, delta: text };
}

/** @param {Record<string, any>} usage */
function countsOf(usage) {
  const counts = Object.entries(usage).filter(([, count]) => typeof count === "number");
  return Object.fromEntries(counts.map(([name, count]) => [OPENAI_COUNTS[name] ?? name, count]));
}
