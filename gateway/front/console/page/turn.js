// One answer of an agent as it comes: text, reasoning, tool calls, files, what it is doing, questions,
// and how it ended. Text is collected and drawn once a frame, so that a thousand chunks a second cost
// no more than sixty. Screen readers are told of the beginning and the end, not of each word.

import { h, said, setText } from "./dom.js";
import { pretty } from "./facts.js";
import { shownFile } from "./files.js";
import { duration, number } from "./format.js";

const MOST_CHARACTERS = 2_000_000; // of text that is drawn; the rest is counted
const MOST_PARTS = 1000;

export class Turn {
  text = "";
  outcome = null;
  #body = h("div", { class: "turn-body" });
  #status = said("", "p", { class: "turn-status hint" });
  #foot = h("p", { class: "turn-foot hint" });
  #open = null; // the text or reasoning that the next piece goes on with
  #calls = new Map();
  #parts = 0;
  #drawn = 0;
  #frame = 0;
  #began = performance.now();
  #first = null;
  words = 0;

  constructor(who) {
    this.element = h("article", { class: "turn agent-turn", "aria-busy": "true", "aria-label": `Answer of ${who}` },
      h("p", { class: "who" }, said(who)), this.#body, this.#status, this.#foot);
  }

  /** Take an event of the stream (`message`, `agent`) or of a whole answer's `events`. */
  chunk(text) {
    this.#heard();
    this.text += text;
    this.#write("text", text);
  }

  event(event) {
    this.#heard();
    const known = Object.hasOwn(EVENTS, event.type) ? EVENTS[event.type] : custom;
    known.call(null, this, event);
  }

  #heard() {
    this.words += 1;
    this.#first ??= performance.now() - this.#began;
  }

  #write(kind, text) {
    if (this.#open?.kind !== kind) this.#open = { kind, node: this.#piece(kind), waits: "" };
    this.#open.waits += text;
    const open = this.#open;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
    if (open.waits.length > 65_536) this.#flush();
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const open = this.#open;
    if (!open?.waits) return;
    const room = Math.max(0, MOST_CHARACTERS - this.#drawn);
    open.node?.appendData(open.waits.slice(0, room));
    this.#drawn += open.waits.length;
    open.waits = "";
  }

  #piece(kind) {
    const text = document.createTextNode("");
    if (kind === "reasoning") {
      const pre = h("div", { class: "said pre", dir: "auto" }, text);
      if (!this.add(h("details", { class: "reasoning", open: true }, h("summary", {}, "Reasoning"), pre))) return null;
    } else if (!this.add(h("div", { class: "said pre answer", dir: "auto" }, text))) {
      return null;
    }
    return text;
  }

  /** Add a part, and end the text before it; null where there are too many. */
  add(element) {
    this.#flush();
    this.#open = null;
    this.#parts += 1;
    if (this.#parts > MOST_PARTS) return null;
    this.#body.append(element);
    return element;
  }

  reasoning(text) {
    this.#write("reasoning", text);
  }

  status(text) {
    setText(this.#status, text);
  }

  /** The call of a tool with an id, made when it is first heard of. */
  call(id, name) {
    let call = this.#calls.get(id);
    if (call === undefined) {
      call = { name, returned: false, arguments: said("", "pre"), result: h("div"), state: h("span", { class: "badge" }, "called"), drawn: 0 };
      this.add(h("details", { class: "tool" },
        h("summary", {}, h("span", { class: "dim" }, "Tool "), said(name, "code"), " ", call.state),
        h("p", { class: "hint" }, "Arguments"), call.arguments, call.result));
      this.#calls.set(id, call);
    }
    return call;
  }

  /** The calls of these tools that have no result: `{ id, name, given }`, with the arguments as
   * they were given. */
  waitingFor(names) {
    return [...this.#calls]
      .filter(([, { name, returned }]) => names.has(name) && !returned)
      .map(([id, { name, arguments: shown }]) => ({ id, name, given: shown.textContent }));
  }

  /** The answer has ended: well, with an error, or because it was stopped. */
  end(how, error = null, requestId = null) {
    this.#flush();
    setText(this.#status, "");
    this.element.setAttribute("aria-busy", "false");
    for (const each of this.#body.querySelectorAll(".reasoning")) each.open = this.text === "";
    const told = [how, `${number(this.words)} words`];
    if (this.#first !== null) told.push(`first after ${duration(this.#first / 1000)}`);
    told.push(`${duration((performance.now() - this.#began) / 1000)} in all`);
    for (const [name, count] of Object.entries(this.outcome?.usage ?? {})) told.push(`${number(count)} ${name.replaceAll("_", " ")}`);
    if (this.#drawn > MOST_CHARACTERS) told.push("too long to be shown whole");
    setText(this.#foot, told.join(" · "));
    if (error) {
      this.add(h("div", { class: "turn-error" }, h("strong", {}, said(error.type ?? "error")), " ", said(error.message ?? "it failed"),
        error.setting ? h("p", { class: "hint" }, "The setting that would help: ", said(error.setting, "code")) : null,
        requestId ? h("p", { class: "hint" }, h("a", { href: `#/log?request=${encodeURIComponent(requestId)}` }, "Its lines in the log")) : null));
    }
  }
}

const EVENTS = {
  reasoning: (turn, { text }) => turn.reasoning(String(text)),
  status(turn, { text, progress, total }) {
    const share = progress !== undefined && progress !== null ? ` (${number(progress)}${total ? ` of ${number(total)}` : ""})` : "";
    turn.status(`${text}${share}`);
  },
  tool_call(turn, { call, name, arguments: whole, delta }) {
    const shown = turn.call(call, name);
    if (whole !== undefined) setText(shown.arguments, pretty(whole));
    else if (shown.drawn < MOST_CHARACTERS) {  // a piece is added, and the others are left as they are
      shown.arguments.append(String(delta));
      shown.drawn += String(delta).length;
    }
  },
  tool_result(turn, { call, content, is_error: failed }) {
    const shown = turn.call(call, "");
    shown.returned = true;
    setText(shown.state, failed ? "failed" : "returned");
    shown.state.dataset.tone = failed ? "bad" : "good";
    shown.result.replaceChildren(h("p", { class: "hint" }, "Result"), said(typeof content === "string" ? content : pretty(content), "pre"));
  },
  file: (turn, event) => turn.add(shownFile(event)),
  usage: (turn, { type, ...usage }) => { turn.outcome = { ...turn.outcome, usage }; },
  state(turn, { value, patch }) {
    const word = value === undefined ? "State, changed" : "State";
    turn.add(h("details", { class: "tool" }, h("summary", {}, word), said(pretty(value ?? patch), "pre")));
  },
  outcome(turn, { type, ...outcome }) {
    turn.outcome = { ...turn.outcome, ...outcome };
  },
};

function custom(turn, event) {
  turn.add(h("details", { class: "tool" }, h("summary", {}, "Event ", said(event.type, "code")), said(pretty(event), "pre")));
}
