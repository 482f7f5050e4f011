/** AG-UI's client, given whole responses: a line of JSON for each on stdin, with the `messages` and
 * the answers (`resume`) of the request and the `stream`, and one on stdout with what the client
 * made of it. The argument is the package. */

import readline from "node:readline";

const { HttpAgent } = await import(process.argv[2]);

const warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));

async function read({ messages, resume, stream }) {
  const headers = { "content-type": "text/event-stream" };
  const agent = new HttpAgent({
    url: "http://nowhere.invalid/",
    threadId: "t",
    initialMessages: messages,
    fetch: async () => new Response(stream, { headers }),
  });
  const told = { error: null, failed: null, outcome: null, pending: [] };
  try {
    await agent.runAgent(
      { runId: "r", resume },
      {
        onRunErrorEvent: ({ event }) => {
          told.failed = event.code;
        },
        onRunFinishedEvent: ({ event, pendingToolCallIds }) => {
          told.outcome = event.outcome.type;
          told.pending = pendingToolCallIds ?? [];
        },
      },
    );
  } catch (error) {
    told.error = String(error?.stack ?? error);
  }
  return { ...told, warnings: warnings.splice(0), messages: agent.messages };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await read(JSON.parse(line)))}\n`);
}
