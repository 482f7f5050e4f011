// Workers as cells, each with the colour and the shape of its state. Cells are drawn together: all
// those of one state in a block are one path, so that thousands of workers that change all the time
// are a few attributes to set. What the cells show stands beside them in words or in a table.

import { now } from "./clock.js";
import { h, setAttribute, setText, svg } from "./dom.js";
import { age, bytes, counted, number } from "./format.js";

/** The letters that the gateway tells of workers, and the states that they mean. */
const LETTERS = { b: "busy", r: "ready", s: "starting", t: "retiring", e: "stopping", f: "failing" };

export const STATES = Object.values(LETTERS);
const MOST_CELLS = 24;

export const statesOf = (cells) => Array.from(cells, (letter) => LETTERS[letter] ?? "stopping");

function countStates(states) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const state of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].filter(([, many]) => many > 0);
}

const inWords = (counts) => (counts.length === 0 ? "none" : counts.map(([state, many]) => `${number(many)} ${state}`).join(", "));

/** "3 busy, 1 ready" */
export const stateWords = (states) => inWords(countStates(states));

/** Where a state's shape begins at `x` and `y`, and goes on, in a square of the size `s`. */
const SHAPES = {
  ready: (x, y, s) => `M${x} ${y + s / 2}a${s / 2} ${s / 2} 0 1 0 ${s} 0a${s / 2} ${s / 2} 0 1 0 ${-s} 0z`,
  busy: (x, y, s) => `M${x} ${y}h${s}v${s}h${-s}z`,
  starting: (x, y, s) => [[x, y, 1, 1], [x + s, y, -1, 1], [x, y + s, 1, -1], [x + s, y + s, -1, -1]]
    .map(([left, top, right, down]) => `M${left} ${top}h${right * 4}v${down * 2}h${right * -2}v${down * 2}h${right * -2}z`).join(""),
  retiring: (x, y, s) => diamond(x, y, s) + diamond(x + 3, y + 3, s - 6),
  stopping: (x, y, s) => diamond(x, y, s),
  failing: (x, y, s) => `M${x} ${y + 2}l2 -2l${s / 2 - 2} ${s / 2 - 2}l${s / 2 - 2} ${2 - s / 2}l2 2l${2 - s / 2} ${s / 2 - 2}l${s / 2 - 2} ${s / 2 - 2}l-2 2l${2 - s / 2} ${2 - s / 2}l${2 - s / 2} ${s / 2 - 2}l-2 -2l${s / 2 - 2} ${2 - s / 2}z`,
};

const diamond = (x, y, s) => `M${x + s / 2} ${y}l${s / 2} ${s / 2}l${-s / 2} ${s / 2}l${-s / 2} ${-s / 2}z`;

const SIZE = 12;
const PITCH = 15; // from one cell to the next

/** Cells in rows of `columns`: an element, and what draws the cells of these states. */
function cellBlock(columns) {
  const paths = new Map();
  const element = svg("svg", { class: "cell-block", width: 0, height: 0, "aria-hidden": "true" });
  let drawn = "";
  return {
    element,
    update(states) {
      const form = states.join();
      if (form === drawn) return;
      drawn = form;
      const outlines = new Map();
      states.forEach((state, place) => {
        const shape = SHAPES[state]((place % columns) * PITCH, Math.floor(place / columns) * PITCH, SIZE);
        outlines.set(state, (outlines.get(state) ?? "") + shape);
      });
      for (const state of new Set([...outlines.keys(), ...paths.keys()])) {
        if (!paths.has(state)) {
          paths.set(state, svg("path", { "data-state": state }));
          element.append(paths.get(state));
        }
        setAttribute(paths.get(state), "d", outlines.get(state) ?? "");
      }
      const rows = Math.ceil(states.length / columns);
      setAttribute(element, "width", Math.max(0, Math.min(columns, states.length) * PITCH - PITCH + SIZE));
      setAttribute(element, "height", Math.max(0, rows * PITCH - PITCH + SIZE));
    },
  };
}

const STRIP_COLUMNS = 8;

/** The workers of an agent in a list: cells, or from two dozen on a bar of the states' shares. */
export function cellStrip() {
  const block = cellBlock(STRIP_COLUMNS);
  const shares = h("span", { class: "shares", "aria-hidden": "true" });
  const words = h("span", { class: "cell-words" });
  const element = h("span", { class: "strip" }, block.element, shares, words);
  let drawn = null;
  return {
    element,
    update(cells) {
      if (cells === drawn) return;
      drawn = cells;
      const states = statesOf(cells);
      const counts = countStates(states);
      const many = states.length > MOST_CELLS;
      setText(words, inWords(counts));
      words.classList.toggle("unseen", !many && states.length > 0);
      block.update(many ? [] : states);
      drawShares(shares, many ? counts : []);
    },
  };
}

