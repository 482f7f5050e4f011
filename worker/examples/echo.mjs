// The echo agent in Node, without packages.
//
//     gateway --agent echo="node worker/examples/echo.mjs"
//
// node:readline also splits at U+2028, U+2029 and a lone carriage return, of which JSON may hold the
// first two as they are: so the lines are cut here, at newlines only.

import process from "node:process";

function send(message) {
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
}

function answer(method, params) {
  if (method === "invoke") return { result: { output: params.input } };
  if (method === "chat") {
    const said = params.messages.findLast((message) => message.role === "user");
    if (said === undefined) {
      return { error: { code: -32602, message: "there is no message of the user's to repeat" } };
    }
    return { result: { message: { role: "assistant", content: said.content ?? null } } };
  }
  return { error: { code: -32601, message: `no method ${method}` } };
}

send({
  method: "ready",
  params: {
    protocol: 1,
    handlers: ["invoke", "chat"],
    description: "Answers with what it was asked.",
  },
});

let partial = "";
process.stdin.setEncoding("utf8");
for await (const text of process.stdin) {
  const lines = (partial + text).split("\n");
  partial = lines.pop();
  for (const line of lines) {
    const { id, method, params } = JSON.parse(line);
    // Without an id it is a notification, `cancel`. Nothing here takes long enough to be cancelled.
    if (id !== undefined) send({ id, ...answer(method, params) });
  }
}
