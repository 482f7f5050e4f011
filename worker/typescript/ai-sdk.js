// The Vercel AI SDK: what `streamText` streams as words and events, and a client's tools and messages
// for it. The AI SDK is not imported: what is needed of it is given.

import { InvalidInput } from "./errors.js";

/** @type {Record<string, "stop" | "length" | "refused">} */
const FINISHES = { stop: "stop", length: "length", "content-filter": "refused" };

/**
 * @typedef {import("./index.js").Event} Event
 * @typedef {{type: string, [member: string]: any}} Part
 */

/**
 * The words and events of a run: of `fullStream`, or of the result that has one.
 *
 * @param {AsyncIterable<any> | {fullStream: AsyncIterable<any>}} run
 * @returns {AsyncGenerator<string | Event, void, undefined>}
 */
export async function* events(run) {
  let files = 0;
  for await (const part of "fullStream" in run ? run.fullStream : run) {
    if (part.type === "file") files++;
    yield* read(part, files);
  }
}

/** @param {Part} part @param {number} files so far @returns {Generator<string | Event>} */
function* read(part, files) {
  switch (part.type) {
    case "text-delta":
      if (part.text) yield part.text;
      break;
    case "reasoning-delta":
      if (part.text) yield { type: "reasoning", text: part.text };
      break;
    case "tool-call":
      yield toolCall(part);
      break;
    case "tool-result":
      if (!part.preliminary) {
        yield { type: "tool_result", call: part.toolCallId, content: part.output ?? null };
      }
      break;
    case "tool-error":
      yield toolError(part.toolCallId, part.error);
      break;
    case "tool-output-denied":
      yield toolError(part.toolCallId, "the call was denied");
      break;
    case "tool-approval-request":
      if (!part.isAutomatic) yield approval(part);
      break;
    case "file":
      yield file(part.file, files);
      break;
    case "finish":
      yield* finish(part);
      break;
    case "error":
      throw part.error;
    case "abort": // what was said until then would look like a whole answer
      throw new Error(`the run was aborted: ${part.reason ?? "no reason was given"}`);
  }
}

/**
 * The client's tools, for `streamText`'s `tools`: without `execute`, so that their calls end the run.
 *
 * @param {import("./index.js").ContextFields} context
 * @param {(schema: any) => any} jsonSchema that of the AI SDK
 */
export function clientTools({ tools }, jsonSchema) {
  const described = tools.map(({ name, description, parameters }) => {
    const inputSchema = jsonSchema({ type: "object", properties: {}, ...parameters });
    return [name, { description: description || undefined, inputSchema }];
  });
  return Object.fromEntries(described);
}

/**
 * The messages of a chat, for `streamText`'s `messages`. Throws InvalidInput for a part of a message's
 * content that is of no known type.
 *
 * @param {readonly import("./index.js").Message[]} messages
 * @returns {any[]}
 */
export function modelMessages(messages) {
  /** @type {Map<unknown, string>} */
  const names = new Map();
  return messages.map((message) => {
    const { role, content } = message;
    if (role === "tool") {
      const toolCallId = message.tool_call_id ?? "";
      const value = typeof content === "string" ? content : JSON.stringify(content ?? null);
      const output = { type: "text", value };
      const toolName = names.get(toolCallId) ?? "";
      return { role, content: [{ type: "tool-result", toolCallId, toolName, output }] };
    }
    if (role !== "assistant") return { role, content: promptOf(content) };
    const calls = /** @type {any[]} */ (message.tool_calls ?? []).map((call) => {
      names.set(call.id, call.function.name);
      const input = parsed(call.function.arguments);
      return { type: "tool-call", toolCallId: call.id, toolName: call.function.name, input };
    });
    const text = textOf(content);
    return { role, content: [...(text ? [{ type: "text", text }] : []), ...calls] };
  });
}

/**
 * The answers to questions about calls that need an approval, as the message that goes after the run's
 * own messages; undefined if there are none. An answer approves if its payload is true, or an object
 * whose `approved` is; any other denies, as does one that was cancelled.
 *
 * @param {import("./index.js").ContextFields} context
 */
export function approvals({ resume }) {
  const content = resume.map(({ id, status, payload }) => {
    const said = typeof payload === "object" ? /** @type {any} */ (payload)?.approved : payload;
    const approved = status === "resolved" && said === true;
    return { type: "tool-approval-response", approvalId: id, approved };
  });
  return content.length ? { role: "tool", content } : undefined;
}

/** @param {Part} part @returns {Event} */
function toolCall({ toolCallId, toolName, input }) {
  const event = { type: /** @type {const} */ ("tool_call"), call: toolCallId, name: toolName };
  const isObject = typeof input === "object" && input !== null && !Array.isArray(input);
  if (isObject) return { ...event, arguments: input };
  // As the model wrote it, which was no JSON.
  return { ...event, delta: typeof input === "string" ? input : JSON.stringify(input ?? {}) };
}

/** @param {string} call @param {unknown} error @returns {Event} */
function toolError(call, error) {
  const content = error instanceof Error ? error.message : String(error);
  return { type: "tool_result", call, content, is_error: true };
}

/** @param {Part} part @returns {Event} */
function approval({ approvalId, toolCall: { toolCallId, toolName, input } }) {
  return {
    type: "ask",
    id: approvalId,
    message: `May ${toolName} be called with ${JSON.stringify(input)}?`,
    reason: "approval",
    schema: { type: "boolean" },
    call: toolCallId,
  };
}

/** @param {{mediaType: string, base64: string}} file @param {number} number @returns {Event} */
function file({ mediaType, base64 }, number) {
  const extension = mediaType.split("/")[1]?.split("+")[0] ?? "bin";
  return { type: "file", name: `file-${number}.${extension}`, mime: mediaType, data: base64 };
}

/** @param {Part} part @returns {Generator<Event>} */
function* finish({ finishReason, totalUsage: usage }) {
  if (usage?.inputTokens !== undefined || usage?.outputTokens !== undefined) {
    yield {
      type: "usage",
      input_tokens: usage.inputTokens ?? 0,
      output_tokens: usage.outputTokens ?? 0,
      cached_input_tokens: usage.inputTokenDetails?.cacheReadTokens || undefined,
      reasoning_tokens: usage.outputTokenDetails?.reasoningTokens || undefined,
    };
  }
  const reason = FINISHES[finishReason];
  if (reason !== undefined) yield { type: "finish", reason };
}

/** @param {any} content */
function promptOf(content) {
  return Array.isArray(content) ? content.map(promptPart) : (content ?? "");
}

/** @param {any} part */
function promptPart(part) {
  switch (part?.type) {
    case "text":
      return { type: "text", text: part.text };
    case "image_url":
      return filePart(part.image_url.url, "image/*");
    case "input_audio":
      return {
        type: "file",
        data: part.input_audio.data,
        mediaType: `audio/${part.input_audio.format}`,
      };
    case "file":
      return {
        ...filePart(part.file.file_data, "application/octet-stream"),
        filename: part.file.filename,
      };
  }
  throw new InvalidInput(`messages: a part of type "${part?.type}" is none that is taken`);
}

/** @param {string} url @param {string} mediaType what it is, where the address does not tell */
function filePart(url, mediaType) {
  const [, type, data] = /^data:([^;,]+);base64,(.*)$/s.exec(url) ?? [];
  if (type) return { type: "file", data, mediaType: type };
  return { type: "file", data: new URL(url), mediaType };
}

/** @param {any} content */
function textOf(content) {
  if (!Array.isArray(content)) return content ?? "";
  return content.map((part) => part?.text ?? "").join("");
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return text;
  }
}
