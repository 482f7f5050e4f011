// Follows the script of protocol/README.md, with the SDK for TypeScript.
//
//     python -m protocol.conformance --script -- agent-worker tests/worker/agents/scripted_sdk.mjs

import { spawnSync } from "node:child_process";
import { Agent, InvalidInput } from "agent-gateway-worker";

export const agent = new Agent("scripted", { concurrency: 8 });

agent.invoke((script, ctx) => {
  if (typeof script !== "object" || script === null) throw new InvalidInput("no instruction");
  if (script.say) return say(script);
  return script.chunks || script.halves ? stream(script, ctx) : follow(script, ctx);
});

agent.chat(async (messages, ctx) => {
  const script = messages.at(-1).content;
  if (typeof script !== "object" || script === null) throw new InvalidInput("no instruction");
  if (script.say) return say(script);
  if (script.chunks || script.halves) return stream(script, ctx);
  const answer = await follow(script, ctx);
  return typeof answer === "number" ? String(answer) : answer;
});

async function follow(script, ctx) {
  if ("echo" in script) return script.echo;
  if ("fail" in script) throw new Error(script.fail);
  if ("refuse" in script) throw new InvalidInput(script.refuse);
  if ("wait" in script) return await untilCancelled(ctx);
  if ("meet" in script) return await meet(script.meet);
  if ("text" in script) return "x".repeat(script.text);
  if ("nest" in script) return JSON.parse("[".repeat(script.nest) + "]".repeat(script.nest));
  if ("half" in script) return "\ud83d";
  if ("nan" in script) return NaN;
  if ("print" in script) return console.log(script.print);
  if ("spawn" in script) return void spawnSync("sh", ["-c", script.spawn], { stdio: "inherit" });
  throw new InvalidInput("no instruction");
}

async function* stream(script, ctx) {
  for (const chunk of script.chunks ?? script.halves.split("")) {
    yield chunk;
    if (script.print !== undefined) process.stdout.write(script.print);
  }
  if (script.fail !== undefined) throw new Error(script.fail);
  if (script.wait) await untilCancelled(ctx);
}

async function* say({ say: words, outcome: { finish, usage, asks = [] } }) {
  yield* words;
  if (usage) yield { type: "usage", ...usage };
  if (["stop", "length", "refused"].includes(finish)) yield { type: "finish", reason: finish };
  for (const ask of asks) yield { type: "ask", ...ask };
}

function untilCancelled({ signal }) {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

let met = [];

async function meet(number) {
  const together = new Promise((resolve) => met.push(resolve));
  if (met.length === number) {
    for (const resolve of met) resolve();
    met = [];
  }
  await together;
  return number;
}
