/** The clients of five protocols, given whole streams: a line of JSON for each on stdin, with its
 * `protocol` and the `stream`, and one on stdout with what the client has learned: the text, with
 * the questions after it, the thoughts, and the calls that it is to make; or the `error` that the
 * client has raised. */

import readline from "node:readline";

import { HttpAgent } from "@ag-ui/client";
import Anthropic from "@anthropic-ai/sdk";
import { DefaultChatTransport, getToolName, isToolUIPart, readUIMessageStream } from "ai";
import OpenAI from "openai";

const NOWHERE = "http://nowhere.invalid";
const MESSAGES = [{ role: "user", content: "hi" }];

const settings = (stream) => ({
  apiKey: "unused",
  baseURL: NOWHERE,
  maxRetries: 0,
  fetch: answer(stream),
});

function answer(stream) {
  const headers = { "content-type": "text/event-stream" };
  return async () => new Response(stream, { headers });
}

const joined = (things, member) => things.map((each) => each[member] ?? "").join("");

const withQuestions = (text, asked) => [text, ...asked].filter(Boolean).join("\n\n");

async function completion(stream) {
  const client = new OpenAI(settings(stream));
  const chat = client.chat.completions.stream({ model: "bot", messages: MESSAGES });
  let thoughts = "";
  chat.on("chunk", (chunk) => {
    thoughts += chunk.choices[0]?.delta.reasoning_content ?? "";
  });
  const { message } = (await chat.finalChatCompletion()).choices[0];
  const calls = (message.tool_calls ?? []).map((call) => [
    call.id,
    call.function.name,
    JSON.parse(call.function.arguments),
  ]);
  return [message.content ?? "", thoughts, calls];
}

async function response(stream) {
  const client = new OpenAI(settings(stream));
  const { output } = await client.responses.stream({ model: "bot", input: "hi" }).finalResponse();
  const of = (kind) => output.filter((item) => item.type === kind);
  return [
    of("message")
      .map((item) => joined(item.content, "text"))
      .join(""),
    of("reasoning")
      .map((item) => joined(item.summary, "text"))
      .join(""),
    of("function_call").map((item) => [item.call_id, item.name, JSON.parse(item.arguments)]),
  ];
}

async function message(stream) {
  const client = new Anthropic(settings(stream));
  const asked = { model: "bot", max_tokens: 9, messages: MESSAGES };
  const { content } = await client.messages.stream(asked).finalMessage();
  const calls = content.filter((block) => block.type === "tool_use");
  return [
    joined(content, "text"),
    joined(content, "thinking"),
    calls.map((block) => [block.id, block.name, block.input]),
  ];
}

async function run(stream) {
  const agent = new HttpAgent({
    url: NOWHERE,
    initialMessages: [{ id: "m1", role: "user", content: "hi" }],
    threadId: "t",
    fetch: answer(stream),
  });
  const told = { pending: [], asked: [], failed: false };
  await agent.runAgent(
    { runId: "r" },
    {
      onRunErrorEvent: () => {
        told.failed = true;
      },
      onRunFinishedEvent: ({ event, pendingToolCallIds }) => {
        told.pending = pendingToolCallIds ?? [];
        told.asked = (event.outcome.interrupts ?? []).map((each) => each.message);
      },
    },
  );
  if (told.failed) throw new Error("RUN_ERROR");
  const said = (role) =>
    joined(
      agent.messages.filter((each) => each.role === role),
      "content",
    );
  const calls = agent.messages.flatMap((each) => each.toolCalls ?? []);
  const made = calls.filter((call) => told.pending.includes(call.id));
  return [
    withQuestions(said("assistant"), told.asked),
    said("reasoning"),
    made.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]),
  ];
}

async function page(stream) {
  const transport = new DefaultChatTransport({ api: NOWHERE, fetch: answer(stream) });
  const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: "hi" }] }];
  const asked = { trigger: "submit-message", chatId: "c", messages };
  let last = { parts: [] };
  const reading = { stream: await transport.sendMessages(asked), terminateOnError: true };
  for await (const each of readUIMessageStream(reading)) last = each;
  const of = (kind) => last.parts.filter((part) => part.type === kind);
  const made = last.parts.filter((part) => isToolUIPart(part) && !part.providerExecuted);
  return [
    withQuestions(
      joined(of("text"), "text"),
      of("data-ask").map((part) => part.data.message),
    ),
    joined(of("reasoning"), "text"),
    made.map((part) => [part.toolCallId, getToolName(part), part.input]),
  ];
}

const READERS = {
  "chat completions": completion,
  responses: response,
  messages: message,
  "ag-ui": run,
  ui: page,
};

console.warn = () => {};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { protocol, stream } = JSON.parse(line);
  let told = null;
  try {
    told = await READERS[protocol](stream);
  } catch (error) {
    told = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
