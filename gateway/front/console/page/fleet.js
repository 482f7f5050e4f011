// The fleet that this gateway is a front of: its hosts, their load, and who of them comes and goes.

import { announce, h, Keyed, said, setAttribute, setText } from "./dom.js";
import { ago, byName, counted, number } from "./format.js";
import { Kept, shownState } from "./live.js";
import { Drawing } from "./slices.js";
import { follow } from "./stream.js";

const STATES = {
  beating: ["good", "serving", "It is heard as it should be."],
  draining: ["wait", "draining", "It is ending: it gets no new requests, and finishes those that it has."],
  silent: ["wait", "silent", "It has not been heard for a moment; it is given up soon."],
  away: ["bad", "away", "It is not heard any more: it crashed, or cannot be reached."],
};

const CONNECTED = "This front is connected to NATS.";
const CUT_OFF = "This front has no connection to NATS: it hears no host, and refuses requests.";

const REDRAW = 1000; // milliseconds between two looks at the times

export function showFleet(place, { signal, linked }) {
  const hosts = new Map();
  const count = h("span", { class: "dim" });
  const nats = h("p", { class: "nats", hidden: true });
  const rows = h("ul", { class: "host-rows", "aria-label": "Hosts" });
  const nothing = h("p", { class: "empty", hidden: true }, "There is no host that may be seen here.");
  place.append(h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Fleet"), count), nats, rows, nothing);

  const keyed = new Keyed(rows, hostRow);
  let connected = null;
  const drawing = new Drawing(function* draw() {
    const sorted = [...hosts.values()].sort((a, b) => byName(a.name, b.name) || byName(a.id, b.id));
    setText(count, counted(sorted.length, "host"));
    nats.hidden = connected === null;
    setAttribute(nats, "data-tone", connected ? "good" : "bad");
    setText(nats, connected ? CONNECTED : CUT_OFF);
    nothing.hidden = connected === null || sorted.length > 0;
    yield* keyed.updating(sorted, (host) => host.id);
  }, signal);

  const tick = setInterval(() => [...hosts.values()].some((each) => each.heard !== null) && drawing.soon(), REDRAW);
  signal.addEventListener("abort", () => clearInterval(tick));
  const kept = new Kept(hosts);
  let last = null;
  follow("console/api/live?topics=hosts", {
    signal, linked,
    heard(event, data) {
      if (event !== "hosts") return;
      connected = data.connected;
      takeHosts(kept, data);
      drawing.soon();
      if (data.more) return;
      const words = inWords(hosts, connected);
      if (last !== null && words !== last) announce(words);
      last = words;
    },
  });
}

/** Take an event over. A change that has a name is of a host that was not told before. */
function takeHosts(kept, data) {
  const told = new Map(data.removed.map((id) => [id, null]));
  for (const { agents, ...news } of data.hosts) {
    const known = news.name === undefined ? (told.get(news.id) ?? kept.map.get(news.id)) : null;
    const places = new Map(known?.agents);
    for (const [name, at] of Object.entries(agents)) {
      if (at === null) places.delete(name);
      else places.set(name, asPlace(at));
    }
    told.set(news.id, { ...known, ...news, agents: places });
  }
  kept.take(data, told);
}

const asPlace = ([state, capacity, inFlight, waiting, given]) => ({ state, capacity, inFlight, waiting, given });

/** What a screen reader is told when it has changed. */
function inWords(hosts, connected) {
  if (!connected) return CUT_OFF;
  const of = (state) => [...hosts.values()].filter((each) => each.state === state).map((each) => each.name).sort(byName);
  const told = ["draining", "silent", "away"].filter((state) => of(state).length > 0)
    .map((state) => `${STATES[state][1]}: ${of(state).join(", ")}`);
  return [`${counted(of("beating").length, "host")} serving`, ...told].join("; ");
}

function hostRow() {
  const name = said("", "h2");
  const badge = h("span", { class: "badge" });
  const heard = h("span", { class: "dim" });
  const id = said("", "code");
  const version = said("");
  const load = loadBar();
  const body = h("tbody");
  const table = h("div", { class: "scroll", tabindex: "0", role: "region" },
    h("table", {},
      h("thead", {}, h("tr", {}, ...["Agent", "State", "Load", "From this front"].map(
        (word, index) => h("th", { scope: "col", class: index === 3 ? "figure" : null }, word)))),
      body));
  const places = new Keyed(body, placeRow);
  return {
    element: h("li", { class: "panel host" },
      h("div", { class: "host-head" }, name, badge, heard),
      h("p", { class: "hint" }, "Version ", version, " · process ", id),
      load.element, table),
    update(host) {
      const [tone, word, meaning] = STATES[host.state] ?? ["calm", host.state, ""];
      setText(name, host.name);
      setAttribute(badge, "data-tone", tone);
      setAttribute(badge, "title", meaning);
      setText(badge, word);
      setText(heard, `heard ${host.heard === null ? "just now" : ago(host.heard)}`);
      setText(id, host.id);
      setText(version, host.version || "unknown");
      load.update(sumOf(host.agents.values()));
      setAttribute(table, "aria-label", `Agents of ${host.name}`);
      table.hidden = host.agents.size === 0;
      places.update([...host.agents].sort(([a], [b]) => byName(a, b)), ([agent]) => agent);
    },
  };
}

function sumOf(places) {
  const sum = { capacity: 0, inFlight: 0, waiting: 0 };
  for (const place of places) for (const name of Object.keys(sum)) sum[name] += place[name];
  return sum;
}

function placeRow([agent]) {
  const badge = h("span", { class: "badge" });
  const load = loadBar();
  const given = h("td", { class: "figure" });
  const link = h("a", { href: `#/agents/${encodeURIComponent(agent)}` }, said(agent));
  return {
    element: h("tr", {}, h("th", { scope: "row" }, link), h("td", {}, badge), h("td", { class: "load-cell" }, load.element), given),
    update([, place]) {
      const { tone, word } = shownState(place.state);
      setAttribute(badge, "data-tone", tone);
      setText(badge, word);
      load.update(place);
      setText(given, number(place.given));
    },
  };
}

/** How much there is to do, of what can be done at a time: as a bar and in words. */
function loadBar() {
  const bar = h("span", { class: "load" });
  const words = h("span", { class: "load-words" });
  return {
    element: h("span", { class: "load-whole" }, h("span", { class: "load-room", "aria-hidden": "true" }, bar), words),
    update({ capacity, inFlight, waiting }) {
      const share = capacity > 0 ? (inFlight + waiting) / capacity : 0;
      bar.style.setProperty("width", `${Math.min(100, share * 100).toFixed(1)}%`);
      setAttribute(bar, "data-tone", share >= 1 ? "bad" : null);
      const queue = waiting > 0 ? `, ${number(waiting)} waiting` : "";
      setText(words, `${number(inFlight)} of ${number(capacity)} running${queue} (${Math.round(share * 100)} %)`);
    },
  };
}
