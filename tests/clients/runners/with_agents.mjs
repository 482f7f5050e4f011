/** @openai/agents. */

import { Agent, AgentsError, OpenAIProvider, Runner, setTracingDisabled, tool } from "@openai/agents";
import { APIError } from "openai";

import { MAX_STEPS, PICTURE, serve, TOOL } from "./runner.mjs";

setTracingDisabled(true); // it would send what it saw to OpenAI

function provider({ api, key }) {
  const baseURL = `${process.argv[2]}/v1`;
  return new OpenAIProvider({ baseURL, apiKey: key, useResponses: api === "responses" });
}

async function ask(order, reply) {
  const weather = tool({
    ...TOOL,
    strict: true,
    execute: (given) => reply.call(TOOL.name, given),
  });
  const agent = new Agent({
    name: "Asker",
    model: order.model,
    tools: order.tools ? [weather] : [],
  });
  const content = [{ type: "input_text", text: order.text }];
  if (order.image) content.push({ type: "input_image", image: PICTURE });
  const runner = new Runner({ modelProvider: provider(order) });
  const leaving = new AbortController();
  const result = await runner.run(agent, [{ role: "user", content }], {
    stream: order.do !== "answer",
    maxTurns: MAX_STEPS,
    signal: leaving.signal,
  });
  if (order.do === "answer") {
    reply.say(result.finalOutput);
  } else {
    for await (const event of result) {
      if (event.type !== "raw_model_stream_event") continue;
      if (event.data.type === "output_text_delta") reply.say(event.data.delta);
      if (order.do === "leave" && reply.text) leaving.abort();
    }
    if (order.do === "leave") return;
    await result.completed;
  }
  for (const response of result.rawResponses) {
    reply.spent(response.usage.inputTokens, response.usage.outputTokens);
  }
  for (const item of result.newItems) {
    if (item.type !== "reasoning_item") continue;
    const { content, rawContent } = item.rawItem;
    reply.reasoning += [...content, ...(rawContent ?? [])].map((part) => part.text).join("");
  }
}

await serve(["@openai/agents"], async (order, reply) => {
  try {
    await ask(order, reply);
  } catch (error) {
    if (!(error instanceof APIError || error instanceof AgentsError)) throw error;
    reply.caught(error);
  }
});
