/** The AI SDK for pages: its transport with `readUIMessageStream`, and the `Chat` of `useChat`. */

import { Chat } from "@ai-sdk/react";
import {
  APICallError,
  DefaultChatTransport,
  getToolName,
  isToolUIPart,
  lastAssistantMessageIsCompleteWithToolCalls,
  readUIMessageStream,
} from "ai";

import { MAX_STEPS, PICTURE, serve, TOOL } from "./runner.mjs";

/** Notes what only the stream has: its pieces, its end, and data that no message keeps. */
class Transport extends DefaultChatTransport {
  constructor(order, reply) {
    super({
      api: `${process.argv[2]}/ui/${order.model}`,
      headers: { authorization: `Bearer ${order.key}` },
      body: order.tools ? { tools: TOOLS } : {},
    });
    this.reply = reply;
  }

  processResponseStream(stream) {
    const note = (chunk) => this.note(chunk);
    return super.processResponseStream(stream).pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          note(chunk);
          controller.enqueue(chunk);
        },
      }),
    );
  }

  note(chunk) {
    const { reply } = this;
    if (chunk.type === "text-delta") reply.say(chunk.delta);
    if (chunk.type === "reasoning-delta") reply.reasoning += chunk.delta;
    if (chunk.type === "finish") reply.finish = chunk.finishReason;
    if (chunk.type === "data-status") reply.statuses.push(chunk.data.text);
    if (chunk.type === "data-state") reply.state = chunk.data;
    if (chunk.type === "data-state-patch") {
      for (const { path, value } of chunk.data) reply.state[path.slice(1)] = value;
    }
  }
}

const TOOLS = {
  [TOOL.name]: { description: TOOL.description, inputSchema: TOOL.parameters },
};

function userMessage(order) {
  const parts = [{ type: "text", text: order.text }];
  if (order.image) parts.push({ type: "file", mediaType: "image/png", url: PICTURE });
  return { id: "u1", role: "user", parts };
}

/** An answer to a question, as `gateway/front/ui/README.md` has it. */
function answerTo(question, payload) {
  return { type: "data-answer", data: { id: question.id, payload } };
}

const questionsIn = (message) => message.parts.filter((part) => part.type === "data-ask");

/** With nothing but the transport. */
async function transport(order, reply) {
  const messages = [userMessage(order)];
  for (let step = 0; step < MAX_STEPS; step++) {
    const last = messages.at(-1);
    const leaving = new AbortController();
    const stream = await new Transport(order, reply).sendMessages({
      chatId: order.text,
      messages,
      trigger: "submit-message",
      abortSignal: leaving.signal,
    });
    let message = last.role === "assistant" ? last : undefined;
    const raised = [];
    try {
      for await (message of readUIMessageStream({
        message,
        stream,
        onError: (error) => raised.push(error),
      })) {
        if (order.do === "leave" && reply.text) leaving.abort();
      }
    } catch (error) {
      if (order.do !== "leave" || error.name !== "AbortError") throw error;
    }
    if (order.do === "leave") return;
    if (raised.length) return reply.caught(raised[0]);
    if (last.role === "assistant") messages.pop();
    messages.push(message);
    if (!goOn(order, reply, messages)) return take(reply, messages);
  }
}

/** Run the tools that were called and answer the questions; whether there was anything to do. */
function goOn(order, reply, messages) {
  const message = messages.at(-1);
  const calls = message.parts.filter(
    (part) => isToolUIPart(part) && !part.providerExecuted && part.state === "input-available",
  );
  for (const part of calls) {
    part.output = reply.call(getToolName(part), part.input);
    part.state = "output-available";
  }
  const questions = order.answer ? questionsIn(message) : [];
  if (questions.length) {
    const parts = questions.map((question) => answerTo(question.data, order.answer));
    messages.push({ id: "u2", role: "user", parts });
  }
  return calls.length + questions.length > 0;
}

/** As a page does it. */
async function chat(order, reply) {
  let failed;
  const chat = new Chat({
    transport: new Transport(order, reply),
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall: ({ toolCall }) => {
      const output = reply.call(toolCall.toolName, toolCall.input);
      chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output });
    },
    onError: (error) => {
      failed = error;
    },
  });
  if (order.do === "leave") {
    chat["~registerMessagesCallback"](() => reply.text && chat.stop());
  }
  const { parts } = userMessage(order);
  await chat.sendMessage({ parts });
  if (order.do === "leave") return;
  if (failed) return reply.caught(failed);
  if (order.answer) {
    const questions = questionsIn(chat.lastMessage);
    await chat.sendMessage({
      parts: questions.map((question) => answerTo(question.data, order.answer)),
    });
  }
  if (failed) return reply.caught(failed);
  take(reply, chat.messages);
}

/** What the messages have in the end. */
function take(reply, messages) {
  for (const message of messages.filter(({ role }) => role === "assistant")) {
    const usage = message.metadata?.usage;
    if (usage) reply.spent(usage.inputTokens, usage.outputTokens);
    for (const part of message.parts) {
      if (part.type === "data-ask") reply.asks.push(part.data.message);
      if (part.type === "file") {
        const data = part.url.split(";base64,")[1];
        reply.files.push([part.providerMetadata.agent.filename, part.mediaType, data]);
      }
      if (isToolUIPart(part) && part.providerExecuted) {
        reply.own.push([getToolName(part), part.input, part.output ?? part.errorText]);
      }
    }
  }
}

const ask = { transport, chat };
await serve(["ai", "@ai-sdk/react"], async (order, reply) => {
  try {
    await ask[order.api](order, reply);
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    reply.caught(error);
  }
});
