/** Clients of models for Node; see services_clients.py. */

const MESSAGES = [{ role: "user", content: "hello" }];

async function* openai() {
  const { default: OpenAI } = await import("openai");
  const asked = { model: "m", messages: MESSAGES, stream: true };
  for await (const chunk of await new OpenAI().chat.completions.create(asked)) {
    yield chunk.choices[0].delta.content;
  }
}

async function* anthropic() {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const asked = { model: "m", max_tokens: 9, messages: MESSAGES, stream: true };
  for await (const event of await new Anthropic().messages.create(asked)) {
    if (event.type === "content_block_delta") yield event.delta.text;
  }
}

async function* ai() {
  const { openai } = await import("@ai-sdk/openai");
  const { streamText } = await import("ai");
  const leaving = new AbortController();
  const asked = { model: openai.chat("m"), messages: MESSAGES, abortSignal: leaving.signal };
  try {
    yield* streamText(asked).textStream;
  } finally {
    leaving.abort();
  }
}

const client = { openai, anthropic, ai }[process.argv[2]];
for await (const text of client()) if (text) console.log(text);
for await (const text of client()) {
  if (!text) continue;
  console.log("begun:", text);
  break;
}
console.log("left");
