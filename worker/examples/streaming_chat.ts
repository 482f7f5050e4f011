// Speaks word by word, as language models do.
//
//     gateway --agent talker="agent-worker worker/examples/streaming_chat.ts"
//
// Whoever asks with `"stream": true` hears each word when it is said; anyone else gets them all at
// once. The handlers are the same either way.

import { setTimeout as sleep } from "node:timers/promises";
import { Agent, InvalidInput } from "agent-gateway-worker";

const PACE = 50; // milliseconds between words

export const agent = new Agent("talker", {
  description: "Speaks word by word.",
  concurrency: 100,
});

agent.chat(async function* (messages, ctx) {
  const said = messages.at(-1)?.content;
  if (typeof said !== "string") throw new InvalidInput("the last message is not plain text");
  yield `Hello, ${ctx.userId ?? "stranger"}. `;
  yield "You said: ";
  for (const word of said.split(/\s+/)) {
    await sleep(PACE, undefined, { signal: ctx.signal });
    yield `${word} `;
  }
});

agent.invoke(function* (word) {
  if (typeof word !== "string") throw new InvalidInput(`expected a word, got a ${typeof word}`);
  yield* word; // code point by code point
});
