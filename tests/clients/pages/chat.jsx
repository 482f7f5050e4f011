/** A page with a chat, as its author writes it. Bundled and opened by `test_ui_page.py`. */

import { useChat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  isToolUIPart,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";
import { useState } from "react";
import { createRoot } from "react-dom/client";

const { api, key } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

const headers = { Authorization: `Bearer ${key}` };
let run; // of the stream that is read

const transport = new DefaultChatTransport({
  api,
  headers,
  fetch: async (...request) => {
    const response = await fetch(...request);
    run = response.headers.get("x-run-id");
    return response;
  },
  body: {
    resumable: true,
    tools: {
      weather: {
        description: "The weather in a city.",
        inputSchema: { type: "object", properties: { city: { type: "string" } } },
      },
    },
  },
});

function App() {
  const [text, setText] = useState("");
  const [status, setStatus] = useState("");
  const chat = useChat({
    id: "the-chat-of-this-page",
    transport,
    resume: true,
    sendAutomaticallyWhen: (options) =>
      lastAssistantMessageIsCompleteWithToolCalls(options) ||
      lastAssistantMessageIsCompleteWithApprovalResponses(options),
    onToolCall: ({ toolCall: { toolName, toolCallId } }) => {
      chat.addToolOutput({ tool: toolName, toolCallId, output: "12 °C" });
    },
    onData: (part) => part.type === "data-status" && setStatus(part.data.text),
  });

  function send(event) {
    event.preventDefault();
    chat.sendMessage({ text });
    setText("");
  }

  /** What outlives its page has to be told to end. */
  function stop() {
    return fetch(new URL(`/runs/${run}/cancel`, api), { method: "POST", headers });
  }

  function answer(ask, day) {
    const data = { id: ask.id, payload: { day } };
    chat.sendMessage({ parts: [{ type: "data-answer", data }] });
  }

  function show(part, index) {
    if (part.type === "text") return <span key={index}>{part.text}</span>;
    if (part.type === "reasoning") return <i key={index}>{part.text}</i>;
    if (part.type === "file") return <a key={index} href={part.url} download />;
    if (part.type === "data-ask")
      return (
        <button key={index} type="button" className="answer" onClick={() => answer(part.data, "Tuesday")}>
          {part.data.message}
        </button>
      );
    if (isToolUIPart(part) && part.state === "approval-requested")
      return (
        <button
          key={index}
          type="button"
          className="allow"
          onClick={() => chat.addToolApprovalResponse({ id: part.approval.id, approved: true })}
        >
          {part.approval.requestReason}
        </button>
      );
    return null;
  }

  return (
    <main data-status={chat.status}>
      {chat.messages.map((message) => (
        <p key={message.id} className={message.role}>
          {message.parts.map(show)}
        </p>
      ))}
      <output>{status}</output>
      {chat.error && <p role="alert">{chat.error.message}</p>}
      <form onSubmit={send}>
        <input autoFocus value={text} onChange={(event) => setText(event.target.value)} />
      </form>
      <button type="button" id="stop" onClick={stop}>
        Stop
      </button>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<App />);
