/** What `told.py` does, as the author of an agent writes it with the SDK for TypeScript. */

import { Agent, InvalidInput } from "agent-gateway-worker";

export const agent = new Agent("told", {
  concurrency: 64,
  modes: ["text", "image"],
  tools: true,
  asks: true,
});

const CITY = { city: "Oslo" };

const DOES = {
  async *hello() {
    yield* ["Hello, ", "Wörld", "!"];
  },
  async *"stop-early"() {
    yield "It was a dark and";
    yield { type: "finish", reason: "length" };
  },
  async *weather(context) {
    if (!context.tools.some((tool) => tool.name === "weather"))
      throw new InvalidInput("the caller has no tool named weather");
    yield { type: "tool_call", call: "c1", name: "weather", arguments: CITY };
  },
  async *"own-weather"() {
    yield { type: "tool_call", call: "w1", name: "weather", arguments: CITY };
    yield { type: "tool_result", call: "w1", content: "12 °C" };
    yield "It is 12 °C there.";
  },
  async *search() {
    yield { type: "status", text: "Searching" };
    yield "Let me see. ";
    yield { type: "tool_call", call: "s1", name: "search", arguments: { query: "cats" } };
    yield { type: "tool_result", call: "s1", content: "3 pages" };
    yield "Found 3 pages.";
  },
  async *think() {
    yield { type: "reasoning", text: "First this, " };
    yield { type: "reasoning", text: "then that." };
    yield "Done.";
  },
  async *ask() {
    yield "One thing. ";
    yield { type: "ask", id: "a1", message: "Which day?" };
  },
  // biome-ignore lint/correctness/useYield: it fails before the first word
  async *refuse() {
    throw new InvalidInput("no such city");
  },
  async *"fail-later"() {
    yield "so far";
    throw new Error("no luck");
  },
};

agent.chat(async function* (messages, context) {
  const last = messages.at(-1);
  const said = messages.findLast((message) => message.role === "user").content;
  if (last.role === "tool") yield `It is ${last.content}.`;
  else yield* DOES[said.split(" ")[0]](context);
  yield { type: "usage", input_tokens: 7, output_tokens: 3 };
});
