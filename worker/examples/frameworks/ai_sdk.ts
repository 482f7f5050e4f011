// Serves an agent of the Vercel AI SDK: its words as they come, and the client's tools.
//
//     npm install ai @ai-sdk/provider
//     gateway --agent poet="agent-worker ai_sdk.ts"
//
// The model is a fake that needs no key: replace it by openai("…"), anthropic("…") or any other.

import type { LanguageModelV4StreamPart } from "@ai-sdk/provider";
import { Agent } from "agent-gateway-worker";
import { clientTools, events, modelMessages } from "agent-gateway-worker/ai-sdk";
import { jsonSchema, streamText } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { words } from "./fake_model.ts";

export const agent = new Agent("poet", { concurrency: 50, tools: true });

agent.chat((messages, ctx) => {
  const result = streamText({
    model,
    instructions: "Answer in verse.",
    messages: modelMessages(messages),
    allowSystemInMessages: true, // the caller may add to the instructions
    tools: clientTools(ctx, jsonSchema),
    abortSignal: ctx.signal, // a caller that leaves ends the model's work, too
    maxRetries: 0,
    onError: ({ error }) => console.error(error),
  });
  return events(result);
});

const model = new MockLanguageModelV4({
  doStream: async ({ prompt, abortSignal }) => ({
    stream: ReadableStream.from(parts(JSON.stringify(prompt.at(-1)?.content), abortSignal)),
  }),
});

async function* parts(
  text: string,
  signal?: AbortSignal,
): AsyncGenerator<LanguageModelV4StreamPart> {
  yield { type: "stream-start", warnings: [] };
  yield { type: "text-start", id: "1" };
  for await (const word of words(text, signal)) yield { type: "text-delta", id: "1", delta: word };
  yield { type: "text-end", id: "1" };
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 },
    outputTokens: { total: 3, text: 3, reasoning: 0 },
  };
  yield { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage };
}
