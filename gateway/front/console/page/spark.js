// Sparklines: small lines of the last minutes, as SVG without axes. What they show stands beside
// them in figures, so that they are hidden from screen readers.

import { svg, setAttribute } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;
const FLOOR = HEIGHT - 1.5;
const ROOM = HEIGHT - 4;

/** A sparkline with these lines, the first of them with an area below it. `update(values, marks)`
 * draws: for each line its values, one a place, null where there is none; and the places that get
 * a mark at the bottom. */
export function sparkline(...classes) {
  const area = svg("path", { class: `area ${classes[0]}` });
  const lines = classes.map((name) => svg("path", { class: `line ${name}` }));
  const marks = svg("path", { class: "marks" });
  const element = svg(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    svg("path", { class: "floor", d: `M0 ${FLOOR}H${WIDTH}` }),
    area,
    [...lines].reverse(),
    marks,
  );
  return {
    element,
    update(values, marked = []) {
      const top = Math.max(...values.flat().map((each) => each ?? 0), Number.MIN_VALUE);
      const step = WIDTH / Math.max(1, values[0].length - 1);
      values.forEach((line, index) => setAttribute(lines[index], "d", path(line, step, top, false)));
      setAttribute(area, "d", path(values[0], step, top, true));
      element.classList.toggle("at-rest", top === Number.MIN_VALUE);
      const ticks = marked.map((place) => `M${round(place * step)} ${FLOOR}v-4`);
      setAttribute(marks, "d", ticks.join(""));
    },
  };
}

/** Pieces of a line, each from one gap to the next; a value alone is a short dash. */
function path(values, step, top, closed) {
  let drawn = "";
  for (let place = 0; place < values.length; place += 1) {
    if (values[place] === null) continue;
    const start = place;
    let piece = "";
    for (; place < values.length && values[place] !== null; place += 1) {
      const y = round(FLOOR - (values[place] / top) * ROOM);
      piece += `${place === start ? "M" : "L"}${round(place * step)} ${y}`;
    }
    if (place - start === 1) piece += `h${round(step * 0.8)}`;
    const end = round((place - 1) * step + (place - start === 1 ? step * 0.8 : 0));
    drawn += closed ? `${piece}L${end} ${FLOOR}L${round(start * step)} ${FLOOR}Z` : piece;
  }
  return drawn;
}

const round = (value) => Math.round(value * 10) / 10;

/** The sparklines of an agent's rate, with its errors marked, and of its latencies. */
export function trafficLines() {
  const rates = sparkline("rate");
  const latencies = sparkline("median", "high");
  return {
    rates: rates.element,
    latencies: latencies.element,
    update(points) {
      const at = Array.from(points);
      // The last bucket is not over: it would look as if requests had stopped.
      rates.update(
        [at.map((point, place) => (place === at.length - 1 ? null : (point?.[1] ?? 0)))],
        at.flatMap((point, place) => (point?.[2] > 0 ? [place] : [])),
      );
      latencies.update([at.map((point) => point?.[3] ?? null), at.map((point) => point?.[4] ?? null)]);
    },
  };
}
