// Work in slices, each of which leaves the rest of its frame to the browser: so that typing and
// scrolling never wait for what has changed, however much it is.

const SLICE = 5; // milliseconds; then come styles, layout and paint

/** Drawing, as a generator that ends a step with each `yield`. `soon` has it done within the next
 * frames; and once more from its beginning, if something has changed meanwhile. */
export class Drawing {
  #draw;
  #steps = null;
  #frame = 0;
  #again = false;

  constructor(draw, signal) {
    this.#draw = draw;
    signal.addEventListener("abort", () => {
      cancelAnimationFrame(this.#frame);
      this.#frame = -1; // no more
    });
  }

  soon() {
    if (this.#steps !== null) this.#again = true;
    this.#frame ||= requestAnimationFrame(() => this.#slice());
  }

  #slice() {
    const ends = performance.now() + SLICE;
    this.#frame = 0;
    this.#steps ??= this.#draw();
    do {
      if (!this.#steps.next().done) continue;
      this.#steps = null;
      if (this.#again) this.soon();
      this.#again = false;
      return;
    } while (performance.now() < ends);
    this.#frame = requestAnimationFrame(() => this.#slice());
  }
}

let ends = 0;

/** Wait for another task, if this one has taken a slice's time. */
export async function pause() {
  if (performance.now() < ends) return;
  await new Promise((done) => {
    channel.port1.addEventListener("message", done, { once: true });
    channel.port2.postMessage(null);
  });
  ends = performance.now() + SLICE;
}

const channel = new MessageChannel(); // unlike timers, neither clamped nor delayed
channel.port1.start();
