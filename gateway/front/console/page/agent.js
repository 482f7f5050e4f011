// One agent: what it is doing, its workers, what went wrong last, and what it may do.

import { now } from "./clock.js";
import { get } from "./api.js";
import { cellGrid, changingCell, legend, STATES, statesOf, stateWords } from "./cells.js";
import { h, Keyed, said, setAttribute, setText } from "./dom.js";
import { facts, pretty } from "./facts.js";
import { age, ago, bytes, counted, duration, number, rate } from "./format.js";
import { agents, hello, lastMinute, recentPoints, series, shownState, watchAgents, Workers } from "./live.js";
import { Drawing } from "./slices.js";
import { trafficLines } from "./spark.js";
import { isFinal } from "./stream.js";

const MOST_HOSTED = 500; // workers at hosts that are shown
const MOST_ROWS = 25; // workers in the table at a time; where there are more, there are cells, too

export function showAgent(place, { name, signal, linked }) {
  const badge = h("span", { class: "badge", hidden: true });
  const meaning = h("span", { class: "dim" });
  const description = said("", "p", { class: "lead" });
  const missing = h("p", { class: "empty", hidden: true }, "There is no such agent here.");
  const to = (part) => `#/${part}${part === "try" ? "/" : "?agent="}${encodeURIComponent(name)}`;
  const workers = new Workers();
  const body = agentBody(name, workers, signal);
  const whole = h("div", { hidden: true }, description, body.element);
  place.append(
    h("p", { class: "crumb" }, h("a", { href: "#/agents" }, "All agents")),
    h("div", { class: "head" }, said(name, "h1", { tabindex: "-1" }), badge, meaning, h("span", { class: "grow" }),
      h("a", { href: to("try"), class: "go" }, "Try it"), h("a", { href: to("requests"), class: "go" }, "Requests"),
      h("a", { href: to("log"), class: "go" }, "Log")),
    whole, missing,
  );

  const look = () => {
    const agent = agents.get(name);
    whole.hidden = badge.hidden = agent === undefined;
    missing.hidden = agent !== undefined;
    if (agent === undefined) return;
    const state = shownState(agent.state);
    setAttribute(badge, "data-tone", state.tone);
    setText(badge, state.word);
    setText(meaning, state.meaning);
    setText(description, agent.description ?? "");
    description.hidden = !agent.description;
    body.update(agent);
  };
  const tick = setInterval(() => agents.has(name) && look(), hello.bucket * 1000);
  signal.addEventListener("abort", () => clearInterval(tick));
  if (agents.has(name)) look();
  watchAgents(signal, (names) => (names.has(name) || !agents.has(name)) && look(), (is, reason) => {
    linked(is, reason);
    if (!isFinal(reason)) return;
    agents.delete(name); // the key may not call it, or not any more
    look();
  }, { name, workers });
}

/** Everything about an agent but its name and its state; `kept` are its `Workers`. */
export function agentBody(name, kept, signal) {
  const traffic = trafficPanel();
  const workers = hello.fleet ? hostedPanel() : workersPanel(kept.map, signal);
  const trouble = h("section", { class: "panel troubles", "aria-labelledby": "trouble-title", hidden: true });
  const more = h("div", { class: "columns" });
  const used = { services: usedPanel("Services"), network: usedPanel("Network") };
  let revision = null;
  let point = null; // when the last requests ended whose traffic was asked for
  if (hello.fleet) askAgain(name, signal, (body) => workers.show(body));
  return {
    element: h("div", { class: "stack" }, trouble, h("div", { class: "columns" }, traffic.element, workers.element), more),
    update(agent) {
      traffic.update(agent);
      workers.update(agent);
      showTroubles(trouble, agent);
      const newest = series.get(name)?.at(-1)?.[0] ?? null;
      const changed = agent.revision !== revision;
      if (!changed && newest === point) return;
      [revision, point] = [agent.revision, newest];
      get(`console/api/agents/${encodeURIComponent(name)}`, { signal })
        .then((body) => {
          used.services.show(body.services ?? {});
          used.network.show(body.network?.requests > 0 ? body.network : {});
          if (changed) more.replaceChildren(...described(body, used.services.element, used.network.element));
        })
        .catch((error) => {
          if (signal.aborted) return;
          revision = null; // it is asked for again
          more.replaceChildren(said(error.message, "p", { class: "refusal" }));
        });
    },
  };
}

