// The questions that a turn has ended with, as fields and buttons. Their answers go on in a new
// request (`resume`), as JSON text.

import { h, said, setText } from "./dom.js";
import { Invalid, schemaForm, showInvalid } from "./form.js";

const MOST_BUTTONS = 6;

/** The questions as an element. `answer(json)` gets the JSON text of `resume` once all of them have
 * been answered or declined. */
export function askForm(asks, answer) {
  const answers = new Map();
  const problem = h("p", { class: "refusal", role: "alert" });
  const element = h("div", { class: "asks" });
  const settle = (id, members, card, words) => {
    answers.set(id, `{"id":${JSON.stringify(id)},${members}}`);
    card.replaceChildren(card.firstElementChild, h("p", { class: "hint" }, words));
    setText(problem, "");
    if (answers.size === new Set(asks.map((ask) => ask.id)).size) answer(`[${[...answers.values()].join(",")}]`);
    else element.querySelector("button, input, textarea, select")?.focus();
  };
  for (const ask of asks) element.append(oneAsk(ask, settle, problem));
  element.append(problem);
  return element;
}

function oneAsk(ask, settle, problem) {
  const card = h("div", { class: "ask", role: "group", "aria-label": String(ask.message ?? "A question").slice(0, 200) },
    h("div", {}, h("span", { class: "badge", "data-tone": "wait" }, said(ask.reason ?? "question")), " ", said(ask.message ?? "", "p", { class: "ask-message" })));
  const resolve = (json, words) => settle(ask.id, `"status":"resolved","payload":${json}`, card, words);
  const decline = h("button", { type: "button", class: "quiet", onclick: () => settle(ask.id, '"status":"cancelled"', card, "Declined") }, "Decline");
  const choices = choicesOf(ask.schema);
  if (choices) {
    card.append(h("div", { class: "ask-buttons" }, ...choices.map(([value, word]) =>
      h("button", { type: "button", onclick: () => resolve(JSON.stringify(value), `Answered: ${word}`) }, word)), decline));
    return card;
  }
  const form = schemaForm(ask.schema ?? { type: "string" }, "Answer") ?? rawField();
  card.append(h("form", {
    class: "ask-form",
    onsubmit(event) {
      event.preventDefault();
      try {
        const json = form.read() ?? "null";
        resolve(json, `Answered: ${json.length > 200 ? `${json.slice(0, 200)}…` : json}`);
      } catch (error) {
        showInvalid(error, problem);
      }
    },
  }, form.element, h("div", { class: "ask-buttons" }, h("button", { type: "submit", class: "main-action" }, "Answer"), decline)));
  return card;
}

/** The answers that a schema allows, if they are few: `[[value, word]…]`. */
function choicesOf(schema) {
  if (schema === null || typeof schema !== "object") return null;
  if (schema.type === "boolean") return [[true, "Yes"], [false, "No"]];
  if (!Array.isArray(schema.enum) || schema.enum.length === 0 || schema.enum.length > MOST_BUTTONS) return null;
  return schema.enum.map((value) => [value, typeof value === "string" ? value : JSON.stringify(value)]);
}

/** A field for JSON, where a schema has no form. */
export function rawField(label = "Answer (JSON)", initial = "") {
  const control = h("textarea", { class: "code", rows: "6", spellcheck: "false", "aria-label": label, value: initial });
  control.addEventListener("input", () => control.removeAttribute("aria-invalid"));
  return {
    element: control,
    control,
    read() {
      try {
        JSON.parse(control.value);
      } catch (error) {
        throw new Invalid(`This is not JSON: ${error.message}`, control);
      }
      return control.value.trim();
    },
  };
}
