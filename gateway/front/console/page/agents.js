// All agents: one row each, patched where something has changed.

import { now } from "./clock.js";
import { agentBody } from "./agent.js";
import { cellStrip } from "./cells.js";
import { announce, h, Keyed, said, setAttribute, setText } from "./dom.js";
import { ago, byName, counted, duration, number, rate } from "./format.js";
import {
  agents, hello, inTrouble, knowsAll, lastMinute, recentPoints, shownState, watchAgents, watchWorkers, Workers,
} from "./live.js";
import { Drawing } from "./slices.js";
import { trafficLines } from "./spark.js";

const RECENT_SECONDS = 600; // how long a failure that is over stays in the list
const LATENCY_WORDS = "Median and 95th percentile of the last minute";
const WORST_FIRST = ["away", "open", "backoff", "draining", "busy", "starting", "ready", "cold"];

export function showAgents(place, { signal, linked }) {
  const totals = new Totals();
  const filter = h("input", { type: "search", id: "agent-filter", placeholder: "Name or description", oninput: () => arrange() });
  const order = h("select", { id: "agent-order", onchange: () => arrange() },
    h("option", { value: "name" }, "by name"),
    h("option", { value: "trouble" }, "trouble first"),
    h("option", { value: "rate" }, "busiest first"));
  const rows = h("ul", { class: "agent-rows", "aria-label": "Agents" });
  const nothing = h("p", { class: "empty", hidden: true });
  const alone = h("div", { class: "alone" }); // where there is one agent, all about it
  let only = null;
  place.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Agents"), h("span", { class: "grow" }),
      h("div", { class: "filters" },
        h("label", { for: "agent-filter" }, "Find", filter),
        h("label", { for: "agent-order" }, "Order", order))),
    totals.element,
    h("div", { class: "agent-head", "aria-hidden": "true" },
      ...["Agent", "Workers", "Queue", `Requests, ${minutes()} min`, "Latency"].map((word) => h("span", {}, word))),
    rows, nothing, alone,
  );

  // Rows are made, moved and filled a few in each frame: those first that are to be seen.
  const stale = new Set();
  const inView = new Set();
  let unordered = true;
  const keyed = new Keyed(rows, (name) => {
    const row = agentRow(name);
    stale.add(name);
    visible.observe(row.element);
    return row;
  });
  const visible = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const { name } = target.dataset;
      inView[isIntersecting ? "add" : "delete"](name);
      if (isIntersecting) stale.add(name);
    }
    drawing.soon();
  }, { rootMargin: "100px" });
  signal.addEventListener("abort", () => visible.disconnect());

  function* draw() {
    totals.update();
    showOnly();
    if (unordered) {
      unordered = false;
      const names = ORDERS[order.value](matching(filter.value));
      nothing.hidden = names.length > 0;
      setText(nothing, agents.size === 0 ? "There is no agent that may be seen here." : "No agent matches.");
      yield* keyed.updating(names, (name) => name);
    }
    for (const seen of [true, false]) {
      for (const name of stale) {
        if (inView.has(name) !== seen) continue;
        stale.delete(name);
        if (!agents.has(name)) continue;
        keyed.get(name)?.patch();
        if (seen) keyed.get(name)?.draw();
        yield;
      }
    }
  }

  const drawing = new Drawing(draw, signal);

  function arrange() {
    unordered = true;
    drawing.soon();
  }

  function showOnly() {
    const name = agents.size === 1 ? agents.keys().next().value : null;
    if (name !== only?.name) {
      only?.scope.abort();
      only = name === null ? null : { name, ...agentAlone(name, signal) };
      alone.replaceChildren(...(only ? [only.body.element] : []));
    }
    only?.body.update(agents.get(name));
  }

  let troubled = null;
  const tick = setInterval(() => {
    for (const name of inView) stale.add(name);
    drawing.soon();
  }, hello.bucket * 1000);
  signal.addEventListener("abort", () => clearInterval(tick));
  if (knowsAll()) arrange();
  watchAgents(signal, (names) => {
    for (const name of names) {
      unordered ||= !agents.has(name) || !keyed.get(name);
      stale.add(name);
    }
    unordered ||= order.value !== "name";
    if (knowsAll()) drawing.soon();
    const failing = [...agents.values()].filter(inTrouble).map((each) => each.name).join(", ");
    if (troubled !== null && failing !== troubled) announce(failing ? `In trouble: ${failing}` : "All agents can serve");
    troubled = failing;
  }, linked);
}

/** All about an agent, with its workers. */
function agentAlone(name, signal) {
  const scope = new AbortController();
  signal.addEventListener("abort", () => scope.abort(), { signal: scope.signal });
  const workers = new Workers();
  const body = agentBody(name, workers, scope.signal);
  watchWorkers(name, workers, scope.signal, () => agents.has(name) && body.update(agents.get(name)));
  return { scope, body };
}

const minutes = () => Math.round((hello.bucket * hello.buckets) / 60);

