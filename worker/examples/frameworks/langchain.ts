// Serves a chain of LangChain.js: what its `stream` gives is returned as it is.
//
//     npm install @langchain/core
//     gateway --agent poet="agent-worker langchain.ts"
//
// The model is a fake that needs no key: replace it by ChatOpenAI, ChatAnthropic or any other.

import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { SimpleChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatGenerationChunk } from "@langchain/core/outputs";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { Agent } from "agent-gateway-worker";
import { words } from "./fake_model.ts";

class FakeModel extends SimpleChatModel {
  _llmType() {
    return "fake";
  }

  async _call(messages: BaseMessage[], options: this["ParsedCallOptions"]) {
    let text = "";
    for await (const word of words(messages.at(-1)?.text ?? "", options.signal)) text += word;
    return text;
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    run?: CallbackManagerForLLMRun,
  ) {
    for await (const text of words(messages.at(-1)?.text ?? "", options.signal)) {
      yield new ChatGenerationChunk({ text, message: new AIMessageChunk(text) });
      await run?.handleLLMNewToken(text);
    }
  }
}

const chain = ChatPromptTemplate.fromMessages([
  ["system", "Answer in verse."],
  ["placeholder", "{messages}"],
])
  .pipe(new FakeModel({}))
  .pipe(new StringOutputParser());

export const agent = new Agent("poet", { concurrency: 50 });

agent.chat((messages, ctx) => chain.stream({ messages }, { signal: ctx.signal }));
