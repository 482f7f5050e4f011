// Tools of the reader's own, in a chat: declared as JSON, and run by the reader, who writes what they
// returned. The results go on in a new request, as messages.

import { rawField } from "./asks.js";
import { h, said, setText } from "./dom.js";
import { Invalid } from "./form.js";

const EXAMPLE = `[{
  "name": "weather",
  "description": "The weather in a city.",
  "parameters": { "type": "object", "properties": { "city": { "type": "string" } } }
}]`;

/** A field for tools, folded. `read()` returns their JSON text, or an empty one for none, and raises
 * Invalid; `names()` those that were read last. */
export function toolsField() {
  const field = rawField("Tools (JSON)");
  field.control.placeholder = EXAMPLE;
  let names = new Set();
  return {
    element: h("details", { class: "tools-field" }, h("summary", {}, "Tools of yours"),
      h("p", { class: "hint" }, "The agent may call them. You are asked for what they return."), field.element),
    names: () => names,
    read() {
      names = new Set();
      if (field.control.value.trim() === "") return "";
      const json = field.read();
      const tools = JSON.parse(json);
      const named = Array.isArray(tools) && tools.every((tool) => typeof tool?.name === "string");
      if (!named) throw new Invalid("Tools are a list of objects, each with a name", field.control);
      names = new Set(tools.map((tool) => tool.name));
      return json;
    },
  };
}

/** A form for what tools have returned: `answer(results)` gets a text for each of the calls. */
export function resultsForm(calls, answer) {
  const fields = calls.map(({ name }) => h("textarea", { rows: "2", "aria-label": `Result of ${name}` }));
  const form = h("form", {
    class: "asks ask-form",
    onsubmit(event) {
      event.preventDefault();
      for (const each of form.querySelectorAll("textarea, button")) each.disabled = true;
      setText(hint, "Sent");
      answer(fields.map((field) => field.value));
    },
  });
  const hint = h("p", { class: "hint" });
  form.append(...calls.map(({ name, given }, place) => h("div", { class: "ask" },
    h("span", { class: "badge", "data-tone": "wait" }, "tool of yours"), " ", said(name, "code"), said(given, "pre"), fields[place])),
  h("div", { class: "ask-buttons" }, h("button", { type: "submit", class: "main-action" }, "Send results"), hint));
  return form;
}

/** The messages of a turn that has called tools, and of their results, in OpenAI's form. */
export const messagesOf = (text, calls, results) => [
  {
    role: "assistant",
    content: text || null,
    tool_calls: calls.map(({ id, name, given }) => ({ id, type: "function", function: { name, arguments: given } })),
  },
  ...calls.map(({ id }, place) => ({ role: "tool", tool_call_id: id, content: results[place] })),
];
