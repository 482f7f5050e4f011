// A form made from a JSON Schema, for the schemas that people write: objects of texts, numbers,
// flags, choices, lists of them, and objects in them. An agent may declare anything. What is not
// understood wholly becomes a field for JSON, and a schema that is odd or large as a whole gets no
// form: the caller then offers JSON. The gateway checks the input in any case.
//
// A form gives JSON text, not a value: a number stays as it was written, however many digits it has.

import { h, said, setText } from "./dom.js";

const MOST_FIELDS = 60;
const MOST_DEPTH = 4;
const MOST_REFERENCES = 8;
const MOST_CHOICES = 200;
const LONG_TEXT = 200; // from this maxLength on, a text gets several lines
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const INTEGER = /^-?(0|[1-9]\d*)$/;

class Unfit extends Error {}

/** What a field says of a value that it cannot give. */
export class Invalid extends Error {
  constructor(message, control) {
    super(message);
    this.control = control;
  }
}

let ids = 0;
const newId = () => `field-${(ids += 1)}`;

/** A form for a schema: `{ element, read() }`; null where there can be none. `read` returns JSON
 * text, or raises Invalid. */
export function schemaForm(schema, label = "Input") {
  try {
    if (schema === null || typeof schema !== "object") return null;
    const making = new Making(schema);
    const field = making.field(schema, label, true, 0);
    return field.raw ? null : field;
  } catch (error) {
    if (error instanceof Unfit || error instanceof RangeError || error instanceof TypeError) return null;
    throw error;
  }
}

class Making {
  #root;
  #fields = 0;

  constructor(root) {
    this.#root = root;
  }

