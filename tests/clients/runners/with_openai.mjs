/** The openai package for Node. */

import OpenAI, { APIError } from "openai";

import { MAX_STEPS, PICTURE, SECONDS, serve, TOOL } from "./runner.mjs";

const gateway = { baseURL: `${process.argv[2]}/v1`, timeout: SECONDS * 1000 };
let client;

async function chat(order, reply) {
  const content = order.image
    ? [
        { type: "text", text: order.text },
        { type: "image_url", image_url: { url: PICTURE } },
      ]
    : order.text;
  const messages = [{ role: "user", content }];
  const options = { model: order.model, messages };
  if (order.tools) options.tools = [{ type: "function", function: TOOL }];
  for (let step = 0; step < MAX_STEPS; step++) {
    let completion;
    if (order.do === "leave") return leaveChat(options, reply);
    if (order.do === "answer") {
      completion = await client.chat.completions.create(options);
      reply.say(completion.choices[0].message.content);
      reply.reasoning += completion.choices[0].message.reasoning_content ?? "";
    } else {
      completion = await streamChat(options, reply);
    }
    const [choice] = completion.choices;
    reply.finish = choice.finish_reason;
    reply.spent(completion.usage?.prompt_tokens, completion.usage?.completion_tokens);
    if (!choice.message.tool_calls?.length) return;
    messages.push(choice.message);
    for (const call of choice.message.tool_calls) {
      const content = reply.call(call.function.name, call.function.arguments);
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
  }
}

/** Through the client's own accumulator, which is strict about what comes. */
async function streamChat(options, reply) {
  const stream = client.chat.completions.stream({
    ...options,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) {
    reply.say(chunk.choices[0]?.delta.content);
    reply.reasoning += chunk.choices[0]?.delta.reasoning_content ?? "";
  }
  return stream.finalChatCompletion();
}

async function leaveChat(options, reply) {
  for await (const chunk of await client.chat.completions.create({ ...options, stream: true })) {
    reply.say(chunk.choices[0]?.delta.content);
    if (reply.text) break;
  }
}

async function responses(order, reply) {
  const content = order.image
    ? [
        { type: "input_text", text: order.text },
        { type: "input_image", image_url: PICTURE, detail: "auto" },
      ]
    : order.text;
  const input = [{ role: "user", content }];
  const options = { model: order.model, input, store: false };
  if (order.tools) options.tools = [{ type: "function", strict: true, ...TOOL }];
  for (let step = 0; step < MAX_STEPS; step++) {
    let response;
    if (order.do === "leave") return leaveResponses(options, reply);
    if (order.do === "answer") {
      response = await client.responses.create(options);
      reply.say(response.output_text);
    } else {
      response = await streamResponses(options, reply);
    }
    reply.finish = response.status;
    reply.spent(response.usage?.input_tokens, response.usage?.output_tokens);
    const calls = response.output.filter((item) => item.type === "function_call");
    for (const item of response.output) {
      if (item.type === "reasoning")
        reply.reasoning += item.summary.map((part) => part.text).join("");
    }
    if (!calls.length) return;
    for (const call of calls) {
      const { parsed_arguments, ...item } = call;
      input.push(item);
      const output = reply.call(call.name, call.arguments);
      input.push({ type: "function_call_output", call_id: call.call_id, output });
    }
  }
}

/** Through the client's own accumulator, which is strict about what comes. */
async function streamResponses(options, reply) {
  const stream = client.responses.stream(options);
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") reply.say(event.delta);
    if (event.type === "response.failed") {
      // This client hands out a failed response as an event, and raises nothing.
      reply.fail(event.type, event.response.error.message);
    }
  }
  return stream.finalResponse();
}

async function leaveResponses(options, reply) {
  for await (const event of await client.responses.create({ ...options, stream: true })) {
    if (event.type === "response.output_text.delta") {
      reply.say(event.delta);
      break;
    }
  }
}

const ask = { chat, responses };
await serve(["openai"], async (order, reply) => {
  client = new OpenAI({ ...gateway, apiKey: order.key });
  try {
    await ask[order.api](order, reply);
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    reply.caught(error);
  }
});
