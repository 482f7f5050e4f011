/** What the runners in JavaScript share; `__init__.py` beside this says what they are told and tell. */

import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";

export const TOOL = {
  name: "weather",
  description: "The weather in a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};
export const TOOL_SAYS = "12 °C";
export const PICTURE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
export const MAX_STEPS = 4;
export const SECONDS = 30;

/** What the client gave. */
export class Reply {
  text = "";
  pieces = 0;
  reasoning = "";
  calls = [];
  usage = null;
  finish = null;
  error = null;
  own = [];
  files = [];
  statuses = [];
  state = null;
  asks = [];

  say(text) {
    if (!text) return;
    this.text += text;
    this.pieces += 1;
  }

  spent(asked, answered) {
    if (asked !== undefined) this.usage = [asked, answered];
  }

  call(name, given) {
    this.calls.push([name, typeof given === "string" ? JSON.parse(given) : given]);
    return name === TOOL.name ? TOOL_SAYS : `there is no tool ${name}`;
  }

  fail(name, message, status = null) {
    this.error = { name, status, message };
  }

  /** Note an error that the client raised. */
  caught(error) {
    this.fail(error.constructor.name, error.message, error.statusCode ?? error.status ?? null);
  }
}

/** The version of an installed package. */
function version(name) {
  const file = path.join(import.meta.dirname, "node_modules", name, "package.json");
  return JSON.parse(fs.readFileSync(file)).version;
}

/** Carry out one order after the other, until the end of stdin. */
export async function serve(packages, carryOut) {
  const tell = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);
  tell(Object.fromEntries(packages.map((name) => [name, version(name)])));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const reply = new Reply();
    try {
      await carryOut(JSON.parse(line), reply);
      tell(reply);
    } catch (error) {
      tell({ broken: error?.stack ?? String(error) });
    }
  }
}
