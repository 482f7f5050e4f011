"""An agent made with LangGraph, which keeps its conversations in SQLite in its HOME."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from worker import Agent, Context

agent = Agent("checkpointing", concurrency=1)


def count(state: MessagesState) -> dict[str, Any]:
    said = [message.content for message in state["messages"] if message.type == "human"]
    return {"messages": [("assistant", " ".join(map(str, said)))]}


graph = StateGraph(MessagesState)
graph.add_node("count", count)
graph.add_edge(START, "count")
graph.add_edge("count", END)
saver = SqliteSaver(sqlite3.connect(Path("~/checkpoints.db").expanduser(), check_same_thread=False))
compiled = graph.compile(checkpointer=saver)


@agent.chat
def chat(messages: list[dict[str, Any]], context: Context) -> str:
    config: Any = {"configurable": {"thread_id": context.conversation_id}}
    answer = compiled.invoke({"messages": [("user", messages[-1]["content"])]}, config)
    return str(answer["messages"][-1].content)
