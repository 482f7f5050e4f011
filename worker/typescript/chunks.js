// Streams: what a handler returned, as chunks, and the text of each.

import { describe } from "./errors.js";

/**
 * The chunks of a result that is a stream, or undefined for a value.
 *
 * A ReadableStream, an async iterable and an iterable are streams; strings, arrays, and objects that
 * say what their JSON is (toJSON) are values.
 *
 * @param {any} result
 * @returns {Chunks | undefined}
 */
export function chunksOf(result) {
  if (typeof result !== "object" || result === null) return undefined;
  if (typeof result.getReader === "function") return new Chunks(readerOf(result), true);
  if (typeof result[Symbol.asyncIterator] === "function") {
    return new Chunks(result[Symbol.asyncIterator](), true);
  }
  if (Array.isArray(result) || typeof result.toJSON === "function") return undefined;
  if (typeof result[Symbol.iterator] === "function")
    return new Chunks(result[Symbol.iterator](), false);
  return undefined;
}

/** An iterator that can be closed while somebody waits for its next value. */
export class Chunks {
  #iterator;
  #ended = false;
  #closing = /** @type {Promise<unknown> | undefined} */ (undefined);

  /** @param {AsyncIterator<unknown> | Iterator<unknown>} iterator @param {boolean} isAsync */
  constructor(iterator, isAsync) {
    this.#iterator = iterator;
    /** Whether `next` returns a promise. */
    this.isAsync = isAsync;
  }

  /** @returns {any} a step, or a promise of one */
  next() {
    return this.#iterator.next();
  }

  /** Remember that the iterator has ended by itself, and needs no closing. */
  ended() {
    this.#ended = true;
  }

  /** Close the iterator, unless it has ended; resolves when its `finally` blocks have run. */
  close() {
    if (this.#ended) return undefined;
    this.#closing ??= closed(this.#iterator);
    return this.#closing;
  }
}

/** @param {AsyncIterator<unknown> | Iterator<unknown>} iterator */
async function closed(iterator) {
  try {
    await iterator.return?.();
  } catch {
    // Why it is closed is what counts: a cancel, or an error of its own before.
  }
}

/**
 * A reader as an iterator: unlike the stream's own, its `return` ends a read that waits.
 *
 * @param {ReadableStream<unknown>} stream
 * @returns {AsyncIterator<unknown>}
 */
function readerOf(stream) {
  const reader = stream.getReader();
  return {
    next: () => /** @type {Promise<IteratorResult<unknown>>} */ (reader.read()),
    return: async () => {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
}

/**
 * The text of chunks, cut between code points: half of a surrogate pair, and the beginning of a
 * UTF-8 sequence, are held back until the next chunk brings the rest.
 */
export class ChunkText {
  #method;
  #half = "";
  #decoder = /** @type {TextDecoder | undefined} */ (undefined);

  /** @param {string} method for messages of errors */
  constructor(method) {
    this.#method = method;
  }

  /**
   * The text to send for a chunk, or undefined when all of it is held back. Throws TypeError.
   *
   * @param {unknown} chunk
   * @returns {string | undefined}
   */
  take(chunk) {
    let text = typeof chunk === "string" ? chunk : this.#decode(chunk);
    if (this.#half) {
      text = this.#half + text;
      this.#half = "";
    }
    const last = text.charCodeAt(text.length - 1);
    if (last >= 0xd800 && last <= 0xdbff) {
      this.#half = text.slice(-1);
      text = text.slice(0, -1);
    }
    if (!text.isWellFormed()) {
      throw new TypeError(`a chunk of the ${this.#method} handler holds half of a surrogate pair`);
    }
    return text || chunk === "" ? text : undefined;
  }

  /** Throws TypeError when the text ended within a character. */
  end() {
    if (this.#half) {
      throw new TypeError(
        `the ${this.#method} handler's last chunk ends with half of a surrogate pair`,
      );
    }
    try {
      this.#decoder?.decode();
    } catch {
      throw new TypeError(`the ${this.#method} handler's last chunk ends within a UTF-8 sequence`);
    }
  }

  /** @param {unknown} chunk */
  #decode(chunk) {
    if (!(chunk instanceof Uint8Array)) {
      throw new TypeError(
        `the ${this.#method} handler yielded ${describe(chunk)}, expected a string`,
      );
    }
    this.#decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    try {
      return this.#decoder.decode(chunk, { stream: true });
    } catch {
      throw new TypeError(`a chunk of the ${this.#method} handler is not UTF-8`);
    }
  }
}
