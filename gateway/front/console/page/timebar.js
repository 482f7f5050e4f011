// Where a request's time went, as a bar: waiting for a worker, for the first word, and speaking.

import { now } from "./clock.js";
import { h, setAttribute, setText } from "./dom.js";
import { duration } from "./format.js";

export const PHASES = [
  ["queue", "in the queue"],
  ["first", "until the first word"],
  ["rest", "answering"],
];

/** The seconds of each phase. Of a request that goes on, the last lasts until now. */
export function phasesOf(request) {
  const total = totalOf(request);
  const queue = request.queue ?? total; // null: no worker has ever had it
  const spoke = request.first !== null && (request.error === null || request.words > 0); // an error is no answer
  const first = spoke ? request.first : total;
  return {
    queue: Math.min(queue, total),
    first: Math.max(0, Math.min(first, total) - queue),
    rest: Math.max(0, total - Math.max(first, queue)),
    total,
  };
}

export const totalOf = (request) => request.total ?? Math.max(0, now() - request.began);

/** "queued 12 ms, first word after 1.2 s, 30 s in all" */
export function timeWords(request) {
  const phases = phasesOf(request);
  const told = PHASES.filter(([name]) => phases[name] > 0).map(([name, word]) => `${duration(phases[name])} ${word}`);
  return [...told, `${duration(phases.total)} in all`].join(", ");
}

/** A bar whose full width is `scale` seconds. */
export function timeBar() {
  const pieces = Object.fromEntries(PHASES.map(([name]) => [name, h("span", { class: `phase ${name}` })]));
  const bar = h("span", { class: "timebar-room", "aria-hidden": "true" }, ...Object.values(pieces));
  const words = h("span", { class: "unseen" });
  const element = h("span", { class: "timebar" }, bar, words);
  return {
    element,
    update(request, scale) {
      const phases = phasesOf(request);
      for (const [name] of PHASES) {
        const share = scale > 0 ? Math.min(100, (phases[name] / scale) * 100) : 0;
        pieces[name].style.setProperty("width", `${share.toFixed(2)}%`);
        pieces[name].classList.toggle("nothing", phases[name] <= 0);
      }
      setAttribute(element, "title", timeWords(request));
      setText(words, timeWords(request));
    },
  };
}

export const timeLegend = () => h("ul", { class: "legend" }, PHASES.map(
  ([name, word]) => h("li", {}, h("span", { class: `swatch ${name}`, "aria-hidden": "true" }), word)));
