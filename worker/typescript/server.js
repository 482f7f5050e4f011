// The server of one agent over the wire.
//
// # Theory of operation
//
// Each request is an async function on the event loop. Whatever its handler does, the request ends in
// `#finish`, exactly once, with one line, and nothing is sent for it afterwards. Normally that is when
// the handler has really ended: an answer means that no code of the request runs any more.
//
// There are two exceptions, since a promise cannot be stopped from outside. A request whose handler
// has not ended GRACE after its cancel is answered as cancelled, and its handler is left to itself,
// which is logged. And an error that no handler caught (attribution.js) ends its request at once.
// Such a request is *abandoned* until its handler has ended. No cancelled request becomes one while
// there are as many of them as the agent has places: it stays unanswered, and so the gateway
// replaces the worker.
//
// The server ends in one of three ways:
//
// - at the end of stdin, running and waiting requests finish, all lines are written, and the status
//   is 0.
// - on SIGTERM or SIGINT, every request is cancelled and finishes, or is abandoned. The status is 128
//   plus the signal's number. A second signal ends the process at once.
// - when stdout is closed, or a line of the gateway breaks the protocol, as on a signal, with status 1.

import { constants } from "node:os";
import { attribute, exit, onBehalfOf } from "./attribution.js";
import { ChunkText, chunksOf } from "./chunks.js";
import { Context, readContext } from "./context.js";
import { ErrorCode, InvalidInput, ProtocolError } from "./errors.js";
import { isEvent } from "./events.js";
import { explain, trace } from "./explain.js";
import { Outbox } from "./outbox.js";
import { readFrom, writerTo } from "./pipes.js";
import { validate } from "./schema.js";
import { Turn } from "./turn.js";
import {
  chunkWriter,
  endLine,
  errorLine,
  LineBuffer,
  messageLine,
  outputLine,
  overflows,
  read,
} from "./wire.js";

/**
 * Milliseconds for a handler to end after its cancel. Well below the gateway's own grace, the clock
 * `cancel` (5 s by default), after which it replaces the worker.
 */
export const GRACE = 2000;

/** Milliseconds for the last lines to leave after a signal, when the gateway may not read them. */
const LAST_WRITE = 250;

/** One request from its line to its answer. */
class Request {
  answered = false;
  cancelled = false;
  /** @type {import("./chunks.js").Chunks | undefined} */
  chunks = undefined;

  /**
   * @param {number} id
   * @param {import("./wire.js").Method} method
   * @param {unknown} payload
   * @param {Context} context
   * @param {import("./agent.js").Handler} handler
   */
  constructor(id, method, payload, context, handler) {
    this.id = id;
    this.method = method;
    this.payload = payload;
    this.context = context;
    this.handler = handler;
    this.turn = new Turn(id, method, context);
    this.name = context.requestId || String(id);
  }

  get isOver() {
    return this.answered || this.cancelled;
  }
}

/**
 * Serve until the process ends.
 *
 * @param {import("./agent.js").Agent} agent
 * @param {import("./stdio.js").Wire} wire
 */
export function serve(agent, wire) {
  const server = new Server(agent, writerTo(wire.output));
  attribute((error, request) => server.receiveStray(error, request));
  for (const name of /** @type {const} */ (["SIGTERM", "SIGINT"])) {
    process.on(name, () => server.receiveSignal(128 + constants.signals[name]));
  }
  readFrom(
    wire.input,
    (data) => server.receiveData(data),
    () => server.receiveEnd(),
  );
}

class Server {
  #agent;
  #outbox;
  #lines = new LineBuffer();
  /** @type {Map<number, Request>} */
  #running = new Map();
  /** @type {Map<number, Request>} in the order in which they came */
  #waiting = new Map();
  /** @type {Set<Request>} */
  #abandoned = new Set();
  /** @type {number | undefined} the exit status, once the server takes no more requests */
  #status = undefined;
  #stopped = false;

  /**
   * @param {import("./agent.js").Agent} agent
   * @param {ReturnType<typeof writerTo>} write
   */
  constructor(agent, write) {
    this.#agent = agent;
    this.#outbox = new Outbox(write, () => this.#stop(1));
  }

