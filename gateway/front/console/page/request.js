// One request: where its time went, its events in order, what its worker wrote meanwhile, its error.

import { get, send } from "./api.js";
import { announce, h, said, setAttribute, setText } from "./dom.js";
import { bytes, counted, duration, number, time } from "./format.js";
import { hello } from "./live.js";
import { logLine } from "./log.js";
import { isRunning, shownRequestState } from "./requests.js";
import { follow } from "./stream.js";
import { phasesOf, PHASES, timeBar, timeLegend, totalOf } from "./timebar.js";

const REDRAW = 250; // milliseconds between two looks at the bar of one that runs

export function showRequest(place, { name: id, signal, linked }) {
  const badge = h("span", { class: "badge" });
  const cancel = h("button", { type: "button", class: "danger", hidden: true, onclick: () => stop() }, "Cancel");
  const problem = h("p", { class: "refusal", role: "alert" });
  const bar = timeBar();
  const phases = h("dl", { class: "totals small" });
  const about = h("div");
  const failure = h("section", { class: "panel failure", "aria-labelledby": "failure-title", hidden: true });
  const events = h("section", { class: "panel", "aria-labelledby": "events-title" });
  const more = h("div", { class: "columns" });
  const title = h("h1", { tabindex: "-1" }, "Request");
  const whole = h("div", { class: "stack", hidden: true },
    h("section", { class: "panel", "aria-labelledby": "time-title" }, h("h2", { id: "time-title" }, "Where the time went"), bar.element, timeLegend(), phases),
    failure, events, more);
  place.append(
    h("p", { class: "crumb" }, h("a", { href: "#/requests" }, "All requests")),
    h("div", { class: "head" }, title, badge, h("span", { class: "grow" }), cancel),
    problem, whole);

  let request = null;
  let asking = false;
  let again = false;

  async function stop() {
    cancel.disabled = true;
    try {
      const response = await send(`console/api/requests/${encodeURIComponent(id)}/cancel`, { method: "POST", body: "{}", signal });
      take((await response.json()).request);
      announce("The request is being cancelled");
      title.focus(); // the button that had the focus is gone, or will be
      await look();
    } catch (error) {
      if (!signal.aborted) setText(problem, error.message);
      cancel.disabled = false;
    }
  }

  function take(news) {
    request = news;
    const [tone, word] = shownRequestState(request.state);
    setText(title, `Request to ${request.agent}`);
    setAttribute(badge, "data-tone", tone);
    setText(badge, word);
    cancel.hidden = !isRunning(request);
    drawTime();
  }

  function drawTime() {
    bar.update(request, totalOf(request));
    const times = phasesOf(request);
    phases.replaceChildren(...[...PHASES, ["total", "in all"]].map(([name, word]) =>
      h("div", {}, h("dt", {}, word), h("dd", {}, duration(times[name])))));
  }

  /** Read the request again; once more if it has changed meanwhile. */
  async function look() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      do {
        again = false;
        const body = await get(`console/api/requests/${encodeURIComponent(id)}`, { signal });
        take(body.request);
        whole.hidden = false;
        showFailure(failure, body.request);
        showEvents(events, body);
        more.replaceChildren(...details(body));
        setText(problem, "");
      } while (again);
    } catch (error) {
      if (!signal.aborted) setText(problem, error.status === 404 ? "This request is not kept any more." : error.message);
    } finally {
      asking = false;
    }
  }

  const tick = setInterval(() => request !== null && isRunning(request) && drawTime(), REDRAW);
  signal.addEventListener("abort", () => clearInterval(tick));
  look();
  follow("console/api/live?topics=requests", {
    signal, linked,
    heard(event, data) {
      if (event !== "requests" || !data.requests?.some((each) => each.id === id)) return;
      if (request === null || isRunning(request)) look();
    },
  });
}

