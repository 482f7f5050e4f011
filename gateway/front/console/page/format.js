// Quantities in words. Figures are the reader's own (`Intl`), units are those of the settings.

import { now } from "./clock.js";

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const number = (value) => (value < 100_000 ? count.format(value) : compact.format(value));

/** "1 request", "3 requests". */
export const counted = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;

/** A duration given in seconds: "840 µs", "12 ms", "1.2 s", "3 m 20 s", "2 h 5 m", "3 d 4 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds <= 0) return "0 ms";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  if (seconds < 3570) return parts(seconds, 60, "m", 1, "s");
  if (seconds < 86_400) return parts(seconds, 3600, "h", 60, "m");
  return parts(seconds, 86_400, "d", 3600, "h");
}

/** An age: without the fractions that would change with every look. */
export function age(seconds) {
  if (seconds < 1) return "now";
  return seconds < 60 ? `${Math.floor(seconds)} s` : duration(Math.floor(seconds));
}

function parts(seconds, large, largeUnit, small, smallUnit) {
  let many = Math.floor(seconds / large);
  let few = Math.round((seconds % large) / small);
  if (few * small >= large) [many, few] = [many + 1, 0];
  return few === 0 ? `${many} ${largeUnit}` : `${many} ${largeUnit} ${few} ${smallUnit}`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  let scaled = value;
  while (scaled >= 1023.5 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit > 0 && scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)} ${UNITS[unit]}`;
}

/** Events in a second: "0", "0.3/s", "12/s". */
export function rate(perSecond) {
  if (!(perSecond > 0)) return "0/s";
  if (perSecond < 0.05) return `${(perSecond * 60).toFixed(1)}/min`;
  return perSecond < 9.95 ? `${perSecond.toFixed(1)}/s` : `${number(perSecond)}/s`;
}

/** The time of day of a Unix time in seconds; with the date if that is another day. */
export function time(unix) {
  const date = new Date(unix * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${date.toISOString().slice(0, 10)} ${clock.format(date)}`;
}

/** "12 s ago", of a Unix time in seconds. */
export function ago(unix) {
  const seconds = Math.max(0, now() - unix);
  return seconds < 1 ? "just now" : `${age(seconds)} ago`;
}

const collator = new Intl.Collator("en", { numeric: true });

/** Compares two names as people order them: agent-2 before agent-10. */
export const byName = (a, b) => collator.compare(a, b);
