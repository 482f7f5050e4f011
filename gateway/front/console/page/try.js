// Try an agent: invoke it with a form or with JSON, or chat with it. Both are requests of the native
// API, shown as programs to copy.

import { get, hasKey, Refused, ROOT, send } from "./api.js";
import { askForm, rawField } from "./asks.js";
import { announce, h, said, setAttribute, setText } from "./dom.js";
import { pretty } from "./facts.js";
import { schemaForm, showInvalid } from "./form.js";
import { byName, counted } from "./format.js";
import { agents, hello, shownState, watchAgents } from "./live.js";
import { snippets } from "./snippets.js";
import { events } from "./stream.js";
import { messagesOf, resultsForm, toolsField } from "./tools.js";
import { Turn } from "./turn.js";

const NEAR_THE_END = 320; // pixels from the end of the page that count as reading along

export function showTry(place, { name, query, signal, linked }) {
  const choice = h("select", { id: "try-agent", onchange: () => { location.hash = `#/try/${encodeURIComponent(choice.value)}`; } });
  const state = h("span", { class: "badge" });
  const lead = said("", "p", { class: "lead dim" });
  const work = h("div");
  const nothing = h("p", { class: "empty", hidden: true }, "There is no agent that may be called here.");
  place.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Try it"), state, h("span", { class: "grow" }),
      h("div", { class: "filters" }, h("label", { for: "try-agent" }, "Agent", choice))),
    lead, work, nothing);
  let shown = null;
  let names = "";
  let known = [];
  const look = () => {
    nothing.hidden = agents.size > 0;
    if ([...agents.keys()].join("\n") !== names) {
      names = [...agents.keys()].join("\n");
      known = [...agents.keys()].sort(byName);
      choice.replaceChildren(...known.map((each) => h("option", { value: each }, each)));
    }
    const wanted = agents.has(name) ? name : known[0];
    if (wanted === undefined) return;
    choice.value = wanted;
    const agent = agents.get(wanted);
    const { tone, word, meaning } = shownState(agent.state);
    setAttribute(state, "data-tone", tone);
    setText(state, word);
    setAttribute(state, "title", meaning);
    setText(lead, agent.description ?? "");
    if (shown?.name !== wanted) shown = { name: wanted, offer: showHandlers(work, agent, query.get("handler"), signal) };
    shown.offer(handlersOf(agent));
  };
  if (agents.size > 0) look();
  watchAgents(signal, look, linked);
}

const handlersOf = (agent) => {
  const told = (agent.handlers ?? ["invoke", "chat"]).filter((each) => each === "invoke" || each === "chat");
  return told.sort().reverse(); // invoke first
};

/** Show what an agent can be asked for. Returns what is to be called with its handlers, which may
 * be known only after the first request: what is shown stays. */
function showHandlers(work, agent, wanted, signal) {
  if (!hello.dialects.includes("native")) {
    work.replaceChildren(h("p", { class: "empty" }, "The native API is off here ([server] dialects): agents cannot be tried from the console."));
    return () => {};
  }
  const inner = h("div");
  const makers = { invoke: invokePane, chat: chatPane };
  const panes = new Map(); // kept while others are shown: a conversation is not lost by a look aside
  let picked = null;
  const pick = (handler) => {
    picked = handler;
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.handler === handler));
    if (!panes.has(handler)) panes.set(handler, makers[handler](agent, signal));
    inner.replaceChildren(panes.get(handler));
  };
  const buttons = ["invoke", "chat"].map((handler) => h("button", { type: "button", "data-handler": handler, onclick: () => pick(handler) }, handler === "chat" ? "Chat" : "Invoke"));
  work.replaceChildren(h("div", { class: "choice", role: "group", "aria-label": "Handler" }, ...buttons), inner);
  return (handlers) => {
    if (picked === null && handlers.length > 0) pick(handlers.includes(wanted) ? wanted : handlers[0]);
    for (const each of buttons) each.hidden = !handlers.includes(each.dataset.handler) && each.dataset.handler !== picked;
  };
}