  /** @param {Buffer} data */
  receiveData(data) {
    if (this.#stopped) return;
    try {
      for (const line of this.#lines.feed(data)) this.#receive(line);
    } catch (error) {
      // Whatever it is, a request may have been lost by it.
      log(`${error instanceof ProtocolError ? error.message : trace(error)}; ending\n`);
      this.#stop(1);
    }
  }

  receiveEnd() {
    this.#status ??= 0;
    for (const request of this.#running.values()) if (request.cancelled) this.#giveGrace(request);
    this.#endIfIdle();
  }

  /** @param {number} status */
  receiveSignal(status) {
    if (this.#stopped) exit(status);
    this.#stop(status);
  }

  /** @param {unknown} error that nobody caught @param {Request | undefined} request */
  receiveStray(error, request) {
    if (request === undefined || request.answered) {
      const whose = request ? `request ${request.name}, which is answered` : "no request";
      log(`an error that nobody caught, of ${whose}\n${trace(error)}\n`);
      return;
    }
    this.#abandoned.add(request); // until its handler has ended
    this.#finish(request, this.#failure(request, error));
    this.#interrupt(request, "the request has failed");
  }

  /** @param {string} line */
  #receive(line) {
    const event = read(line);
    if (event === undefined) return;
    if (event.kind === "cancel") this.#cancel(event.id);
    else if (event.method === "invoke" || event.method === "chat") this.#admit(event, event.method);
    else this.#refuse(event.id, ErrorCode.HANDLER_NOT_IMPLEMENTED, `no method "${event.method}"`);
  }

  /**
   * @param {{id: number, params: import("./wire.js").Params, text: string}} event
   * @param {import("./wire.js").Method} method
   */
  #admit({ id, params, text }, method) {
    if (this.#running.has(id) || this.#waiting.has(id)) {
      throw new ProtocolError(`request ${id} came twice`);
    }
    const handler = this.#agent.handlers.get(method);
    if (handler === undefined) {
      const has = [...this.#agent.handlers.keys()].join(" and ");
      const message = `agent "${this.#agent.name}" has no handler for ${method}, only for ${has}`;
      this.#refuse(id, ErrorCode.HANDLER_NOT_IMPLEMENTED, message);
      return;
    }
    let request;
    try {
      request = new Request(
        id,
        method,
        payloadOf(params, method, text),
        readContext(params),
        handler,
      );
    } catch (error) {
      const { code, message } = explain(error);
      this.#refuse(id, code, message);
      return;
    }
    if (this.#running.size < this.#agent.concurrency) this.#start(request);
    else this.#waiting.set(id, request);
  }

  /** @param {Request} request */
  #start(request) {
    this.#running.set(request.id, request);
    onBehalfOf(request, () => this.#run(request));
  }

  /** @param {Request} request */
  async #run(request) {
    let line;
    try {
      const result = await callHandler(request);
      request.chunks = chunksOf(result);
      if (request.chunks !== undefined) await this.#stream(request, request.chunks);
      line = request.isOver ? cancelledLine(request) : answerLine(request, result);
    } catch (error) {
      line = this.#failure(request, error);
    }
    this.#abandoned.delete(request);
    this.#finish(request, line);
  }

  /** @param {Request} request @param {import("./chunks.js").Chunks} chunks */
  async #stream(request, chunks) {
    const outbox = this.#outbox;
    const text = new ChunkText(request.method);
    const write = chunkWriter(request.id);
    try {
      while (!request.isOver) {
        const step = chunks.isAsync ? await chunks.next() : chunks.next();
        if (request.isOver) break;
        if (step.done) {
          chunks.ended();
          text.end();
          break;
        }
        if (typeof step.value === "string" || !isEvent(step.value)) {
          const piece = text.take(step.value);
          if (piece !== undefined) outbox.put(write(piece));
        } else {
          outbox.put(request.turn.note(step.value));
        }
        if (outbox.isFull) await outbox.room(() => request.isOver);
        else if (outbox.isLate) await outbox.turn();
      }
    } finally {
      await chunks.close();
    }
  }

  /** @param {Request} request @param {unknown} error @returns {string} */
  #failure(request, error) {
    if (request.cancelled) return cancelledLine(request);
    const { code, message } = explain(error);
    if (code !== ErrorCode.INVALID_INPUT && !request.answered) {
      const what = `request ${request.name}: the ${request.method} handler failed\n${trace(error)}`;
      logFor(request, what);
    }
    return errorLine(request.id, code, message);
  }

  /** @param {Request} request @param {string} line */
  #finish(request, line) {
    if (request.answered) return;
    request.answered = true;
    this.#running.delete(request.id);
    this.#outbox.put(line);
    const [next] = this.#waiting.values();
    if (next !== undefined) {
      this.#waiting.delete(next.id);
      this.#start(next);
    }
    this.#endIfIdle();
  }

