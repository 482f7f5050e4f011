// The frame of the page: which part is shown (`#/agents/echo`), the key, and the link to the
// gateway. A part is a function of its place, the path after its name and the query; it ends with
// its signal.

import { forget, hasKey } from "./api.js";
import { announce, h, setText } from "./dom.js";
import { greet, hello } from "./live.js";
import { showAgents } from "./agents.js";
import { showAgent } from "./agent.js";
import { showTry } from "./try.js";
import { showRequests } from "./requests.js";
import { showRequest } from "./request.js";
import { showLog } from "./log.js";
import { showFleet } from "./fleet.js";
import { isFinal } from "./stream.js";

const PARTS = {
  agents: { title: "Agents", show: (place, scope) => (scope.name ? showAgent : showAgents)(place, scope) },
  try: { title: "Try it", show: showTry },
  requests: { title: "Requests", show: (place, scope) => (scope.name ? showRequest : showRequests)(place, scope) },
  log: { title: "Log", show: showLog },
  fleet: { title: "Fleet", show: showFleet },
};

const main = document.getElementById("main");
const link = document.getElementById("link");
let shown = null;

/** What the address after `#` says: `{ part, name, query }`. */
function readAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [part, ...rest] = path.split("/");
  let name = rest.join("/");
  try {
    name = decodeURIComponent(name);
  } catch {
    // written by hand, and shown as it is
  }
  const there = Object.hasOwn(PARTS, part) && (part !== "fleet" || hello.fleet);
  return { part: there ? part : "agents", name, query: new URLSearchParams(query) };
}

function show() {
  const { part, name, query } = readAddress();
  shown?.abort();
  shown = new AbortController();
  for (const each of document.querySelectorAll("nav [data-part]")) {
    if (each.dataset.part === part) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  const title = PARTS[part].title;
  document.title = `${name ? `${name} · ` : ""}${title} · Console`;
  const place = h("div", { class: `part ${part}` });
  main.replaceChildren(place);
  PARTS[part].show(place, { name, query, signal: shown.signal, linked });
}

/** Tell whether what is shown is live. */
function linked(is, reason) {
  link.dataset.state = is ? "live" : "lost";
  setText(link, is ? "Live" : isFinal(reason) ? "Refused" : "No connection");
  if (!is) announce(isFinal(reason) ? reason.message : `The connection is lost: ${reason?.message ?? "the gateway ended it"}`);
}

addEventListener("hashchange", () => {
  show();
  scrollTo(0, 0);
  (main.querySelector("h1") ?? main).focus();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

const forgetting = document.getElementById("forget");
forgetting.addEventListener("click", forget);
forgetting.hidden = !hasKey();

async function start() {
  try {
    await greet();
  } catch (error) {
    main.replaceChildren(h("p", { class: "empty", role: "alert" }, `The gateway cannot be asked: ${error.message}`));
    return;
  }
  if (hello.key) setText(forgetting, `Forget the key ${hello.key}`);
  document.querySelector("[data-part=fleet]").hidden = !hello.fleet;
  show();
}

start();
