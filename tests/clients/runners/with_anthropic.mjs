/** The anthropic package for Node. */

import Anthropic, { AnthropicError } from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

import { MAX_STEPS, PICTURE, SECONDS, serve, TOOL } from "./runner.mjs";

const baseURL = process.argv[2];
const clients = {};

/** The client with a key. */
function client({ key }) {
  clients[key] ??= new Anthropic({ baseURL, apiKey: key, timeout: SECONDS * 1000 });
  return clients[key];
}

function content(order) {
  if (!order.image) return order.text;
  const [media_type, data] = PICTURE.slice("data:".length).split(";base64,");
  const source = { type: "base64", media_type, data };
  return [
    { type: "image", source },
    { type: "text", text: order.text },
  ];
}

async function ask(order, reply) {
  const messages = [{ role: "user", content: content(order) }];
  const options = { model: order.model, max_tokens: 1000, messages };
  if (order.do === "leave") return leave(order, options, reply);
  const { name, description, parameters } = TOOL;
  const tool = { name, description, inputSchema: parameters };
  if (order.do === "answer" && order.tools) return runTools(order, options, tool, reply);
  if (order.tools) options.tools = [{ name, description, input_schema: parameters }];
  for (let step = 0; step < MAX_STEPS; step++) {
    const message = await (order.do === "answer" ? answer : stream)(order, options, reply);
    take(message, reply);
    const uses = message.content.filter((block) => block.type === "tool_use");
    if (!uses.length) return;
    const results = uses.map(({ id, name, input }) => {
      return { type: "tool_result", tool_use_id: id, content: reply.call(name, input) };
    });
    messages.push({ role: "assistant", content: message.content });
    messages.push({ role: "user", content: results });
  }
}

function take(message, reply) {
  reply.finish = message.stop_reason;
  reply.spent(message.usage.input_tokens, message.usage.output_tokens);
}

async function answer(order, options, reply) {
  const message = await client(order).messages.create(options);
  say(message, reply);
  return message;
}

function say(message, reply) {
  for (const block of message.content) {
    if (block.type === "text") reply.say(block.text);
    if (block.type === "thinking") reply.reasoning += block.thinking;
  }
}

/** Through the client's own runner of tools. */
async function runTools(order, options, tool, reply) {
  const tools = [betaTool({ ...tool, run: (given) => reply.call(tool.name, given) })];
  const asked = { ...options, tools, max_iterations: MAX_STEPS };
  for await (const message of client(order).beta.messages.toolRunner(asked)) {
    say(message, reply);
    take(message, reply);
  }
}

/** Through the client's own accumulator, which is strict about what comes. */
async function stream(order, options, reply) {
  const events = client(order).messages.stream(options);
  for await (const event of events) {
    if (event.type !== "content_block_delta") continue;
    if (event.delta.type === "text_delta") reply.say(event.delta.text);
    if (event.delta.type === "thinking_delta") reply.reasoning += event.delta.thinking;
  }
  return events.finalMessage();
}

async function leave(order, options, reply) {
  for await (const event of await client(order).messages.create({ ...options, stream: true })) {
    if (event.type === "content_block_delta") reply.say(event.delta.text);
    if (reply.text) break;
  }
}

await serve(["@anthropic-ai/sdk"], async (order, reply) => {
  try {
    await ask(order, reply);
  } catch (error) {
    if (!(error instanceof AnthropicError)) throw error;
    reply.caught(error);
  }
});
