// The log, followed. The filters are the server's: what does not pass is not sent.

import { h, said, setText } from "./dom.js";
import { number, time } from "./format.js";
import { follow } from "./stream.js";

const MOST_LINES = 2000;
const NEAR_THE_END = 40; // pixels from the bottom that still count as reading the end

export function showLog(place, { query, signal, linked }) {
  const agent = h("input", { type: "search", id: "log-agent", value: query.get("agent") ?? "", onchange: () => open() });
  const request = h("input", { type: "search", id: "log-request", value: query.get("request") ?? "", onchange: () => open() });
  const level = h("select", { id: "log-level", onchange: () => open() },
    ...["debug", "info", "warning", "error"].map((each) => h("option", { value: each, selected: each === "info" }, each)));
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => hold(pause.getAttribute("aria-pressed") === "false") }, "Pause");
  const waiting = h("span", { class: "dim" });  // no live region: it changes all the time
  const problem = h("p", { class: "refusal", role: "alert" });
  const lines = h("ol", { class: "lines log-lines", tabindex: "0", "aria-label": "Lines of the log" });
  const nothing = h("p", { class: "empty" }, "No line passes the filters yet.");
  place.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Log"), waiting, h("span", { class: "grow" }),
      h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); open(); } },
        h("label", { for: "log-agent" }, "Agent", agent), h("label", { for: "log-request" }, "Request id", request),
        h("label", { for: "log-level" }, "From level", level), pause)),
    problem, lines, nothing);

  let scope = null;
  let held = null;

  function hold(on) {
    pause.setAttribute("aria-pressed", String(on));
    setText(pause, on ? "Go on" : "Pause");
    if (on) held = [];
    else { const kept = held ?? []; held = null; add(kept); setText(waiting, ""); }
  }

  function open() {
    scope?.abort();
    scope = new AbortController();
    signal.addEventListener("abort", () => scope.abort(), { once: true, signal: scope.signal });
    const filters = new URLSearchParams({ topics: "log", level: level.value });
    if (agent.value.trim()) filters.set("agent", agent.value.trim());
    if (request.value.trim()) filters.set("request", request.value.trim());
    setText(problem, "");
    follow(`console/api/live?${filters}`, {
      signal: scope.signal,
      linked(is, reason) {
        linked(is, reason);
        setText(problem, !is && reason?.status >= 400 ? reason.message : "");
      },
      heard(event, data) {
        if (event !== "log") return;
        if (data.reset) { lines.replaceChildren(); if (held) held = []; }
        const skipped = data.skipped > 0 ? [{ skipped: data.skipped }] : [];
        if (held) {
          held = [...held, ...skipped, ...data.lines].slice(-MOST_LINES);
          setText(waiting, `${number(held.length)} lines wait`);
        } else {
          add([...skipped, ...data.lines]);
        }
      },
    });
  }

  function add(news) {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < NEAR_THE_END;
    lines.append(...news.slice(-MOST_LINES).map(logLine));
    while (lines.childElementCount > MOST_LINES) lines.firstElementChild.remove();
    nothing.hidden = lines.childElementCount > 0;
    lines.hidden = !nothing.hidden;
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  }

  open();
}

/** A line of the log as a list item. */
export function logLine(line) {
  if (line.skipped) return h("li", { class: "log-line dim" }, `… ${number(line.skipped)} lines came too fast to be shown …`);
  const about = [];
  if (line.agent) about.push(h("a", { href: `#/agents/${encodeURIComponent(line.agent)}` }, said(line.agent)));
  // A line of a worker with several requests names all of them, with commas.
  for (const request of line.request?.split(",") ?? []) {
    about.push(h("a", { href: `#/log?request=${encodeURIComponent(request)}` }, said(request)));
  }
  if (line.pid) about.push(h("span", { class: "dim" }, `pid ${line.pid}`));
  const fields = Object.entries(line.fields ?? {}).map(([name, value]) =>
    h("span", { class: "field" }, said(name, "span", { class: "dim" }), "=", said(value)));
  return h("li", { class: "log-line", "data-level": line.level, "data-stderr": line.stderr },
    h("time", {}, time(line.at)), h("span", { class: "level" }, line.level),
    h("span", { class: "message" }, said(line.message), " ", ...about.flatMap((each) => [each, " "]), ...fields.flatMap((each) => [each, " "])));
}
