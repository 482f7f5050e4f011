// Requests to the gateway. The key is kept for this tab (sessionStorage), and goes into a header:
// never into an address, which would stand in logs and histories.

import { learn } from "./clock.js";

const KEPT = "gateway-console-key";

/** The folder of the page: the gateway's root, wherever a proxy has put it. */
export const ROOT = new URL(".", document.baseURI);

let key = readKept();
let asking = null;

function readKept() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return ""; // storage is forbidden here: the key is kept in memory
  }
}

function keep(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(KEPT, value);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // see `readKept`
  }
}

export const hasKey = () => key !== "";

/** An error response: what went wrong, in the gateway's words. */
export class Refused extends Error {
  constructor(status, error, requestId) {
    super(error?.message ?? `the gateway answered ${status}`);
    this.status = status;
    this.error = error ?? {};
    this.requestId = requestId;
  }
}

/** The response to a request, once there is a good key. Raises Refused, and TypeError where no
 * gateway answers. */
export async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const used = key;
    const all = { ...headers };
    if (used) all.Authorization = `Bearer ${used}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    const response = await fetch(new URL(path, ROOT), {
      method, body, headers: all, signal, cache: "no-store", credentials: "same-origin",
    });
    learn(response.headers.get("date"));
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    if (used === key) await askForKey(used === "" ? "" : refused.message);
    signal?.throwIfAborted();
  }
}

/** The JSON value of a response. Raises as `send` does. */
export const get = async (path, options) => (await send(path, options)).json();

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // a proxy in between writes what it likes
  }
  return new Refused(response.status, error, response.headers.get("x-request-id"));
}

/** What no field of a request can hold, and so no key: anything but visible ASCII (RFC 6750, 2.1). */
const UNFIT = /[^!-~]/u;

/** What is wrong with a key that was typed, or an empty text. */
function wrongWith(typed) {
  const odd = UNFIT.exec(typed)?.[0];
  if (odd === undefined) return "";
  const name = /\s/.test(odd) ? "a space" : `the character ${odd}`;
  return `A key is of ASCII letters, digits and signs, and this one has ${name} in it. Copy it again, as a whole and alone.`;
}

/** Ask for a key, once for all requests that wait for one. */
function askForKey(why) {
  asking ??= new Promise((given) => {
    keep("");
    const dialog = document.getElementById("key-dialog");
    const form = document.getElementById("key-form");
    const refusal = document.getElementById("key-refusal");
    refusal.textContent = why;
    dialog.addEventListener("cancel", stay);
    form.addEventListener("submit", function take(event) {
      event.preventDefault();
      const typed = document.getElementById("key").value.trim();
      refusal.textContent = wrongWith(typed);
      if (refusal.textContent) return;
      form.removeEventListener("submit", take);
      dialog.removeEventListener("cancel", stay);
      keep(typed);
      form.reset();
      dialog.close();
      document.getElementById("forget").hidden = false;
      asking = null;
      given();
    });
    dialog.showModal();
  });
  return asking;
}

const stay = (event) => event.preventDefault(); // without a key there is nothing behind the dialog

/** Forget the key, and everything that was shown with it. */
export function forget() {
  keep("");
  location.reload();
}
