// Workers as cells, each with the colour and the shape of its state. A few are drawn one by one
// wherever they are; many are counted in a list, and drawn one by one on their agent's page.

import { now } from "./clock.js";
import { h, Keyed, setAttribute, setText } from "./dom.js";
import { age, bytes, counted, number } from "./format.js";

export const STATES = ["busy", "ready", "starting", "retiring", "stopping", "failing"];
const MOST_CELLS = 24;

export function countStates(workers) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const { state } of workers.values()) counts.set(state, (counts.get(state) ?? 0) + 1);
  return counts;
}

/** "3 busy, 1 ready" */
export function stateWords(workers) {
  if (workers.size === 0) return "none";
  const counts = [...countStates(workers)].filter(([, many]) => many > 0);
  return counts.map(([state, many]) => `${number(many)} ${state}`).join(", ");
}

/** The workers of an agent in a list: cells, or from two dozen on a bar of the states' shares. */
export function cellStrip() {
  const strip = h("span", { class: "cells", "aria-hidden": "true" });
  const words = h("span", { class: "cell-words" });
  const element = h("span", { class: "strip" }, strip, words);
  let drawn = "";
  let wasMany = false;
  return {
    element,
    update(workers) {
      const many = workers.size > MOST_CELLS;
      const counts = [...countStates(workers)].filter(([, count]) => count > 0);
      const form = many
        ? counts.map(([state, count]) => `${state}:${count}`).join()
        : [...workers.values()].map((worker) => worker.state).join();
      setText(words, stateWords(workers));
      words.classList.toggle("unseen", !many && workers.size > 0);
      if (form === drawn) return;
      drawn = form;
      if (strip.classList.toggle("shares", many) !== wasMany) strip.replaceChildren();
      wasMany = many;
      if (many) {
        strip.replaceChildren(...counts.map(([state, count]) => {
          const share = h("span", { class: "share", "data-state": state });
          share.style.setProperty("flex-grow", count);
          return share;
        }));
      } else {
        drawCells(strip, [...workers.values()]);
      }
    },
  };
}

/** Make the children of `strip` a cell for each worker, out of those that it has. */
function drawCells(strip, workers) {
  while (strip.childElementCount > workers.length) strip.lastElementChild.remove();
  while (strip.childElementCount < workers.length) strip.append(h("span", { class: "cell" }));
  workers.forEach((worker, place) => {
    const cell = strip.children[place];
    setAttribute(cell, "data-state", worker.state);
  });
}

/** "busy, pid 4711, 3 m old, 41 MiB, 1,204 requests, 1 of 8 now" */
export function workerWords(worker) {
  const told = [worker.state];
  if (worker.pid !== null) told.push(`pid ${worker.pid}`);
  told.push(`${age(now() - worker.started)} old`);
  if (worker.memory !== null) told.push(bytes(worker.memory));
  told.push(counted(worker.served, "request"), `${worker.in_flight} of ${worker.capacity} now`);
  return told.join(", ");
}

/** All workers of one agent as a grid of cells that arrow keys walk through; the one that is
 * pointed at or walked to is described below. */
export function cellGrid() {
  const grid = h("div", { class: "cells grid", role: "listbox", tabindex: "0", "aria-label": "Workers" });
  const told = h("p", { class: "told hint", id: "worker-told" }, "Point at a cell, or walk with the arrow keys.");
  const element = h("div", {}, grid, told);
  let workers = new Map();
  let chosen = null;
  const keyed = new Keyed(grid, (id) => {
    const cell = h("span", { class: "cell", role: "option", id: `worker-${id}`, "data-id": id });
    return {
      element: cell,
      update(id) {
        const { state } = workers.get(id);
        if (cell.dataset.state === state) return;
        cell.dataset.state = state;
        setAttribute(cell, "aria-label", state);
      },
    };
  });
  const choose = (id) => {
    if (chosen !== null) keyed.get(chosen)?.element.removeAttribute("aria-selected");
    chosen = id;
    const cell = keyed.get(id)?.element;
    if (cell === undefined) return;
    cell.setAttribute("aria-selected", "true");
    cell.setAttribute("aria-label", workerWords(workers.get(id)));
    grid.setAttribute("aria-activedescendant", cell.id);
    setText(told, workerWords(workers.get(id)));
  };
  grid.addEventListener("pointerover", (event) => event.target.dataset.id && choose(event.target.dataset.id));
  grid.addEventListener("focus", () => chosen ?? choose([...workers.keys()][0]));
  grid.addEventListener("keydown", (event) => {
    const ids = [...workers.keys()];
    const next = moved(event.key, ids.indexOf(chosen), ids.length, rowLength(grid));
    if (next === null) return;
    event.preventDefault();
    choose(ids[next]);
    keyed.get(ids[next]).element.scrollIntoView({ block: "nearest" });
  });
  return {
    element,
    update(all) {
      workers = all;
      keyed.update(all.keys(), (id) => id);
      if (chosen !== null && all.has(chosen)) choose(chosen);
      else chosen = null;
    },
  };
}

function moved(key, place, many, row) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row };
  if (many === 0) return null;
  if (key === "Home") return 0;
  if (key === "End") return many - 1;
  if (!Object.hasOwn(steps, key)) return null;
  return Math.min(many - 1, Math.max(0, place + steps[key]));
}

function rowLength(grid) {
  const columns = getComputedStyle(grid).gridTemplateColumns;
  return Math.max(1, columns.split(" ").length);
}

/** What the shapes mean. */
export const legend = (states) =>
  h("ul", { class: "legend" }, states.map(
    (state) => h("li", {}, h("span", { class: "cell", "data-state": state, "aria-hidden": "true" }), state),
  ));
