// Files that an agent made, as what they are. Its bytes never become a page, a script or a style of
// this origin: an image only if it is one of the kinds that hold no markup, as a data: URL; text as
// text; everything else to be saved.

import { h, said } from "./dom.js";
import { bytes } from "./format.js";

const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"]);
const TEXTS = /^(text\/|application\/(json|xml|x-ndjson)$)/;
const MOST_TEXT = 20_000;
const MOST_IMAGE = 8 * 1024 * 1024; // characters of base64

/** A figure that shows a `file` event. */
export function shownFile({ name, mime, data, path }) {
  const title = String(name ?? "file");
  const caption = h("figcaption", {}, said(title, "strong"), " ", said(mime ?? "", "span", { class: "dim" }));
  const figure = h("figure", { class: "file" }, caption);
  if (typeof data !== "string") {
    figure.append(h("p", { class: "hint" }, "It can be found at ", said(path ?? "a place that was not told", "code")));
    return figure;
  }
  const content = decoded(data);
  if (content === null) {
    figure.append(h("p", { class: "refusal" }, "Its data is not base64."));
    return figure;
  }
  caption.append(" ", h("span", { class: "dim" }, bytes(content.length)), " ", saving(title, content));
  if (IMAGES.has(mime) && data.length <= MOST_IMAGE) {
    figure.prepend(h("img", { src: `data:${mime};base64,${data.replaceAll(/[^A-Za-z0-9+/=]/g, "")}`, alt: `${title}, made by the agent` }));
  } else if (TEXTS.test(mime)) {
    const text = new TextDecoder().decode(content.subarray(0, MOST_TEXT));
    figure.append(said(content.length > MOST_TEXT ? `${text}…` : text, "pre", { tabindex: "0" }));
  }
  return figure;
}

function decoded(base64) {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

/** A button that saves the bytes. Without a type of its own, nothing can open them in this origin. */
function saving(name, content) {
  return h("button", {
    type: "button", class: "quiet", "aria-label": `Save ${name}`,
    onclick() {
      const url = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
      h("a", { href: url, download: name.replaceAll(/[/\\]/g, "_") }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    },
  }, "Save");
}