  field(declared, name, required, depth) {
    this.#fields += 1;
    if (this.#fields > MOST_FIELDS || depth > MOST_DEPTH) throw new Unfit();
    const schema = this.#resolved(declared);
    const label = text(schema.title) ?? name;
    const about = { label, hint: text(schema.description), required, initial: initialOf(schema) };
    const kind = kindOf(schema);
    if (kind === "object") return this.#object(schema, about, depth);
    if (kind === "array") return this.#array(schema, about, depth);
    const make = SCALARS.get(kind) ?? json;
    return make(about, schema);
  }

  /** The schema that a reference means, within this document. */
  #resolved(declared) {
    let schema = declared;
    for (let step = 0; isObject(schema) && own(schema, "$ref") !== undefined; step += 1) {
      const target = own(schema, "$ref");
      if (step > MOST_REFERENCES || typeof target !== "string" || !target.startsWith("#")) throw new Unfit();
      schema = target.slice(1).split("/").slice(1).reduce((found, part) => {
        const key = decodeURIComponentSafely(part).replaceAll("~1", "/").replaceAll("~0", "~");
        if (found === null || typeof found !== "object" || !Object.hasOwn(found, key)) throw new Unfit();
        return found[key];
      }, this.#root);
    }
    const options = own(schema, "anyOf") ?? own(schema, "oneOf");
    if (Array.isArray(options) && options.length <= 3) {
      // "This or nothing", as optional members of Python and TypeScript are declared.
      const things = options.filter((each) => own(each, "type") !== "null");
      if (things.length === 1 && options.length > 1) return { ...this.#resolved(things[0]), ...titles(schema) };
    }
    return isObject(schema) ? schema : {};
  }

  #object(schema, about, depth) {
    const properties = own(schema, "properties");
    if (!isObject(properties) || Object.keys(properties).length === 0) return json(about);
    for (const odd of ["allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas"]) {
      if (own(schema, odd) !== undefined) return json(about);
    }
    const needed = Array.isArray(schema.required) ? schema.required : [];
    const members = Object.entries(properties).map(([name, each]) => [
      name, this.field(each, name, needed.includes(name), depth + 1), needed.includes(name),
    ]);
    const read = () => {
      const given = members.flatMap(([name, field]) => {
        const value = field.read();
        return value === null ? [] : [`${JSON.stringify(name)}:${value}`];
      });
      return given.length === 0 && !about.required ? null : `{${given.join(",")}}`;
    };
    const inner = members.map(([, field]) => field.element);
    const hint = about.hint ? said(about.hint, "p", { class: "hint" }) : null;
    const element = depth === 0
      ? h("div", { class: "form" }, hint, ...inner)
      : h("fieldset", { class: "form" }, h("legend", {}, said(about.label)), hint, ...inner);
    return { element, read };
  }

  #array(schema, about, depth) {
    const items = own(schema, "items");
    if (!isObject(items) || own(schema, "prefixItems") !== undefined) return json(about);
    this.field(items, "", true, depth + 1); // whether it can be made; how large it is
    const rows = h("div", { class: "form-rows" });
    const fields = new Map();
    const add = () => {
      const number = fields.size + 1;
      const field = new Making(this.#root).field(items, `${about.label} ${number}`, true, depth + 1);
      const row = h("div", { class: "form-row" }, field.element, h("button", {
        type: "button", class: "quiet", "aria-label": `Remove ${about.label} ${number}`,
        onclick: () => { fields.delete(row); row.remove(); more.focus(); },
      }, "Remove"));
      fields.set(row, field);
      rows.append(row);
      return row;
    };
    const more = h("button", { type: "button", class: "quiet", onclick: () => add().querySelector("input, textarea, select")?.focus() }, `Add to ${about.label}`);
    if (about.required) add();
    const element = h("fieldset", { class: "form" }, h("legend", {}, said(about.label)),
      about.hint ? said(about.hint, "p", { class: "hint" }) : null, rows, more);
    return {
      element,
      read: () => (fields.size === 0 && !about.required ? null : `[${[...fields.values()].map((each) => each.read()).join(",")}]`),
    };
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const own = (value, name) => (isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined);
const text = (value) => (typeof value === "string" && value !== "" ? value.slice(0, 2000) : null);
const titles = (schema) => Object.fromEntries(["title", "description", "default"].filter((name) => own(schema, name) !== undefined).map((name) => [name, schema[name]]));

function decodeURIComponentSafely(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new Unfit();
  }
}

function kindOf(schema) {
  const choices = own(schema, "enum");
  if (Array.isArray(choices)) return choices.length > 0 && choices.length <= MOST_CHOICES ? "enum" : "json";
  if (own(schema, "const") !== undefined) return "json";
  const type = own(schema, "type");
  if (Array.isArray(type)) {
    const things = type.filter((each) => each !== "null");
    return things.length === 1 ? String(things[0]) : "json";
  }
  return typeof type === "string" ? type : isObject(own(schema, "properties")) ? "object" : "json";
}

function initialOf(schema) {
  if (own(schema, "default") !== undefined) return schema.default;
  if (own(schema, "const") !== undefined) return schema.const;
  const examples = own(schema, "examples");
  return Array.isArray(examples) ? examples[0] : undefined;
}

/** A control with its label, and with its hint tied to it. */
function labelled(about, control) {
  const id = newId();
  control.id = id;
  if (about.required) control.setAttribute("aria-required", "true");
  const hint = about.hint ? said(about.hint, "span", { class: "hint", id: `${id}-hint` }) : null;
  if (hint) control.setAttribute("aria-describedby", hint.id);
  const name = h("label", { for: id }, said(about.label), about.required ? null : h("span", { class: "dim" }, " optional"));
  control.addEventListener("input", () => control.removeAttribute("aria-invalid"));
  return control.type === "checkbox"
    ? h("div", { class: "form-field flag" }, control, name, hint)
    : h("div", { class: "form-field" }, name, control, hint);
}

function fail(control, message) {
  throw new Invalid(message, control);
}

/** Show at its field, and in `place`, what is wrong with a value. Raises what is no Invalid. */
export function showInvalid(error, place) {
  if (!(error instanceof Invalid)) throw error;
  setText(place, error.message);
  error.control.setAttribute("aria-invalid", "true");
  error.control.focus();
}

function line(about, schema) {
  const long = schema.maxLength === undefined ? /body|content|description|prompt|text/i.test(about.label) : schema.maxLength >= LONG_TEXT;
  const initial = typeof about.initial === "string" ? about.initial : "";
  const control = long || initial.includes("\n") ? h("textarea", { rows: "3", value: initial }) : h("input", { type: "text", autocomplete: "off", value: initial });
  return {
    element: labelled(about, control),
    read: () => (control.value === "" && !about.required ? null : JSON.stringify(control.value)),
  };
}

function digits(about, schema) {
  const whole = kindOf(schema) === "integer";
  const initial = typeof about.initial === "number" ? String(about.initial) : "";
  const control = h("input", { type: "text", inputmode: whole ? "numeric" : "decimal", autocomplete: "off", value: initial });
  return {
    element: labelled(about, control),
    read() {
      const value = control.value.trim();
      if (value === "" && !about.required) return null;
      if (!(whole ? INTEGER : NUMBER).test(value)) fail(control, `${about.label}: expected ${whole ? "a whole number" : "a number"}`);
      return value;
    },
  };
}

function flag(about) {
  const control = h("input", { type: "checkbox", checked: about.initial === true });
  return { element: labelled({ ...about, required: true }, control), read: () => String(control.checked) };
}

function choice(about, schema) {
  const options = schema.enum.map((value, index) => h("option", { value: String(index), selected: value === about.initial }, typeof value === "string" ? value : JSON.stringify(value)));
  const control = h("select", {}, about.required ? null : h("option", { value: "" }, "–"), ...options);
  return {
    element: labelled(about, control),
    read: () => (control.value === "" ? null : JSON.stringify(schema.enum[Number(control.value)])),
  };
}

const SCALARS = new Map([
  ["enum", choice], ["boolean", flag], ["number", digits], ["integer", digits], ["string", line],
]);

/** A field for JSON text. */
function json(about) {
  const initial = about.initial === undefined ? "" : JSON.stringify(about.initial, null, 2);
  const control = h("textarea", { class: "code", rows: "4", spellcheck: "false", value: initial });
  return {
    raw: true,
    element: labelled({ ...about, label: `${about.label} (JSON)` }, control),
    read() {
      if (control.value.trim() === "" && !about.required) return null;
      try {
        JSON.parse(control.value);
      } catch (error) {
        fail(control, `${about.label}: ${error.message}`);
      }
      return control.value.trim();
    },
  };
}
