"""What agent frameworks stream, as the words and events that a handler yields.

One module for each framework: `langgraph` (and LangChain), `pydantic_ai`, `openai_agents`. None is
imported with the SDK, and none imports its framework before it makes something of it: what comes
out of a stream is known by its members, as in `worker.messages`. Each has

- `events(stream)`: the framework's stream as text, `Reasoning`, `ToolCall`, `ToolResult`, `File`,
  `Usage`, `Finish` and `Ask`, to be yielded or returned by a handler;
- what hands the client's tools and messages to the framework, and answers to its questions.

"Adapters" in the README is the table of both, and says what a framework cannot do.
"""
