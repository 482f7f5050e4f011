// Works until it is done, or until nobody waits for it any more.
//
//     gateway --agent patient="agent-worker worker/examples/cancellation.ts"
//
// Ask it with `curl --max-time 1` and look at the log: a client that goes away, or a clock of the
// gateway that runs out, aborts `ctx.signal`.

import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "agent-gateway-worker";

const STEP = 100; // milliseconds of work between two looks at the signal

// What is printed is log: the wire is out of its reach.
export const agent = new Agent("patient", {
  description: "Takes its time, and stops when it is told to.",
});

// Whatever waits, waits with the signal: fetch, timers, the clients of models.
agent.chat(async (messages, { signal }) => {
  console.log("thinking");
  try {
    await sleep(3_600_000, undefined, { signal });
  } finally {
    console.log("stopped thinking");
  }
  return `After an hour's thought about ${messages.length} messages: yes.`;
});

// Whatever computes must let the event loop have a turn, or it would never hear of the cancel.
agent.invoke(async (seconds: number, { signal }) => {
  console.log("working");
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    if (signal.aborted) {
      console.log("stopped working");
      return "nobody reads this";
    }
    await sleep(STEP);
  }
  return `worked for ${seconds} seconds`;
});
