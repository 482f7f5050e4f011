// Answers with what it was asked.
//
//     gateway --agent echo="agent-worker worker/examples/echo.ts"
//
// `echo.mjs` is the same agent without the SDK.

import { Agent, InvalidInput } from "agent-gateway-worker";

export const agent = new Agent("echo", { description: "Answers with what it was asked." });

agent.invoke((input) => input);

agent.chat((messages) => {
  const said = messages.findLast((message) => message.role === "user");
  if (said === undefined) throw new InvalidInput("there is no message of the user's to repeat");
  return { role: "assistant", content: said.content ?? null };
});