/** Make the children of `bar` a share for each state, out of those that it has. */
function drawShares(bar, counts) {
  while (bar.childElementCount > counts.length) bar.lastElementChild.remove();
  while (bar.childElementCount < counts.length) bar.append(h("span", { class: "share" }));
  counts.forEach(([state, many], place) => {
    setAttribute(bar.children[place], "data-state", state);
    bar.children[place].style.setProperty("flex-grow", many);
  });
}

/** "busy, pid 4711, 3 m old, 41 MiB, 1,204 requests, 1 of 8 now" */
export function workerWords(worker) {
  const told = [worker.state];
  if (worker.pid !== null) told.push(`pid ${worker.pid}`);
  told.push(`${age(now() - worker.started)} old`);
  if (worker.memory !== null) told.push(bytes(worker.memory));
  told.push(counted(worker.served, "request"), `${worker.inFlight} of ${worker.capacity} now`);
  return told.join(", ");
}

const SIDE = 10; // cells of a block's row and column
const OF_BLOCK = SIDE * SIDE;

/** All workers of one agent, in blocks of a hundred cells that arrow keys walk through. The one
 * that is pointed at or walked to is the only option that the list box has, so that it is read out;
 * `chosen(place)` is told of it. */
export function cellGrid(chosen) {
  const room = h("div", { class: "cell-blocks" });
  const option = h("span", { role: "option", class: "unseen", "aria-selected": "true" });
  const grid = h("div", { class: "cell-grid", role: "listbox", tabindex: "0", "aria-label": "Workers" }, room, option);
  const told = h("p", { class: "told hint" }, "Point at a cell, or walk with the arrow keys.");
  const mark = svg("rect", { class: "chosen", width: SIZE + 2, height: SIZE + 2 });
  const element = h("div", {}, grid, told);
  const blocks = [];
  let workers = new Map();
  let ids = [];
  let at = null; // the id of the chosen one

  function choose(id) {
    const place = ids.indexOf(id);
    at = place < 0 ? null : id;
    if (at === null) {
      mark.remove();
      grid.removeAttribute("aria-activedescendant");
      return;
    }
    const words = workerWords(workers.get(id));
    setAttribute(option, "id", `worker-${id}`);
    setAttribute(option, "aria-setsize", ids.length);
    setAttribute(option, "aria-posinset", place + 1);
    setText(option, words);
    setText(told, words);
    setAttribute(grid, "aria-activedescendant", option.id);
    const block = blocks[Math.floor(place / OF_BLOCK)];
    if (block === undefined) return; // not drawn yet
    setAttribute(mark, "x", (place % SIDE) * PITCH - 1);
    setAttribute(mark, "y", Math.floor((place % OF_BLOCK) / SIDE) * PITCH - 1);
    if (mark.parentNode !== block.element) block.element.append(mark);
    chosen(place);
  }

  grid.addEventListener("pointermove", (event) => {
    const number = blocks.findIndex((block) => block.element.contains(event.target));
    if (number < 0) return;
    const { left, top } = blocks[number].element.getBoundingClientRect();
    const column = Math.min(SIDE - 1, Math.floor((event.clientX - left) / PITCH));
    const id = ids[number * OF_BLOCK + Math.floor((event.clientY - top) / PITCH) * SIDE + column];
    if (id !== undefined && id !== at) choose(id);
  });
  grid.addEventListener("focus", () => at ?? choose(ids[0]));
  grid.addEventListener("keydown", (event) => {
    const next = moved(event.key, ids.indexOf(at), ids.length);
    if (next === null) return;
    event.preventDefault();
    choose(ids[next]);
    mark.scrollIntoView({ block: "nearest" });
  });
  return {
    element,
    /** Draw all workers, a block in each step. */
    *updating(all) {
      workers = all;
      ids = [...all.keys()];
      for (let number = 0; number * OF_BLOCK < ids.length; number += 1) {
        if (blocks.length === number) {
          blocks.push(cellBlock(SIDE));
          room.append(blocks[number].element);
        }
        blocks[number].update(ids.slice(number * OF_BLOCK, (number + 1) * OF_BLOCK).map((id) => all.get(id).state));
        yield;
      }
      for (const block of blocks.splice(Math.ceil(ids.length / OF_BLOCK))) block.element.remove();
      if (at !== null) choose(at);
    },
  };
}

function moved(key, place, many) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };
  if (many === 0) return null;
  if (key === "Home") return 0;
  if (key === "End") return many - 1;
  if (!Object.hasOwn(steps, key)) return null;
  return Math.min(many - 1, Math.max(0, place + steps[key]));
}

/** What the shapes mean. */
export const legend = (states) => h("ul", { class: "legend" }, states.map((state) => h("li", {}, oneCell(state), state)));

/** The cell of one worker in that state. */
function oneCell(state) {
  const block = cellBlock(1);
  block.update([state]);
  return block.element;
}

/** A cell whose state changes. */
export const changingCell = () => cellBlock(1);
