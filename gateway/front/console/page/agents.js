// All agents: one row each, patched where something has changed.

import { now } from "./clock.js";
import { agentBody } from "./agent.js";
import { cellStrip } from "./cells.js";
import { announce, h, Keyed, said, setAttribute, setText } from "./dom.js";
import { ago, counted, duration, number, rate } from "./format.js";
import { agents, hello, inTrouble, lastMinute, recentPoints, shownState, watchAgents } from "./live.js";
import { trafficLines } from "./spark.js";

const RECENT_SECONDS = 600; // how long a failure that is over stays in the list
const ROWS_A_FRAME = 50; // that are patched: a few milliseconds
const WORST_FIRST = ["away", "open", "backoff", "draining", "busy", "starting", "ready", "cold"];

export function showAgents(place, { signal, linked }) {
  const totals = new Totals();
  const filter = h("input", { type: "search", id: "agent-filter", placeholder: "Name or description", oninput: () => list() });
  const order = h("select", { id: "agent-order", onchange: () => list() },
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

  const keyed = new Keyed(rows, (name) => agentRow(name));
  const visible = new IntersectionObserver((seen) => {
    for (const each of seen) each.target.inView = each.isIntersecting;
    drawLines();
  });
  signal.addEventListener("abort", () => visible.disconnect());

  function list() {
    const wanted = filter.value.trim().toLowerCase();
    const names = [...agents.keys()].filter((name) => matches(agents.get(name), wanted));
    names.sort(ORDERS[order.value]);
    keyed.update(names, (name) => name);
    for (const row of rows.children) if (row.inView === undefined) visible.observe(row);
    nothing.hidden = names.length > 0;
    setText(nothing, agents.size === 0 ? "There is no agent that may be seen here." : "No agent matches.");
  }

  // Rows that have changed, patched a few in a frame: those first that are to be seen.
  const stale = new Set();
  let frame = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(frame));

  function patchSome() {
    const inOrder = [...stale].sort((a, b) => isSeen(b) - isSeen(a));
    for (const name of inOrder.slice(0, ROWS_A_FRAME)) {
      stale.delete(name);
      const row = keyed.get(name);
      if (agents.has(name)) row?.update();
      if (row?.element.inView) row.draw();
    }
    cancelAnimationFrame(frame);
    frame = stale.size > 0 ? requestAnimationFrame(patchSome) : 0;
  }

  const isSeen = (name) => Number(keyed.get(name)?.element.inView ?? false);

  function drawLines() {
    for (const row of rows.children) if (row.inView) keyed.get(row.dataset.name)?.draw();
  }

  function showOnly() {
    const name = agents.size === 1 ? agents.keys().next().value : null;
    if (name !== only?.name) {
      only = name === null ? null : { name, body: agentBody(name, signal) };
      alone.replaceChildren(...(only ? [only.body.element] : []));
    }
    only?.body.update(agents.get(name));
  }

  let troubled = null;
  const tick = setInterval(() => { drawLines(); totals.update(); showOnly(); }, hello.bucket * 1000);
  signal.addEventListener("abort", () => clearInterval(tick));
  if (agents.size > 0) { list(); totals.update(); showOnly(); }
  watchAgents(signal, (names) => {
    const whole = [...names].some((name) => !agents.has(name) || !keyed.get(name));
    if (whole || order.value !== "name") list();
    else for (const name of names) stale.add(name);
    patchSome();
    totals.update();
    showOnly();
    const failing = [...agents.values()].filter(inTrouble).map((each) => each.name).join(", ");
    if (troubled !== null && failing !== troubled) announce(failing ? `In trouble: ${failing}` : "All agents can serve");
    troubled = failing;
  }, linked);
}

const minutes = () => Math.round((hello.bucket * hello.buckets) / 60);

const matches = (agent, wanted) =>
  !wanted || `${agent.name} ${agent.description ?? ""} ${agent.state}`.toLowerCase().includes(wanted);

const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });

const ORDERS = {
  name: byName,
  trouble: (a, b) => rank(a) - rank(b) || byName(a, b),
  rate: (a, b) => lastMinute(b).count - lastMinute(a).count || byName(a, b),
};

const rank = (name) => WORST_FIRST.indexOf(agents.get(name).state);

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
      sum.workers += agent.workers.size;
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
  const queue = h("span", { class: "row-queue" });
  const lines = trafficLines();
  const rates = h("span");
  const failed = h("span", { class: "below" });
  const latencies = h("span", { class: "figure" });
  const element = h("li", { class: "agent-row", "data-name": name },
    h("div", { class: "row-name" },
      h("a", { href: `#/agents/${encodeURIComponent(name)}` }, said(name)), badge, description),
    h("div", { class: "row-workers" }, h("span", { class: "unseen" }, "Workers: "), strip.element),
    queue,
    h("div", { class: "row-line" }, lines.rates, h("span", { class: "figure" }, rates, failed)),
    h("div", { class: "row-line" }, lines.latencies, latencies),
    trouble);
  return {
    element,
    update() {
      const agent = agents.get(name);
      const { tone, word, meaning } = shownState(agent.state);
      setAttribute(badge, "data-tone", tone);
      setAttribute(badge, "title", meaning);
      setText(badge, word);
      setText(description, agent.description ?? "");
      strip.update(agent.workers);
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
      setText(latencies, minute.median === null ? "–" : `${duration(minute.median)} · ${duration(minute.high)}`);
      setAttribute(latencies, "aria-label", minute.median === null ? null
        : `median ${duration(minute.median)}, 95th percentile ${duration(minute.high)}`);
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

