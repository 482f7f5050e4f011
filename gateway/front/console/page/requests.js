// The requests that are running and the last that have ended, each with where its time went.

import { h, Keyed, said, setAttribute, setText } from "./dom.js";
import { duration, number, time } from "./format.js";
import { Kept } from "./live.js";
import { Drawing } from "./slices.js";
import { follow } from "./stream.js";
import { timeBar, timeLegend, totalOf } from "./timebar.js";

const MOST_ROWS = 200; // of those that pass the filter; the rest is counted
const REDRAW = 500; // milliseconds between two looks at the bars of those that run

const STATES = {
  queued: ["wait", "queued"], starting: ["wait", "starting"], given: ["busy", "working"],
  speaking: ["busy", "answering"], sending: ["busy", "sending"], completed: ["good", "completed"], failed: ["bad", "failed"],
  cancelled: ["calm", "cancelled"], refused: ["bad", "refused"],
};

export const shownRequestState = (state) => STATES[state] ?? ["calm", state];
export const isRunning = (request) => request.ended === null;

export function showRequests(place, { query, signal, linked }) {
  const known = new Map();
  const agent = h("input", { type: "search", id: "requests-agent", value: query.get("agent") ?? "", oninput: () => soon() });
  const which = h("select", { id: "requests-which", onchange: () => soon() },
    ...[["all", "all"], ["running", "running"], ["failed", "failed"]].map(([value, word]) => h("option", { value }, word)));
  const order = h("select", { id: "requests-order", onchange: () => soon() },
    h("option", { value: "new" }, "newest first"), h("option", { value: "slow" }, "slowest first"));
  const count = h("span", { class: "dim" });
  const body = h("tbody");
  const nothing = h("p", { class: "empty", hidden: true }, "No request has come yet. Every request to an agent is shown here, whichever API it came by.");
  const table = h("table", { class: "request-table" },
    h("thead", {}, h("tr", {}, ...["Began", "Agent", "State", "Time", "Total", "Words"].map(
      (word) => h("th", { scope: "col", class: word === "Total" || word === "Words" ? "figure" : null }, word)))),
    body);
  const panel = h("div", { class: "panel" }, table, timeLegend());
  place.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Requests"), count, h("span", { class: "grow" }),
      h("div", { class: "filters" },
        h("label", { for: "requests-agent" }, "Agent", agent),
        h("label", { for: "requests-which" }, "Show", which),
        h("label", { for: "requests-order" }, "Order", order))),
    panel, nothing,
  );
  const rows = new Keyed(body, () => requestRow());
  let running = 0;
  const drawing = new Drawing(draw, signal);
  const soon = () => drawing.soon();

  function* draw() {
    const wanted = agent.value.trim();
    const passing = [...known.values()].filter((each) =>
      (!wanted || each.agent.includes(wanted)) && FILTERS[which.value](each));
    passing.sort(ORDERS[order.value]);
    const shown = passing.slice(0, MOST_ROWS);
    const scale = Math.max(...shown.map(totalOf), 0.001);
    nothing.hidden = known.size > 0;
    panel.hidden = known.size === 0;
    const beyond = passing.length > MOST_ROWS ? `, the first ${MOST_ROWS} of ${number(passing.length)} shown` : "";
    setText(count, `${number(running)} running${beyond}`);
    yield* rows.updating(shown.map((request) => ({ request, scale })), ({ request }) => request.id);
  }

  const tick = setInterval(() => running > 0 && soon(), REDRAW);
  signal.addEventListener("abort", () => clearInterval(tick));
  const kept = new Kept(known);
  follow("console/api/live?topics=requests", {
    signal, linked,
    heard(event, data) {
      if (event !== "requests") return;
      kept.take(data, [...data.requests.map((each) => [each.id, each]), ...data.gone.map((id) => [id, null])]);
      running = data.running;
      soon();
    },
  });
}

const FILTERS = {
  all: () => true,
  running: isRunning,
  failed: (request) => request.state === "failed" || request.state === "refused",
};

const ORDERS = {
  new: (a, b) => Number(isRunning(b)) - Number(isRunning(a)) || b.began - a.began,
  slow: (a, b) => totalOf(b) - totalOf(a),
};

function requestRow() {
  const link = h("a");
  const agent = said("");
  const handler = h("span", { class: "dim" });
  const badge = h("span", { class: "badge" });
  const status = h("span", { class: "dim status" });
  const bar = timeBar();
  const total = h("td", { class: "figure" });
  const words = h("td", { class: "figure" });
  const error = said("", "span", { class: "row-error" });
  const element = h("tr", {}, h("th", { scope: "row" }, link),
    h("td", { class: "request-agent" }, agent, " ", handler),
    h("td", { class: "request-state" }, badge, " ", status, error),
    h("td", { class: "bar-cell" }, bar.element), total, words);
  return {
    element,
    update({ request, scale }) {
      const [tone, word] = shownRequestState(request.state);
      setAttribute(element, "data-id", request.id);
      setAttribute(link, "href", `#/requests/${encodeURIComponent(request.id)}`);
      setText(link, time(request.began));
      setAttribute(link, "aria-label", `${time(request.began)}, request ${request.request_id}`);
      setText(agent, request.agent);
      setText(handler, [request.handler, request.stream ? "stream" : "", request.dialect === "native" ? "" : request.dialect].filter(Boolean).join(" · "));
      setAttribute(badge, "data-tone", tone);
      setText(badge, word);
      setText(status, request.status === null ? "" : String(request.status));
      setText(error, request.error?.message ?? "");
      bar.update(request, scale);
      setText(total, duration(totalOf(request)));
      setText(words, number(request.words));
    },
  };
}