function trafficPanel() {
  const lines = trafficLines();
  const figures = {};
  const figure = (key, word) => h("div", {}, h("dt", {}, word), (figures[key] = h("dd", {}, "–")));
  const element = h("section", { class: "panel", "aria-labelledby": "traffic-title" },
    h("h2", { id: "traffic-title" }, "Requests"),
    h("dl", { class: "totals small" }, figure("flight", "Running"), figure("waiting", "Waiting"), figure("errors", "Failed, last minute")),
    h("div", { class: "chart" }, h("p", {}, h("span", {}, "Rate"), (figures.rate = h("strong"))), lines.rates),
    h("div", { class: "chart" }, h("p", {}, h("span", {}, "Latency, median and 95th percentile"), (figures.latency = h("strong"))), lines.latencies),
    h("p", { class: "hint chart-span" }, h("span", {}, `${Math.round((hello.bucket * hello.buckets) / 60)} minutes ago`), h("span", {}, "now")));
  return {
    element,
    update(agent) {
      const minute = lastMinute(agent.name);
      setText(figures.flight, number(agent.in_flight));
      setText(figures.waiting, `${number(agent.waiting)} of ${number(agent.queue)}`);
      setText(figures.errors, number(minute.errors));
      setAttribute(figures.errors, "data-tone", minute.errors > 0 ? "bad" : null);
      setText(figures.rate, rate(minute.rate));
      setText(figures.latency, minute.median === null ? "–" : `${duration(minute.median)} · ${duration(minute.high)}`);
      lines.update(recentPoints(agent.name));
    },
  };
}

/** The workers of `all`: in a table, and where they are many, as cells that lead through it. */
function workersPanel(all, signal) {
  const summary = h("p", { class: "dim" });
  const body = h("tbody");
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of the workers" },
    h("table", {},
      h("thead", {}, h("tr", {}, ...["Worker", "Age", "Memory", "Served", "Now"].map(
        (word, index) => h("th", { scope: "col", class: index > 0 ? "figure" : null }, word)))),
      body));
  const part = h("span", { class: "dim" });
  const turn = (word, by) => h("button", { type: "button", class: "quiet", onclick: () => turnTo(first + by) }, word);
  const [back, on] = [turn("Previous", -MOST_ROWS), turn("Next", MOST_ROWS)];
  const pages = h("div", { class: "pages", role: "group", "aria-label": "Part of the table" }, back, on, part);
  const grid = cellGrid((place) => turnTo(place - (place % MOST_ROWS)));
  const element = h("section", { class: "panel", "aria-labelledby": "workers-title" },
    h("h2", { id: "workers-title" }, "Workers"), summary, grid.element, table, pages, legend(STATES));
  const rows = new Keyed(body, () => workerRow((id) => all.get(id)));
  let first = 0; // the place of the first worker in the table

  function turnTo(place) {
    if (place === first) return;
    first = place;
    showRows();
  }

  function showRows() {
    first = Math.max(0, Math.min(first, MOST_ROWS * Math.floor((all.size - 1) / MOST_ROWS)));
    const end = Math.min(all.size, first + MOST_ROWS);
    rows.update([...all.keys()].slice(first, end), (id) => id);
    setText(part, `Workers ${number(first + 1)} to ${number(end)} of ${number(all.size)}`);
    back.disabled = first === 0;
    on.disabled = end === all.size;
  }

  const drawing = new Drawing(function* draw() {
    const many = all.size > MOST_ROWS;
    table.hidden = all.size === 0;
    grid.element.hidden = pages.hidden = !many;
    showRows();
    yield;
    yield* grid.updating(many ? all : new Map());
  }, signal);
  return {
    element,
    update(agent) {
      setText(summary, `${stateWords(statesOf(agent.cells))}; at most ${number(agent.max_workers)}, ${counted(agent.started, "start")} and ${counted(agent.failures, "failure")} so far`);
      drawing.soon();
    },
  };
}

/** Call with all about an agent again and again: its workers are at hosts, which are asked then. */
async function askAgain(name, signal, told) {
  while (!signal.aborted) {
    try {
      if (!document.hidden) told(await get(`console/api/agents/${encodeURIComponent(name)}`, { signal }));
    } catch {
      // it is said where all about it is shown
    }
    await new Promise((done) => setTimeout(done, hello.bucket * 1000));
  }
}

/** The workers of an agent of a fleet, each with its host. */
function hostedPanel() {
  const summary = h("p", { class: "dim" });
  const body = h("tbody");
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of the workers", hidden: true },
    h("table", {},
      h("thead", {}, h("tr", {}, ...["Worker", "Host", "Age", "Memory", "Served", "Now"].map(
        (word, index) => h("th", { scope: "col", class: index > 1 ? "figure" : null }, word)))),
      body));
  const rows = new Keyed(body, hostedRow);
  const element = h("section", { class: "panel", "aria-labelledby": "workers-title" },
    h("h2", { id: "workers-title" }, "Workers"), summary, table,
    h("p", { class: "hint" }, h("a", { href: "#/fleet" }, "The hosts of the fleet")));
  return {
    element,
    update() {},
    show({ workers, hosts }) {
      const shown = workers.slice(0, MOST_HOSTED);
      const part = shown.length < workers.length ? `, the first ${number(shown.length)} shown` : "";
      const silent = hosts.filter((each) => !each.answered).map((each) => each.name);
      setText(summary, `${counted(workers.length, "worker")} at ${counted(hosts.length, "host")}${part}`
        + (silent.length > 0 ? `; not told of: those at ${silent.join(", ")}` : ""));
      table.hidden = shown.length === 0;
      rows.update(shown.map((worker, place) => ({ worker, place })), ({ worker, place }) => `${worker.host} ${worker.pid ?? `starting ${place}`}`);
    },
  };
}

