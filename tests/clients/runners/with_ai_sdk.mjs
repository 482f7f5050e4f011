/** The AI SDK, with a provider for OpenAI, for what is compatible with it, or for Anthropic. */

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";

import { MAX_STEPS, PICTURE, serve, TOOL } from "./runner.mjs";

const baseURL = `${process.argv[2]}/v1`;
const models = {
  chat: ({ key, model }) => createOpenAI({ baseURL, apiKey: key }).chat(model),
  responses: ({ key, model }) => createOpenAI({ baseURL, apiKey: key }).responses(model),
  compatible: ({ key, model }) =>
    createOpenAICompatible({ name: "gateway", includeUsage: true, baseURL, apiKey: key }).chatModel(
      model,
    ),
  messages: ({ key, model }) => createAnthropic({ baseURL, apiKey: key })(model),
};

function options(order, reply) {
  const content = [{ type: "text", text: order.text }];
  if (order.image) content.push({ type: "file", mediaType: "image/png", data: PICTURE });
  const weather = tool({
    description: TOOL.description,
    inputSchema: jsonSchema(TOOL.parameters),
    execute: (given) => reply.call(TOOL.name, given),
  });
  return {
    model: models[order.api](order),
    messages: [{ role: "user", content }],
    tools: order.tools ? { weather } : {},
    stopWhen: isStepCount(MAX_STEPS),
    maxRetries: 0, // this SDK sends a request again after a 501, whatever the response says
  };
}

async function answer(order, reply) {
  const result = await generateText(options(order, reply));
  reply.say(result.text);
  reply.reasoning = result.reasoningText ?? "";
  take(result.usage, result.finishReason, reply);
}

async function stream(order, reply) {
  const leaving = new AbortController();
  const result = streamText({
    ...options(order, reply),
    abortSignal: leaving.signal,
    onError: () => {}, // it is a part of the stream, too
  });
  for await (const part of result.stream) {
    if (part.type === "text-delta") reply.say(part.text);
    if (part.type === "reasoning-delta") reply.reasoning += part.text;
    if (part.type === "tool-error") throw part.error;
    if (part.type === "error") return caught(part.error, reply);
    if (part.type === "finish-step") take(part.usage, part.finishReason, reply);
    if (order.do === "leave" && reply.text) leaving.abort();
  }
}

function take(usage, finish, reply) {
  reply.spent(usage.inputTokens, usage.outputTokens);
  reply.finish = finish;
}

/** An error in the stream may be any value. */
function caught(error, reply) {
  if (error instanceof Error) reply.caught(error);
  else reply.fail(typeof error, error?.message ?? JSON.stringify(error));
}

const packages = ["@ai-sdk/anthropic", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "ai"];
await serve(packages, async (order, reply) => {
  try {
    await { answer, stream, leave: stream }[order.do](order, reply);
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    caught(error, reply);
  }
});
