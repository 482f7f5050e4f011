// Follows the script of protocol/README.md in plain JavaScript: an agent without any SDK, as somebody
// would write it from the specification alone. For Node, Bun and Deno.
//
//     python -m protocol.conformance --script -- node tests/worker/agents/scripted.mjs

import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import process from "node:process";

const MOST = 8 * 1024 * 1024;
const cancelled = new Map(); // by id: what wakes the request that waits
let met = [];

async function send(message) {
  const line = JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n";
  if (Buffer.byteLength(line) > MOST) throw new Failure(-32603, "the answer is too long");
  if (!process.stdout.write(line)) await once(process.stdout, "drain");
}

class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function serve({ id, method, params }) {
  try {
    if (method !== "invoke" && method !== "chat") throw new Failure(-32601, `no method ${method}`);
    const script = method === "invoke" ? params.input : params.messages.at(-1).content;
    if (typeof script !== "object" || script === null) throw new Failure(-32602, "no instruction");
    if (script.say) {
      await say(id, script, params.events);
      return;
    }
    const value =
      script.chunks || script.halves ? await stream(id, script) : await follow(id, script);
    if (value === undefined) await send({ id, result: {} });
    else if (method === "invoke") await send({ id, result: { output: value } });
    else await send({ id, result: { message: { role: "assistant", content: String(value) } } });
  } catch (error) {
    await send({
      id,
      error: { code: error.code ?? -32603, message: error.message.slice(0, 4096) },
    });
  }
  cancelled.delete(id);
}

async function stream(id, script) {
  for (const chunk of script.chunks ?? [script.halves]) {
    await send({ method: "chunk", params: { id, chunk } });
    if (script.print !== undefined) console.error(script.print);
  }
  if (script.fail !== undefined) throw new Error(script.fail);
  if (script.wait) await untilCancelled(id);
}

async function say(id, { say, outcome }, events) {
  for (const word of say) {
    if (typeof word === "string") await send({ method: "chunk", params: { id, chunk: word } });
    else if (events) await send({ method: "event", params: { id, event: word } });
  }
  await send({ id, result: events ? outcome : {} });
}

async function follow(id, script) {
  if ("echo" in script) return script.echo;
  if ("fail" in script) throw new Error(script.fail);
  if ("refuse" in script) throw new Failure(-32602, script.refuse);
  if ("wait" in script) return await untilCancelled(id);
  if ("meet" in script) return await meet(script.meet);
  if ("text" in script) return "x".repeat(script.text);
  if ("nest" in script) return nested(script.nest);
  if ("half" in script) return "\ud83d".toWellFormed?.() ?? "\ufffd";
  if ("nan" in script) return NaN;
  if ("print" in script) {
    console.error("%s", script.print);
    return null;
  }
  if ("spawn" in script) {
    spawnSync("sh", ["-c", script.spawn], { stdio: ["ignore", 2, 2] });
    return null;
  }
  throw new Failure(-32602, "no instruction");
}

function untilCancelled(id) {
  return new Promise((_, reject) => {
    cancelled.set(id, () => reject(new Failure(-32800, "cancelled")));
  });
}

async function meet(number) {
  const together = new Promise((resolve) => met.push(resolve));
  if (met.length === number) {
    for (const resolve of met) resolve();
    met = [];
  }
  await together;
  return number;
}

function nested(depth) {
  if (depth > 500) throw new Failure(-32603, "too deep");
  return JSON.parse("[".repeat(depth) + "]".repeat(depth));
}

await send({
  method: "ready",
  params: { protocol: 1, handlers: ["invoke", "chat"], concurrency: 8 },
});
let partial = [];
for await (const data of process.stdin) {
  let rest = data;
  for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
    const message = JSON.parse(Buffer.concat([...partial, rest.subarray(0, end)]).toString());
    partial = [];
    rest = rest.subarray(end + 1);
    if (message.id !== undefined) serve(message);
    else if (message.method === "cancel") cancelled.get(message.params.id)?.();
  }
  partial.push(rest);
}
