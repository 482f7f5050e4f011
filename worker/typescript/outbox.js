// The bounded queue of lines for the gateway, written in batches.
//
// All lines of one turn of the event loop leave in one write. While the gateway does not read, the
// queue passes its high-water mark, and producers of many lines wait (backpressure). This module
// does not know what a line says.

/**
 * Producers wait while more than this is queued, in UTF-16 units. The mark is above the default
 * capacity of a pipe (pipe(7): 64 KiB), so that the gateway finds the pipe full once and enlarges
 * it, if it may: from then on one write takes everything.
 */
export const HIGH_WATER = 96 * 1024;

/** Milliseconds that producers may go on without giving the event loop a turn. */
const PATIENCE = 1;

export class Outbox {
  #write;
  #onBroken;
  #lines = "";
  #leaving = 0;
  #lastTurn = 0;
  #broken = false;
  #flushIsDue = false;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {(text: string, done: (error?: Error | null) => void) => void} write
   * @param {() => void} onBroken called once, when the reading end is gone; lines are dropped from
   *   then on
   */
  constructor(write, onBroken) {
    this.#write = write;
    this.#onBroken = onBroken;
  }

  /** @param {string} line */
  put(line) {
    if (this.#broken) return;
    this.#lines += line;
    if (this.#flushIsDue || this.#leaving) return;
    this.#flushIsDue = true;
    // After all microtasks: an async generator that does not wait runs in one go until then. (Bun's
    // process.nextTick does not wait for them.)
    setImmediate(this.#flush);
  }

  /** Whether producers should wait for room. */
  get isFull() {
    return this.#lines.length + this.#leaving > HIGH_WATER;
  }

  /**
   * Whether the event loop had no turn for long: a producer computes, and its lines should leave
   * before it goes on.
   */
  get isLate() {
    return performance.now() - this.#lastTurn > PATIENCE;
  }

  /**
   * Write; resolve as soon as there is room, or `unless` is true. Always gives other tasks a turn.
   *
   * @param {() => boolean} unless evaluated again after each write, and by `wake`
   */
  async room(unless) {
    this.#flush();
    while (this.isFull && !unless()) await this.#progress();
    await this.turn();
  }

  /**
   * Give other tasks a turn, and let the queued lines leave.
   *
   * @returns {Promise<void>}
   */
  turn() {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Resolves when everything has been written. */
  async drained() {
    this.#flush();
    while (this.#lines || this.#leaving) await this.#progress();
  }

  /** Make those who wait for room check their `unless` again. */
  wake() {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const go of waiting) go();
  }

  /** @returns {Promise<void>} */
  #progress() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #flush = () => {
    this.#flushIsDue = false;
    this.#lastTurn = performance.now();
    if (!this.#lines || this.#leaving) return;
    const text = this.#lines;
    this.#lines = "";
    this.#leaving = text.length;
    this.#write(text, this.#written);
  };

  /** @param {Error | null} [error] */
  #written = (error) => {
    this.#leaving = 0;
    if (error) this.#drop();
    else this.#flush();
    this.wake();
  };

  #drop() {
    this.#lines = "";
    if (this.#broken) return;
    this.#broken = true;
    this.#onBroken();
  }
}
