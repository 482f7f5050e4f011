"""LangGraph: a graph that remembers each conversation in its checkpointer.

    gateway --agent recall="agent-worker worker/examples/frameworks/langgraph_memory.py:agent"

The caller sends its new message and a `conversation_id`; what was said before is in the worker's
memory, where the gateway brings the conversation back to. For memory that outlives the worker, take
`SqliteSaver` and a file in a folder that is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models.chat_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from worker import Agent, Context, Event
from worker.adapters import langgraph


class Recall(SimpleChatModel):
    """Stands in for a model: `init_chat_model("openai:gpt-5")` goes here."""

    @property
    def _llm_type(self) -> str:
        return "recall"

    def _call(self, messages: list[BaseMessage], *_: Any, **__: Any) -> str:
        said = [str(message.text) for message in messages if message.type == "human"]
        return f"You said: {', '.join(said)}."


model = Recall()


async def respond(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = (
    StateGraph(MessagesState)
    .add_node("respond", respond)
    .add_edge(START, "respond")
    .compile(checkpointer=InMemorySaver())
)

agent = Agent("recall", description="Remembers what was said.")


@agent.chat
async def chat(messages: list[dict[str, Any]], context: Context) -> AsyncIterator[str | Event]:
    # Two users who choose the same name for a conversation do not share it.
    thread = f"{context.user_id}/{context.conversation_id or context.request_id}"
    new = {"messages": [messages[-1]]}
    config = {"configurable": {"thread_id": thread}}
    # The words, the tool calls and the usage of all nodes, and questions where a graph has any.
    return langgraph.events(graph.astream(new, config, stream_mode=["messages", "updates"]))


if __name__ == "__main__":
    agent.run()