/** A button pair, a place for answers, and the programs: what invoke and chat have in common. */
class Caller {
  constructor(agent, handler, signal, { bodyOf, log }) {
    this.agent = agent.name;
    this.url = new URL(`agent/${encodeURIComponent(agent.name)}/${handler}`, ROOT).href;
    this.signal = signal;
    this.log = log;
    this.scope = null;
    this.streams = h("input", { type: "checkbox", id: `stream-${handler}`, checked: true });
    this.problem = h("p", { class: "refusal", role: "alert" });
    this.go = h("button", { type: "submit", class: "main-action" }, handler === "chat" ? "Send" : "Invoke");
    this.stop = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.scope?.abort() }, "Stop");
    this.code = codePanel(() => ({ url: this.url, json: bodyOf(), streams: this.streams.checked, keyed: hasKey() }));
  }

  controls() {
    return h("div", { class: "controls" }, h("label", { class: "flag" }, this.streams, "Stream"), h("span", { class: "grow" }), this.stop, this.go);
  }

  /** Make the request; the turn that shows its answer, once that has ended. */
  async ask(json) {
    this.scope = new AbortController();
    const stop = () => this.scope.abort();
    this.signal.addEventListener("abort", stop);
    const turn = new Turn(this.agent);
    this.log.append(turn.element);
    this.running(true);
    const follow = setInterval(() => keepInView(), 100);
    let requestId = null;
    try {
      const response = await send(this.url, { method: "POST", body: json, headers: { Accept: "text/event-stream, application/json" }, signal: this.scope.signal });
      requestId = response.headers.get("x-request-id");
      if (response.headers.get("content-type")?.startsWith("text/event-stream")) await readStream(turn, response);
      else readAnswer(turn, await response.json());
      turn.end(ENDS[turn.outcome?.finish] ?? "Whole");
    } catch (error) {
      if (this.scope.signal.aborted) turn.end("Stopped");
      else if (error instanceof Refused) turn.end("Failed", error.error, error.requestId);
      else turn.end("Failed", { type: "no answer", message: error.message }, requestId);
      turn.failed = true;
    } finally {
      clearInterval(follow);
      this.signal.removeEventListener("abort", stop);
      this.running(false);
      keepInView();
    }
    announce(turn.failed ? "The answer has failed or was stopped" : `The answer has ended, ${counted(turn.words, "word")}`);
    return turn;
  }

  running(is) {
    if (!is && document.activeElement === this.stop) this.go.focus();
    this.go.disabled = is;
    this.stop.hidden = !is;
    if (is) announce("Asked; the answer is coming");
  }
}

const ENDS = { stop: "Whole", length: "Cut at a limit", refused: "The agent refused", tool_calls: "It waits for tools of yours", input_required: "It has questions" };

/** Scroll on with an answer that grows, unless its reader has scrolled away from the end. */
function keepInView() {
  const below = document.documentElement.scrollHeight - innerHeight - scrollY;
  if (below > 0 && below < NEAR_THE_END) scrollBy(0, below);
}

async function readStream(turn, response) {
  for await (const { event, data } of events(response)) {
    if (event === "error") throw new Refused(response.status, JSON.parse(data).error, response.headers.get("x-request-id"));
    if (data === "[DONE]") return;
    const value = JSON.parse(data);
    if (event === "agent") turn.event(value);
    else if (event === "message") turn.chunk(value.chunk);
  }
  throw new TypeError("the stream was cut before its end");
}

/** A whole answer: its events, then its text or its value. */
function readAnswer(turn, { output, message, events: told = [], finish, usage, asks }) {
  for (const event of told) turn.event(event);
  const value = message === undefined ? output : (message?.content ?? message);
  turn.chunk(typeof value === "string" ? value : pretty(value));
  turn.outcome = { ...turn.outcome, finish, usage: usage ?? turn.outcome?.usage, asks };
}

function invokePane(agent, signal) {
  const log = h("div", { class: "turns" });
  const holder = h("div", { class: "input-holder" });
  const raw = rawField("Input (JSON)", '"Hello"');
  let form = null;
  let asJson = true;
  const read = () => (asJson ? raw : form).read();
  const bodyOf = (resume = "") => `{\n  "input": ${read().replaceAll("\n", "\n  ")},\n  "stream": ${caller.streams.checked},\n  "events": true${resume}\n}`;
  const caller = new Caller(agent, "invoke", signal, { bodyOf, log });
  const modes = ["Form", "JSON"].map((word) => h("button", { type: "button", onclick: () => pick(word === "JSON") }, word));
  const choice = h("div", { class: "choice", role: "group", "aria-label": "Input as", hidden: true }, ...modes);
  function pick(json) {
    if (json && !asJson) raw.control.value = attempt(() => pretty(JSON.parse(form.read()))) ?? raw.control.value;
    asJson = json;
    modes.forEach((each, index) => each.setAttribute("aria-pressed", String(Boolean(index) === json)));
    holder.replaceChildren(json ? raw.element : form.element);
  }
  pick(true);
  get(`console/api/agents/${encodeURIComponent(agent.name)}`, { signal }).then(({ input }) => {
    form = schemaForm(input);
    if (form === null) return;
    choice.hidden = false;
    pick(false);
    caller.code.draw();
  }).catch(() => {}); // JSON can be sent without knowing the schema

  async function run(resume) {
    let json;
    try {
      json = bodyOf(resume);
      setText(caller.problem, "");
    } catch (error) {
      return showInvalid(error, caller.problem);
    }
    log.replaceChildren();
    const turn = await caller.ask(json);
    const asks = turn.outcome?.asks;
    if (asks?.length) turn.add(askForm(asks, (answers) => run(`,\n  "resume": ${answers}`)));
  }
  return h("div", { class: "pane", oninput: caller.code.draw, onclick: caller.code.draw },
    h("form", { class: "panel input-panel", onsubmit: (event) => { event.preventDefault(); if (!caller.go.disabled) run(""); } },
      h("div", { class: "panel-head" }, h("h2", {}, "Input"), choice), holder, caller.problem, caller.controls()),
    log, caller.code.element);
}