/** The names of the agents that have the words in what is shown of them. */
function matching(words) {
  const wanted = words.trim().toLowerCase();
  return [...agents.values()]
    .filter(({ name, description, state }) => !wanted || `${name} ${description ?? ""} ${state}`.toLowerCase().includes(wanted))
    .map(({ name }) => name);
}

const ORDERS = {
  name: (names) => names.sort(byName),
  trouble: (names) => sorted(names, (name) => WORST_FIRST.indexOf(agents.get(name).state)),
  rate: (names) => sorted(names, (name) => -lastMinute(name).count),
};

/** The names by a number of each, which is reckoned once; and then by the names. */
function sorted(names, rank) {
  const ranks = new Map(names.map((name) => [name, rank(name)]));
  return names.sort((a, b) => ranks.get(a) - ranks.get(b) || byName(a, b));
}

/** The figures of all agents together. */
class Totals {
  #figures = {};

  constructor() {
    const figure = (name, word) => {
      this.#figures[name] = h("dd", {}, "–");
      return h("div", {}, h("dt", {}, word), this.#figures[name]);
    };
    this.element = h("dl", { class: "totals" },
      figure("serving", "Agents serving"), figure("workers", "Workers"),
      figure("flight", "Requests running"), figure("waiting", "Waiting"),
      figure("rate", "Requests in the last minute"), figure("errors", "Of them failed"));
  }

  update() {
    const sum = { serving: 0, workers: 0, flight: 0, waiting: 0, rate: 0, errors: 0 };
    for (const agent of agents.values()) {
      const { count, errors } = lastMinute(agent.name);
      sum.serving += inTrouble(agent) || agent.state === "draining" ? 0 : 1;
      sum.workers += agent.cells.length;
      sum.flight += agent.in_flight;
      sum.waiting += agent.waiting;
      sum.rate += count;
      sum.errors += errors;
    }
    for (const [name, value] of Object.entries(sum)) setText(this.#figures[name], number(value));
    setText(this.#figures.serving, `${number(sum.serving)} of ${number(agents.size)}`);
    setAttribute(this.#figures.serving, "data-tone", sum.serving < agents.size ? "bad" : null);
    setAttribute(this.#figures.errors, "data-tone", sum.errors > 0 ? "bad" : null);
  }
}

function agentRow(name) {
  const badge = h("span", { class: "badge" });
  const description = said("", "span", { class: "description" });
  const trouble = said("", "p", { class: "trouble" });
  const strip = cellStrip();
  const queue = h("span");
  const lines = trafficLines();
  const rates = h("span");
  const failed = h("span", { class: "below" });
  const median = h("span");
  const high = h("span", { class: "below dim" });
  const latencies = h("span", { class: "figure" }, median, high);
  const element = h("li", { class: "agent-row", "data-name": name },
    h("div", { class: "row-name" },
      h("a", { href: `#/agents/${encodeURIComponent(name)}` }, said(name)), badge, description),
    h("div", { class: "row-workers" }, h("span", { class: "unseen" }, "Workers: "), strip.element),
    h("div", { class: "row-queue" }, h("span", { class: "unseen" }, "Queue: "), queue),
    h("div", { class: "row-line" }, h("span", { class: "unseen" }, "Rate: "), lines.rates, h("span", { class: "figure" }, rates, failed)),
    h("div", { class: "row-line" }, h("span", { class: "unseen" }, "Latency, median and 95th percentile: "), lines.latencies, latencies),
    trouble);
  return {
    element,
    patch() {
      const agent = agents.get(name);
      const { tone, word, meaning } = shownState(agent.state);
      setAttribute(badge, "data-tone", tone);
      setAttribute(badge, "title", meaning);
      setText(badge, word);
      setText(description, agent.description ?? "");
      strip.update(agent.cells);
      setText(queue, agent.waiting === 0 ? "–" : `${number(agent.waiting)} waiting`);
      setAttribute(queue, "data-tone", agent.waiting >= agent.queue && agent.queue > 0 ? "bad" : null);
      setText(trouble, troubleOf(agent));
      trouble.hidden = trouble.textContent === "";
      this.figures();
    },
    figures() {
      const minute = lastMinute(name);
      setText(rates, minute.count === 0 ? "–" : rate(minute.rate));
      setText(failed, minute.errors > 0 ? counted(minute.errors, "error") : "");
      setText(median, duration(minute.median));
      setText(high, minute.high === null ? "" : duration(minute.high));
      setAttribute(latencies, "title", minute.median === null ? null : LATENCY_WORDS);
    },
    draw() {
      lines.update(recentPoints(name));
      this.figures();
    },
  };
}

/** What a row says of its agent's last failure: while it is in trouble, and for a while after. */
function troubleOf(agent) {
  const { failure } = agent;
  if (failure === null || failure === undefined) return "";
  const recent = now() - failure.at < RECENT_SECONDS;
  if (!inTrouble(agent) && !recent) return "";
  const help = failure.setting ? ` (${failure.setting} would help)` : "";
  return `${ago(failure.at)}: ${failure.message}${help}`;
}