function hostedRow() {
  const [state, pid] = [said(""), h("span", { class: "dim" })];
  const host = h("td");
  const figures = Array.from({ length: 4 }, () => h("td", { class: "figure" }));
  return {
    element: h("tr", {}, h("th", { scope: "row" }, h("span", { class: "worker-name" }, state, pid)), host, ...figures),
    update({ worker }) {
      setText(state, worker.state);
      setText(pid, worker.pid === null ? "" : String(worker.pid));
      setText(host, worker.host);
      const now = `${number(worker.in_flight)} of ${number(worker.capacity)}`;
      [age(worker.age), bytes(worker.memory), number(worker.served), now].forEach((text, index) => setText(figures[index], text));
    },
  };
}

function workerRow(find) {
  const cell = changingCell();
  const [state, pid, old, memory, served, load] = Array.from({ length: 6 }, () => h("span"));
  const element = h("tr", {},
    h("th", { scope: "row" }, h("span", { class: "worker-name" }, cell.element, state, pid)),
    ...[old, memory, served, load].map((each) => h("td", { class: "figure" }, each)));
  pid.className = "dim";
  return {
    element,
    update(id) {
      const worker = find(id);
      cell.update([worker.state]);
      setText(state, worker.state);
      setText(pid, worker.pid === null ? "" : String(worker.pid));
      setText(old, age(now() - worker.started));
      setText(memory, bytes(worker.memory));
      setText(served, number(worker.served));
      setText(load, `${worker.inFlight} of ${worker.capacity}`);
    },
  };
}

/** The last failure and the last limit, each with the setting that would help. */
function showTroubles(panel, agent) {
  const told = [
    ["The last failure of a worker", agent.failure],
    ["The last limit of the sandbox that was met", agent.limit],
  ].filter(([, trouble]) => trouble);
  const key = JSON.stringify(told);
  panel.hidden = told.length === 0;
  for (const each of panel.querySelectorAll("[data-at]")) setText(each, ago(Number(each.dataset.at)));
  if (panel.dataset.key === key) return;
  panel.dataset.key = key;
  panel.replaceChildren(h("h2", { id: "trouble-title" }, "Trouble"), ...told.map(([word, trouble]) =>
    h("div", { class: "trouble-item" },
      h("h3", {}, word, " ", h("span", { class: "dim", "data-at": String(trouble.at) }, ago(trouble.at))),
      said(trouble.message || trouble.limit, "p"),
      trouble.setting ? h("p", { class: "hint" }, "The setting that would help: ", said(trouble.setting, "code")) : null)));
}

/** What workers can see, reach and exhaust, in sentences. */
const sandboxWords = (words) => h("div", { class: "columns" }, Object.entries(words ?? {}).map(([title, sentences]) =>
  h("div", {}, said(`Workers ${title}`, "h3"), h("ul", { class: "sentences" }, sentences.map((each) => said(each, "li"))))));

function aboutPanel(title, ...content) {
  const id = `about-${title.replaceAll(" ", "-")}`;
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), ...content);
}

/** What an agent has used, hidden while that is nothing. */
function usedPanel(title) {
  const content = h("div");
  const element = aboutPanel(title, content);
  return {
    element,
    show(used) {
      element.hidden = Object.keys(used).length === 0;
      content.replaceChildren(facts(Object.entries(used)));
    },
  };
}

/** What the agent is and may do, of the body of its status; `used` is shown after the first. */
function described(body, ...used) {
  const whole = (value) => Object.entries(value ?? {});
  const abilities = [
    ["handlers", body.handlers], ["modes", body.modes], ["takes_a_client's_tools", body.tools], ["asks_questions", body.asks],
    ...(body.input_unchecked ? [["input_unchecked", body.input_unchecked]] : []),
    ...whole(body.metadata),
  ];
  const sandbox = aboutPanel("What the sandbox enforces", sandboxWords(body.in_words),
    h("details", {}, h("summary", {}, "As settings"), facts(whole(body.sandbox))));
  sandbox.classList.add("wide");
  return [sandbox, ...used, aboutPanel("Settings", facts(whole(body.settings))), aboutPanel("Declared", facts(abilities),
    ...["input", "output"].filter((name) => body[name] !== null && body[name] !== undefined).map((name) =>
      h("details", {}, h("summary", {}, `Schema of its ${name}`), said(pretty(body[name]), "pre"))))];
}