function attempt(what) {
  try {
    return what();
  } catch {
    return null;
  }
}

function chatPane(agent, signal) {
  const log = h("div", { class: "turns", role: "log", "aria-live": "off", "aria-label": "Conversation" });
  const box = h("textarea", { id: "chat-text", rows: "2", placeholder: "Write a message" });
  const history = [];
  const tools = toolsField();
  tools.element.hidden = true;
  get(`console/api/agents/${encodeURIComponent(agent.name)}`, { signal })
    .then((about) => { tools.element.hidden = !about.tools; }).catch(() => {});
  const conversation = crypto.randomUUID?.() ?? `console-${Date.now()}`;
  const bodyOf = (resume = "", draft = box.value) => {
    const messages = draft === null ? history : [...history, { role: "user", content: draft || "Hello" }];
    const declared = tools.read();
    const more = declared ? `,\n  "tools": ${declared.replaceAll("\n", "\n  ")}${resume}` : resume;
    return `{\n  "messages": ${JSON.stringify(messages, null, 2).replaceAll("\n", "\n  ")},\n  "context": ${JSON.stringify({ conversation_id: conversation })},\n  "stream": ${caller.streams.checked},\n  "events": true${more}\n}`;
  };
  const caller = new Caller(agent, "chat", signal, { bodyOf, log });
  async function run(resume) {
    const turn = await caller.ask(bodyOf(resume, null));
    const calls = turn.outcome?.finish === "tool_calls" ? turn.waitingFor(tools.names()) : [];
    if (calls.length > 0) {
      turn.add(resultsForm(calls, (results) => {
        history.push(...messagesOf(turn.text, calls, results));
        run("");
      }))?.querySelector("textarea").focus();
      return;
    }
    if (turn.text) history.push({ role: "assistant", content: turn.text });
    const asks = turn.outcome?.asks;
    if (asks?.length) turn.add(askForm(asks, (answers) => run(`,\n  "resume": ${answers}`)))?.querySelector("button, input, textarea")?.focus();
    else if (!signal.aborted && log.isConnected && document.activeElement === document.body) box.focus();
  }
  function speak() {
    const text = box.value;
    if (text.trim() === "" || caller.go.disabled) return;
    try {
      tools.read();
      setText(caller.problem, "");
    } catch (error) {
      tools.element.open = true;
      return showInvalid(error, caller.problem);
    }
    box.value = "";
    history.push({ role: "user", content: text });
    log.append(h("article", { class: "turn own-turn", "aria-label": "You" }, h("p", { class: "who" }, "You"), h("div", { class: "said pre", dir: "auto" }, text)));
    scrollTo(0, document.documentElement.scrollHeight);
    run("");
  }
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    speak();
  });
  const fresh = h("button", { type: "button", class: "quiet", onclick: () => { if (!caller.go.disabled) { history.length = 0; log.replaceChildren(); box.focus(); } } }, "Start again");
  const controls = caller.controls();
  controls.prepend(fresh);
  caller.stop.before(h("span", { class: "hint keys" }, "Enter sends, Shift and Enter begins a line"));
  return h("div", { class: "pane chat", oninput: caller.code.draw }, log,
    h("form", { class: "panel input-panel", onsubmit: (event) => { event.preventDefault(); speak(); } },
      h("label", { for: "chat-text", class: "unseen" }, "Message"), box, tools.element, caller.problem, controls),
    caller.code.element);
}

/** The same request as programs; `draw` makes them anew. */
function codePanel(read) {
  const text = h("pre", { class: "code", tabindex: "0", "aria-label": "The request as a program" });
  const done = h("span", { class: "hint", role: "status" });
  let language = "curl";
  const draw = () => {
    const made = attempt(() => new Map(snippets(read())).get(language));
    setText(text, made ?? "The input is not whole yet.");
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.textContent === language));
    setText(done, "");
  };
  const buttons = ["curl", "Python", "TypeScript"].map((each) => h("button", { type: "button", onclick: () => { language = each; draw(); } }, each));
  const copy = h("button", {
    type: "button", class: "quiet",
    async onclick() {
      draw();
      try {
        await navigator.clipboard.writeText(text.textContent);
        setText(done, "Copied");
      } catch {
        getSelection().selectAllChildren(text); // the clipboard needs HTTPS or this machine
        setText(done, "Selected: copy it with the keyboard");
      }
    },
  }, "Copy");
  const element = h("details", { class: "panel code-panel", open: matchMedia("(min-width: 68rem)").matches, ontoggle: draw },
    h("summary", {}, "The same request as a program"),
    h("div", { class: "panel-head" }, h("div", { class: "choice", role: "group", "aria-label": "Language" }, ...buttons), copy, done), text);
  return { element, draw: () => element.open && draw() };
}
