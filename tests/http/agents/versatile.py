"""An agent that uses every event of the wire, with declared schemas, on the standard library alone.

The input's `task`, or the first word of the last message, says what it does: a function below.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

USAGE = {"input_tokens": 7, "output_tokens": 3}

READY = {
    "protocol": 1,
    "handlers": ["invoke", "chat"],
    "concurrency": 16,
    "description": "An agent that does what it is told.",
    "asks": True,
    "input": {
        "type": "object",
        "properties": {"task": {"type": "string"}},
        "required": ["task"],
    },
    "output": {
        "type": "object",
        "properties": {"done": {"type": "string"}},
        "required": ["done"],
        "additionalProperties": False,
    },
}


def write(message: dict[str, Any]) -> None:
    data = (json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


class Request:
    def __init__(self, message: dict[str, Any]) -> None:
        self.id = message["id"]
        self.invokes = message["method"] == "invoke"
        self.params = message["params"]
        said = self.params["input"]["task"] if self.invokes else self.params["messages"][-1]
        self.words = (said if self.invokes else str(said["content"])).split()

    def event(self, kind: str, **members: Any) -> None:
        event = {"type": kind, **members}
        write({"method": "event", "params": {"id": self.id, "event": event}})

    def say(self, text: str) -> None:
        write({"method": "chunk", "params": {"id": self.id, "chunk": text}})

    def end(self, done: Any = "whole", **outcome: Any) -> None:
        result = {"finish": "stop", "usage": USAGE, **outcome}
        if self.invokes:
            result["output"] = {"done": done}
        write({"id": self.id, "result": result})


def hello(request: Request) -> None:
    if not request.invokes:
        request.say("Hello, ")
        request.say("Wörld!")
    request.end()


def work(request: Request) -> None:
    """Every event."""
    request.event("status", text="begun", progress=1, total=3)
    request.event("reasoning", text="First this.")
    request.event("tool_call", call="c1", name="search", arguments={"q": "x"})
    request.event("tool_result", call="c1", content="found")
    request.event("state", value={"at": 1})
    request.event("x-own", data=1)
    request.event("status", text="nearly", progress=2, total=3)
    if not request.invokes:
        request.say("See ")
        request.event("file", name="dot.png", mime="image/png", data="iVBORw==")
        request.say("and ")
        request.event("file", name="beep.wav", mime="audio/wav", data="UklGRg==")
        request.event("file", name="a.txt", mime="text/plain", data="aGk=")
        request.event("file", name="a.zip", mime="application/zip", data="UEs=")
        request.event("file", name="b.zip", mime="application/zip", path="https://x.example/b.zip")
    request.end()


def wrong(request: Request) -> None:
    """Gives another output than it has declared."""
    request.end(done=1)


def ask(request: Request) -> None:
    """Asks twice in one turn, and gives back what it was answered."""
    resume = request.params.get("resume")
    if resume is not None:
        request.say(json.dumps(resume))
        request.end()
        return
    day = {"id": "day", "reason": "input_required", "message": "Which day?"}
    how = {
        "id": "how",
        "reason": "input_required",
        "message": "How?",
        "schema": {
            "type": "object",
            "properties": {"fast": {"type": "boolean"}, "seats": {"type": "integer"}},
            "required": ["fast"],
        },
    }
    request.say("One thing. ")
    request.end(finish="input_required", asks=[day, how])


def refuse(request: Request) -> None:
    write({"id": request.id, "error": {"code": -32602, "message": "no such city"}})


def fail(request: Request) -> None:
    write({"id": request.id, "error": {"code": -32603, "message": "no luck"}})


def crash(request: Request) -> None:
    os._exit(3)


def crash_later(request: Request) -> None:
    request.say("so far")
    request.event("status", text="so far so good")
    os._exit(3)


def hold(request: Request) -> None:
    """Goes on until it is cancelled."""
    request.event("status", text="holding")


def flood(request: Request) -> None:
    """Says very much of how it goes, and then a long text."""
    for at in range(20_000):
        request.event("status", text=f"step {at}", progress=at + 1, total=20_000)
    request.say("x" * 100_000)
    request.end()


def echo(request: Request) -> None:
    """Gives back the context and the messages before."""
    request.say(json.dumps([request.params["context"], request.params["messages"][:-1]]))
    request.end()


DOES = {each.__name__.replace("_", "-"): each for each in (
    hello, work, wrong, ask, refuse, fail, crash, crash_later, hold, flood, echo,
)}  # fmt: skip


def main() -> None:
    ready = {**READY, **json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")}
    write({"method": "ready", "params": ready})
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] == "cancel":
            os.write(2, b"was cancelled\n")
            cancelled = {"code": -32800, "message": "cancelled"}
            write({"id": message["params"]["id"], "error": cancelled})
        else:
            request = Request(message)
            DOES[request.words[0]](request)


main()
