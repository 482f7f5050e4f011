"""SQLite in the agent's own folder, which is its home: notes that outlive the worker.

    [agents.notes]
    command = "agent-worker worker/examples/frameworks/sqlite_notes.py:agent"
    state = true

Without `state`, the home is empty for each worker and ends with it. LangGraph's `SqliteSaver` and
openai-agents' `SQLiteSession` take such a file as well.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from worker import Agent, Context

FILE = Path.home() / "notes.sqlite"

agent = Agent("notes", description="Keeps notes.")


def connect() -> sqlite3.Connection:
    """A connection for one request: several workers may have the file open at the same time."""
    connection = sqlite3.connect(FILE, timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS notes (owner TEXT, note TEXT)")
    return connection


@agent.invoke
def add(note: str, *, context: Context) -> list[str]:
    """Note something down; returns all notes of the user's."""
    with closing(connect()) as connection:
        with connection:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (context.user_id, note))
        rows = connection.execute(
            "SELECT note FROM notes WHERE owner IS ? ORDER BY rowid", (context.user_id,)
        )
        return [note for (note,) in rows]


if __name__ == "__main__":
    agent.run()
