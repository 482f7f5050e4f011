// Values that a machine keeps, shown to people: objects as lists of facts, everything else in words.

import { h, said } from "./dom.js";
import { bytes, number, time } from "./format.js";

const MOST_DEPTH = 4;
const MOST_MEMBERS = 100;

/** A value of any shape as an element. */
export function shownValue(value, depth = 0) {
  if (value === null || value === undefined || value === "") return h("span", { class: "dim" }, "none");
  if (typeof value === "boolean") return document.createTextNode(value ? "yes" : "no");
  if (typeof value === "number") return document.createTextNode(plainNumber(value));
  if (typeof value === "string") return said(value);
  if (depth >= MOST_DEPTH) return said(JSON.stringify(value), "code");
  if (Array.isArray(value)) return list(value, depth);
  return facts(Object.entries(value), depth);
}

const plainNumber = (value) => (Number.isInteger(value) ? number(value) : String(Math.round(value * 1000) / 1000));

function list(values, depth) {
  if (values.length === 0) return h("span", { class: "dim" }, "none");
  if (values.every((each) => typeof each !== "object")) return said(values.slice(0, MOST_MEMBERS).join(", "));
  return h("ul", { class: "plain" }, values.slice(0, MOST_MEMBERS).map((each) => h("li", {}, shownValue(each, depth + 1))));
}

/** Pairs of a name and a value. */
export function facts(pairs, depth = 0) {
  if (pairs.length === 0) return h("span", { class: "dim" }, "none");
  return h("dl", { class: "facts" }, pairs.slice(0, MOST_MEMBERS).flatMap(([name, value]) => [
    said(name.replaceAll("_", " "), "dt"),
    h("dd", {}, measured(name, value) ?? shownValue(value, depth + 1)),
  ]));
}

/** Numbers whose names say what they measure. */
function measured(name, value) {
  if (typeof value !== "number" || value === 0) return null;
  if (/^(memory|tmp|fsize|max_rss|max_body|size|sent|received|bytes.*|.*_bytes)$/.test(name)) return bytes(value);
  if (/^(at|since|began|ended)$/.test(name) && value > 1e9) return time(value);
  return null;
}

/** A JSON value as text to read. */
export const pretty = (value) => JSON.stringify(value, null, 2);
