"""An agent that keeps things in its HOME, in the ways that agents do, and tells what it finds."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])


def keep(word: str) -> list[object]:
    """Add a word to a database, to a file of mode 0600 and to one in nested folders."""
    with sqlite3.connect(HOME / "memory.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS words (word TEXT)")
        database.execute("INSERT INTO words VALUES (?)", (word,))
        rows = [row[0] for row in database.execute("SELECT word FROM words")]
    database.close()
    private = HOME / ".claude.json"
    words = json.loads(private.read_text()) if private.exists() else []
    new = private.with_suffix(".new")
    with open(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump([*words, word], file)
    new.replace(private)
    nested = HOME / "a/b/c/words"
    nested.parent.mkdir(parents=True, exist_ok=True)
    with nested.open("a") as file:
        file.write(f"{word}\n")
    mode = private.stat().st_mode & 0o777
    return [rows, json.loads(private.read_text()), nested.read_text().split(), mode]


def meet(word: str) -> list[object]:
    """Add a word to a database and to a file of mode 0600, beside another worker that does the same
    at this time, and tell the words of both."""
    private = HOME / f".{word}"
    with open(os.open(private, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write(word)
    database = sqlite3.connect(HOME / "met.db", timeout=30)
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS words (word TEXT)")
        database.execute("INSERT INTO words VALUES (?)", (word,))
    rows: list[str] = []
    while len(rows) < 2:
        time.sleep(0.01)
        rows = [row[0] for row in database.execute("SELECT word FROM words ORDER BY word")]
    database.close()
    return [rows, [Path(HOME, f".{row}").read_text() for row in rows]]


def answer(what: str, argument: str) -> object:
    if what == "keep":
        return keep(argument)
    if what == "meet":
        return meet(argument)
    if what == "fill":
        return (HOME / "large").write_bytes(b"x" * int(argument))
    if what == "write":
        path = Path(argument, "shared")
        before = path.read_text() if path.exists() else ""
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a") as file:
            file.write("x")
        return len(before)
    around = sorted(os.listdir(HOME.parent)) if HOME.parent != Path("/") else []
    return {
        "home": str(HOME),
        "passwd": os.path.expanduser("~"),
        "uid": os.geteuid(),
        "here": sorted(os.listdir(HOME)),
        "around": around,
        "pid": os.getpid(),
    }


print(
    '{"jsonrpc":"2.0","method":"ready","params":{"protocol":1,"handlers":["invoke"]}}', flush=True
)
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = {"output": answer(*request["params"]["input"])}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