  /** @param {number} id @param {number} code @param {string} message */
  #refuse(id, code, message) {
    this.#outbox.put(errorLine(id, code, message));
  }

  /** @param {number} id */
  #cancel(id) {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) {
      this.#waiting.delete(id);
      this.#outbox.put(cancelledLine(waiting));
      return;
    }
    const running = this.#running.get(id);
    if (running !== undefined && !running.cancelled) this.#cancelRunning(running);
  }

  /** @param {Request} request */
  #cancelRunning(request) {
    request.cancelled = true;
    this.#interrupt(request, "the request was cancelled");
    this.#giveGrace(request);
  }

  /** Ask a handler to end: its signal, its iterator, and its wait for room. */
  #interrupt(/** @type {Request} */ request, /** @type {string} */ why) {
    onBehalfOf(request, () => {
      Context.abort(request.context, new DOMException(why, "AbortError"));
      request.chunks?.close();
    });
    this.#outbox.wake();
  }

  /** @param {Request} request */
  #giveGrace(request) {
    setTimeout(() => this.#abandon(request), GRACE);
  }

  /** @param {Request} request */
  #abandon(request) {
    if (request.answered) return;
    if (this.#status === undefined && this.#abandoned.size >= this.#agent.concurrency) return;
    this.#abandoned.add(request);
    const what = `its ${request.method} handler still runs; pass ctx.signal on to what it waits for`;
    logFor(request, `request ${request.name}: cancelled ${GRACE / 1000} s ago, and ${what}`);
    this.#finish(request, cancelledLine(request));
  }

  /** @param {number} status */
  #stop(status) {
    this.#stopped = true;
    this.#status = this.#status || status;
    this.#waiting.clear();
    for (const request of this.#running.values()) this.#cancelRunning(request);
    this.#endIfIdle();
  }

  async #endIfIdle() {
    const status = this.#status;
    if (status === undefined || this.#running.size || this.#waiting.size) return;
    if (this.#stopped) setTimeout(exit, LAST_WRITE, status);
    await this.#outbox.drained();
    exit(this.#status);
  }
}

/** @param {import("./wire.js").Params} params @param {"invoke" | "chat"} method @param {string} text */
function payloadOf(params, method, text) {
  const [name, value] =
    method === "invoke" ? ["input", params.input] : ["messages", params.messages];
  for (const [what, parsed] of /** @type {[string, unknown][]} */ ([
    [name, value],
    ["context", params.context],
    ["tools", params.tools],
    ["resume", params.resume],
  ])) {
    if (overflows(parsed, text)) {
      throw new InvalidInput(`${what} cannot be decoded: a number is beyond every double`);
    }
  }
  return value;
}

/** @param {Request} request */
async function callHandler({ handler, method, payload, context }) {
  const name = method === "invoke" ? "input" : "messages";
  const input = handler.schema ? await validate(handler.schema, payload, name) : payload;
  return handler.call(input, context);
}

/** @param {Request} request @param {any} result @returns {string} */
function answerLine({ id, method, turn, chunks }, result) {
  if (chunks !== undefined) return endLine(id, turn.outcome());
  // An invoke may answer with any object, so that only what it yields is an event.
  if (method === "chat" && isEvent(result) && !("role" in result)) {
    return turn.note(result) + endLine(id, turn.outcome());
  }
  try {
    if (method === "invoke") return outputLine(id, result, turn.outcome());
    const [lines, message] = turn.takeApart(result);
    return lines + messageLine(id, message, turn.outcome());
  } catch (error) {
    const why = explain(error).message;
    throw new TypeError(`the ${method} handler's answer cannot be sent: ${why}`, { cause: error });
  }
}

/** @param {Request} request */
function cancelledLine(request) {
  return errorLine(request.id, ErrorCode.CANCELLED, "cancelled");
}

/** The gateway logs such lines as this request's (protocol/README.md, "stderr"). */
function logFor(/** @type {Request} */ request, /** @type {string} */ text) {
  log(`${text.replace(/^/gm, `@${request.id} `)}\n`);
}

/** @param {string} text */
function log(text) {
  try {
    process.stderr.write(text);
  } catch {
    // An agent may have closed or replaced stderr; its request is answered nevertheless.
  }
}