function showFailure(panel, { error }) {
  panel.hidden = error === null;
  if (error === null) return;
  panel.replaceChildren(h("h2", { id: "failure-title" }, "Why it failed"),
    said(error.message, "p"), h("p", { class: "hint" }, "Type: ", said(error.type, "code")));
  if (error.setting) panel.append(h("p", { class: "hint" }, "The setting that would help: ", said(error.setting, "code")));
}

const KINDS = {
  admitted: "admitted", given: "given to a worker", chunk: "text", event: "an event of the agent's own",
  tool_call: "tool call", tool_result: "tool result",
};

function showEvents(panel, { events, left_out: leftOut, recorded }) {
  const row = (event) => h("tr", {},
    h("th", { scope: "row", class: "figure mono" }, event.t < 10 ? `${event.t.toFixed(3)} s` : duration(event.t)),
    h("td", {}, said(Object.hasOwn(KINDS, event.kind) ? KINDS[event.kind] : event.kind), event.text ? said(event.text, "pre", { class: "payload" }) : null),
    h("td", { class: "figure" }, event.count > 1 ? `× ${number(event.count)}` : ""),
    h("td", { class: "figure" }, event.size > 0 ? bytes(event.size) : ""));
  const gap = Math.ceil(events.length / 2);
  const rows = events.map(row);
  if (leftOut > 0) rows.splice(gap, 0, h("tr", {}, h("td", { colspan: "4", class: "dim" }, `${counted(leftOut, "event")} left out`)));
  panel.replaceChildren(h("h2", { id: "events-title" }, "Events"),
    ...(recorded ? [] : [h("p", { class: "hint" }, "No console was open when this request began: its words were not noted.")]),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of the events" }, h("table", { class: "event-table" },
      h("thead", {}, h("tr", {}, ...["After", "What", "Count", "Size"].map((word) =>
        h("th", { scope: "col", class: word === "What" ? null : "figure" }, word)))),
      h("tbody", {}, ...rows))));
}

function details({ request, stderr, payloads }) {
  const panel = (title, ...content) => {
    const id = `request-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
    return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), ...content);
  };
  const fact = (word, value) => (value === null || value === undefined || value === "" ? [] : [h("dt", {}, word), h("dd", {}, value)]);
  const facts = h("dl", { class: "facts" },
    fact("Agent", h("a", { href: `#/agents/${encodeURIComponent(request.agent)}` }, said(request.agent))),
    fact("Request id", said(request.request_id, "code")),
    fact("Run", request.run && said(request.run, "code")),
    fact("Handler", [request.handler, request.stream ? "as a stream" : ""].filter(Boolean).join(", ")),
    fact("API", request.dialect), fact("Key", request.key && said(request.key)),
    fact("Status", request.status === null ? "" : String(request.status)),
    fact("Began", time(request.began)), fact("Ended", request.ended === null ? "" : time(request.ended)),
    fact("Words", number(request.words)),
    fact("In, out", `${bytes(request.bytes_in)}, ${bytes(request.bytes_out)}`),
    fact("Worker", request.pid === null ? "" : `pid ${request.pid}`),
    fact("Client", request.client_left ? "left before the end" : ""));
  const log = h("p", { class: "hint" }, h("a", { href: `#/log?request=${encodeURIComponent(request.request_id)}` }, "Its lines in the log"));
  const lines = stderr.length > 0 ? h("ol", { class: "lines", tabindex: "0", "aria-label": "Lines" }, stderr.map(logLine)) : h("p", { class: "dim" }, "It wrote nothing.");
  const shown = [panel("About it", facts, log), panel("What its worker wrote to stderr", lines)];
  if (payloads) {
    shown.push(panel("What was asked", said(payloads.request ?? "", "pre")), panel("What was answered", said(payloads.response ?? "", "pre")));
  } else {
    shown.push(h("p", { class: "hint" }, hello.payloads ? "Nothing of its text was kept." : "What was asked and answered is shown only with [server] log_payloads = true."));
  }
  return shown;
}
