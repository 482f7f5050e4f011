// Server-Sent Events (WHATWG HTML, 9.2), read by fetch: EventSource can send no key.

import { Refused, send } from "./api.js";
import { pause as pauseIfLong } from "./slices.js";

/** The events of a response's body: `{ event, data, id }`, each once its empty line has come. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { event: "message", data: [], id: null };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (!/[\r\n]/.test(value)) {
        rest += value; // a piece of a long line, which is split once
        continue;
      }
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
          event = { event: "message", data: [], id: event.id };
        } else {
          readField(event, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function readField(event, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") event.data.push(value);
  else if (name === "event") event.event = value;
  else if (name === "id") event.id = value;
}

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;

/** Follow a stream of the gateway's until `signal` is aborted: again and again if it ends, but not
 * while nobody sees the page, nor if it is refused for what was asked. `heard(event, data)` gets
 * each event with its JSON value; `linked` is told whether there is a stream, and if not, why. */
export async function follow(path, { heard, linked = () => {}, signal }) {
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    await seen(signal);
    const scope = new AbortController();
    const stop = () => scope.abort();
    const look = () => document.hidden && stop();
    signal.addEventListener("abort", stop);
    document.addEventListener("visibilitychange", look);
    let reason = null;
    try {
      const response = await send(typeof path === "function" ? path() : path, {
        headers: { Accept: "text/event-stream" },
        signal: scope.signal,
      });
      linked(true);
      for await (const event of events(response)) {
        wait = FIRST_WAIT;
        heard(event.event, JSON.parse(event.data));
        await pauseIfLong(); // many events may have come together
      }
    } catch (error) {
      reason = error;
    } finally {
      signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", look);
      scope.abort();
    }
    if (signal.aborted) return;
    if (isFinal(reason)) return linked(false, reason);
    if (!document.hidden) {
      linked(false, reason);
      await pause(wait, signal);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }
}

/** Whether the same request would be refused again, as for an agent that the key may not call. */
export const isFinal = (reason) => reason instanceof Refused && [400, 403, 404].includes(reason.status);

/** Wait until the page is visible. */
function seen(signal) {
  return new Promise((done) => {
    if (!document.hidden || signal.aborted) return done();
    const scope = new AbortController();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      scope.abort();
      done();
    };
    document.addEventListener("visibilitychange", look, { signal: scope.signal });
    signal.addEventListener("abort", look, { signal: scope.signal });
  });
}

function pause(milliseconds, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
