/** What pages do that others do not: approve calls, and come back for their streams.
 *
 *     node ui_pages.mjs URL KEY OTHER_KEY
 *
 * Prints one object of JSON: what each page had in the end, by name.
 */

import { Chat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";

const [url, key, otherKey] = process.argv.slice(2);
const found = {};

function page(options = {}, { as = key, body = {} } = {}) {
  const runs = [];
  const chat = new Chat({
    ...options,
    transport: new DefaultChatTransport({
      api: `${url}/ui/told`,
      headers: { authorization: `Bearer ${as}` },
      body,
      fetch: async (...given) => {
        const response = await fetch(...given);
        runs.push([response.status, response.headers.get("x-run-id")]);
        return response;
      },
    }),
  });
  return { chat, runs };
}

const textOf = (message) =>
  message.parts
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("");

/** Wait until the last message has this text. */
function shows(chat, text) {
  return new Promise((resolve) => {
    const look = () => chat.lastMessage && textOf(chat.lastMessage) === text && resolve();
    chat["~registerMessagesCallback"](look);
    look();
  });
}

// A call of the agent's own is allowed, or is not.
for (const approved of [true, false]) {
  const { chat } = page({
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  await chat.sendMessage({ text: "ask-leave" });
  const asked = chat.lastMessage.parts.at(-1);
  await chat.addToolApprovalResponse({ id: asked.approval.id, approved, reason: "because" });
  await shows(chat, approved ? "It is gone." : 'You said {"approved": false, "reason": "because"}.');
  while (chat.status !== "ready") await new Promise(setImmediate);
  const calls = chat.lastMessage.parts.filter((part) => part.type === "dynamic-tool");
  found[approved ? "allowed" : "denied"] = {
    asked: [asked.type, asked.toolName, asked.state, asked.approval.requestReason],
    calls: calls.map((part) => [part.state, part.output ?? null]),
    roles: chat.messages.map(({ role }) => role),
  };
}

// A tool of the page's fails.
{
  const tools = { weather: { inputSchema: { type: "object" } } };
  const { chat } = page(
    {
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({ toolCall: { toolCallId } }) => {
        const failed = { state: "output-error", errorText: "no thermometer" };
        chat.addToolOutput({ tool: "weather", toolCallId, ...failed });
      },
    },
    { body: { tools } },
  );
  await chat.sendMessage({ text: "weather" });
  await shows(chat, "It is no thermometer.");
  found.failedTool = { roles: chat.messages.map(({ role }) => role) };
}

// The answer is said again.
{
  const { chat } = page();
  await chat.sendMessage({ text: "hello" });
  const first = chat.lastMessage.id;
  await chat.regenerate();
  found.regenerated = {
    texts: chat.messages.map(textOf),
    other: chat.lastMessage.id !== first,
  };
}

// A page is closed while its answer goes on, and opened again.
{
  const id = `chat é % ${Math.random()}`;
  const first = page({ id }, { body: { resumable: true } });
  const sending = first.chat.sendMessage({ text: "hold" });
  await shows(first.chat, "so far, so good");
  await first.chat.stop();
  await sending;
  const [[, run]] = first.runs;

  const stranger = page({ id }, { as: otherKey });
  await stranger.chat.resumeStream();

  const again = page({ id, messages: first.chat.messages.slice(0, 1) });
  const resuming = again.chat.resumeStream();
  await shows(again.chat, "so far, so good");
  const status = again.chat.status;
  const authorization = `Bearer ${key}`;
  await fetch(`${url}/runs/${run}/cancel`, { method: "POST", headers: { authorization } });
  await resuming;

  const late = page({ id, messages: again.chat.messages });
  await late.chat.resumeStream();
  const nobody = page({ id: "nobody's" });
  await nobody.chat.resumeStream();
  found.resumed = {
    stranger: [stranger.runs[0][0], stranger.chat.messages.length],
    again: [again.runs[0][0], again.runs[0][1] === run, status, again.chat.status],
    texts: again.chat.messages.map(textOf),
    same: again.chat.lastMessage.id === first.chat.lastMessage.id,
    late: [late.runs[0][0], late.chat.status],
    nobody: [nobody.runs[0][0], nobody.chat.status],
  };
}

// A page that is left, and whose agent need not go on.
{
  const { chat, runs } = page();
  const sending = chat.sendMessage({ text: "hold left-by-its-page" });
  await shows(chat, "so far, so good");
  await chat.stop();
  await sending;
  found.left = { run: runs[0][1] };
}

process.stdout.write(JSON.stringify(found));
process.exit();
