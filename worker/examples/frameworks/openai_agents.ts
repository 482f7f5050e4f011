// Serves an agent of the OpenAI Agents SDK: the text stream of its run is returned as it is.
//
//     npm install @openai/agents zod
//     gateway --agent poet="agent-worker openai_agents.ts"
//
// The model is a fake that needs no key: leave `model` out, and the agent asks OpenAI's.

import type { Model, ModelRequest, ModelResponse, StreamEvent } from "@openai/agents";
import * as openai from "@openai/agents";
import { Agent } from "agent-gateway-worker";
import { words } from "./fake_model.ts";

class FakeModel implements Model {
  async getResponse(request: ModelRequest): Promise<ModelResponse> {
    let text = "";
    for await (const word of words(JSON.stringify(request.input), request.signal)) text += word;
    return { usage: new openai.Usage(), output: [message(text)] };
  }

  async *getStreamedResponse(request: ModelRequest): AsyncIterable<StreamEvent> {
    yield { type: "response_started" };
    let text = "";
    for await (const delta of words(JSON.stringify(request.input), request.signal)) {
      text += delta;
      yield { type: "output_text_delta", delta };
    }
    const usage = { inputTokens: 1, outputTokens: 1, totalTokens: 2 };
    yield { type: "response_done", response: { id: "1", usage, output: [message(text)] } };
  }
}

function message(text: string) {
  const content = [{ type: "output_text" as const, text }];
  return {
    type: "message" as const,
    role: "assistant" as const,
    status: "completed" as const,
    content,
  };
}

openai.setTracingDisabled(true);
const poet = new openai.Agent({
  name: "poet",
  instructions: "Answer in verse.",
  model: new FakeModel(),
});

export const agent = new Agent("poet", { concurrency: 50 });

agent.chat(async (messages, ctx) => {
  const input = messages.map(({ role, content }) => ({ role, content }) as openai.AgentInputItem);
  const run = await openai.run(poet, input, { stream: true, signal: ctx.signal });
  return run.toTextStream();
});
