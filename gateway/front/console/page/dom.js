// Elements, made and changed by calls. Nothing here, or anywhere in the console, reads markup: what
// comes from an agent becomes text nodes and attribute values, and cannot become anything else.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props` are attributes, but for `on…` (listeners), and `value`, `checked` and the
 * like, which are properties. What is null, undefined or false is left out. */
export function h(tag, props = {}, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** The same as `h`, for SVG. */
export function svg(tag, props = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), props, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open", "selected"]);

function furnish(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return element;
}

/** What an agent, or anybody else, has written: text, whose direction stays its own. */
export function said(text, tag = "span", props = {}) {
  return h(tag, { dir: "auto", ...props, class: `said ${props.class ?? ""}`.trim() }, String(text));
}

/** Set the text of an element, if it has changed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute, or remove it for null, if it has changed. */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Make the children of `parent` those of `items`, each kept by its key for as long as it is there,
 * so that focus, selection and scrolling stay with them. `make(item)` returns an element and a
 * function that updates it. */
export class Keyed {
  #parent;
  #make;
  #kept = new Map();

  constructor(parent, make) {
    this.#parent = parent;
    this.#make = make;
  }

  update(items, keyOf) {
    for (const _ of this.updating(items, keyOf)); // all steps at once
  }

  /** The same in steps, one for each item. It may be left off, and begun anew with other items. */
  *updating(items, keyOf) {
    const wanted = new Map(Array.from(items, (item) => [keyOf(item), item]));
    for (const [key, { element }] of this.#kept) {
      if (wanted.has(key)) continue;
      element.remove();
      this.#kept.delete(key);
    }
    let place = this.#parent.firstElementChild;
    for (const [key, item] of wanted) {
      let child = this.#kept.get(key);
      if (child === undefined) {
        child = this.#make(item);
        this.#kept.set(key, child);
      }
      child.update?.(item);
      if (child.element === place) place = place.nextElementSibling;
      else move(this.#parent, child.element, place);
      yield;
    }
  }

  get(key) {
    return this.#kept.get(key);
  }
}

/** Put an element before another one, with the focus that it may have where the browser can. */
function move(parent, element, place) {
  if (element.isConnected && parent.moveBefore) parent.moveBefore(element, place);
  else parent.insertBefore(element, place);
}

let announcement = null;

/** Have a screen reader say a sentence when it has finished what it is saying. Only the last of
 * those that come within a second is said. */
export function announce(sentence) {
  clearTimeout(announcement);
  announcement = setTimeout(() => setText(document.getElementById("said"), sentence), 1000);
}
