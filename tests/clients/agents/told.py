"""An agent that uses every event of the wire, on the standard library alone.

The first word of the user's last message says what it does, as the keys of `DOES`; the second one,
if there is one, names the request in the log: `runs TOKEN` as it begins, `cancelled TOKEN`. A
conversation that ends with the result of a tool is answered with that result.

Its argument is the concurrency that it declares, and whatever else `ready` has, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Params = dict[str, Any]
Event = dict[str, Any]

USAGE = {"input_tokens": 7, "output_tokens": 3}
CITY = {"city": "Oslo"}


def write(*messages: dict[str, Any]) -> None:
    text = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)
    data = text.encode()
    while data:
        data = data[os.write(1, data) :]


def log(text: str) -> None:
    os.write(2, f"{text}\n".encode())


class Request:
    """One request, and what can be said of it."""

    def __init__(self, number: int, params: Params) -> None:
        self.number = number
        self.params = params
        self.events = params.get("events") is True
        self.messages = params["messages"]
        self.last = self.messages[-1]
        said = [message for message in self.messages if message["role"] == "user"]
        words = text_of(said[-1]["content"]).split() if said else []
        self.task, self.token = (*words, "", "")[:2]

    def event(self, kind: str, **members: Any) -> None:
        if self.events:
            event = {"type": kind, **members}
            write({"method": "event", "params": {"id": self.number, "event": event}})

    def say(self, *texts: str) -> None:
        for text in texts:
            write({"method": "chunk", "params": {"id": self.number, "chunk": text}})

    def end(self, finish: str = "stop", **outcome: Any) -> None:
        told = {"finish": finish, "usage": USAGE, **outcome} if self.events else {}
        write({"id": self.number, "result": told})

    def fail(self, code: int, message: str) -> None:
        write({"id": self.number, "error": {"code": code, "message": message}})

    def tools(self) -> list[str]:
        """The names of the caller's tools."""
        return [tool_name(tool) for tool in self.params.get("tools") or ()]


def tool_name(tool: dict[str, Any]) -> str:
    return str(tool["name"])


def text_of(content: Any) -> str:
    """The text of a message whose content is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if "text" in part)


def hello(request: Request) -> None:
    request.say("Hello, ", "Wörld", "!")
    request.end()


def weather(request: Request) -> None:
    """Calls the caller's tool."""
    if "weather" not in request.tools():
        request.fail(-32602, f"the caller has no tool named weather, but {request.tools()}")
        return
    request.event("tool_call", call="c1", name="weather", arguments=CITY)
    request.end("tool_calls")


def weather_in_pieces(request: Request) -> None:
    """Calls the caller's tool, and says the arguments as they are made."""
    text = json.dumps(CITY)
    request.event("tool_call", call="c1", name="weather", delta=text[:5])
    request.event("tool_call", call="c1", name="weather", delta=text[5:])
    request.end("tool_calls")


def weather_whole(request: Request) -> None:
    """Calls the caller's tool in one message, as OpenAI's form has it."""
    function = {"name": "weather", "arguments": json.dumps(CITY)}
    calls = [{"id": "c1", "type": "function", "function": function}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    result = {"message": message, "finish": "tool_calls", "usage": USAGE}
    write({"id": request.number, "result": result})


def weather_twice(request: Request) -> None:
    """Calls the caller's tool for two cities at a time."""
    for number, city in enumerate(("Oslo", "Rome"), 1):
        request.event("tool_call", call=f"c{number}", name="weather", arguments={"city": city})
    request.end("tool_calls")


def search_then_weather(request: Request) -> None:
    """Calls a tool of its own, and then the caller's."""
    request.event("tool_call", call="s1", name="search", arguments={"query": "Norway"})
    request.event("tool_result", call="s1", content="Oslo")
    weather(request)


def own_weather(request: Request) -> None:
    """Calls a tool of its own that has the same name as the caller's."""
    request.event("tool_call", call="w1", name="weather", arguments=CITY)
    request.event("tool_result", call="w1", content="12 °C")
    request.say("It is 12 °C there.")
    request.end()


def search(request: Request) -> None:
    """Calls a tool of its own, before and after which it says something."""
    request.event("status", text="Searching")
    request.say("Let me see. ")
    request.event("tool_call", call="s1", name="search", arguments={"query": "cats"})
    request.event("tool_result", call="s1", content="3 pages")
    request.say("Found 3 pages.")
    request.end()


def think(request: Request) -> None:
    request.event("reasoning", text="First this, ")
    request.event("reasoning", text="then that.")
    request.say("Done.")
    request.end()


def ask(request: Request) -> None:
    """Asks the user, which ends the turn."""
    request.say("One thing. ")
    asks = [{"id": "a1", "reason": "input_required", "message": "Which day?"}]
    request.end("input_required", asks=asks)


def ask_when(request: Request) -> None:
    """Asks the user for an object, and goes on with it: see `go_on`."""
    request.say("One thing. ")
    properties = {"day": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": ["day"]}
    ask = {"id": "a1", "reason": "input_required", "message": "Which day?", "schema": schema}
    request.end("input_required", asks=[ask])


def ask_leave(request: Request) -> None:
    """Asks whether a tool of its own may be called, and goes on with that: see `go_on`."""
    request.event("tool_call", call="d1", name="delete", arguments={"path": "a.txt"})
    asks = [{"id": "a1", "reason": "approval", "message": "Delete it?", "call": "d1"}]
    request.end("input_required", asks=asks)


def go_on(request: Request, answer: dict[str, Any]) -> None:
    """Goes on after a question with what the user has said to it."""
    payload = answer.get("payload")
    if answer.get("status") == "cancelled":
        request.say("Then not.")
    elif isinstance(payload, dict) and "day" in payload:
        request.say(f"On {payload['day']}, then.")
    elif isinstance(payload, dict) and payload.get("approved") is True:
        request.event("tool_call", call="d1", name="delete", arguments={"path": "a.txt"})
        request.event("tool_result", call="d1", content="deleted")
        request.say("It is gone.")
    else:
        request.say(f"You said {json.dumps(payload, sort_keys=True)}.")
    request.end()


def draw(request: Request) -> None:
    """Makes a file."""
    request.say("Here it is.")
    request.event("file", name="notes.txt", mime="text/plain", data="SGVsbG8=")
    request.end()


def work(request: Request) -> None:
    """Tells what it is doing."""
    request.event("status", text="Reading", progress=1, total=2)
    request.event("status", text="Writing", progress=2, total=2)
    request.say("Done.")
    request.end()


def change(request: Request) -> None:
    """Has a state, and changes it."""
    request.event("state", value={"step": 1, "of": 3})
    request.event("state", patch=[{"op": "replace", "path": "/step", "value": 2}])
    request.say("Done.")
    request.end()


def fail_in_search(request: Request) -> None:
    """Calls a tool of its own, which fails."""
    request.event("tool_call", call="s1", name="search", arguments={"query": "cats"})
    request.event("tool_result", call="s1", content="no network", is_error=True)
    request.say("I could not look.")
    request.end()


def look(request: Request) -> None:
    """Tells which kinds of parts it was sent."""
    kinds = [part["type"] for part in request.last["content"] if "text" not in part]
    request.say(f"I see {' and '.join(kinds)}.")
    request.end()


def roles(request: Request) -> None:
    request.say(" ".join(message["role"] for message in request.messages))
    request.end()


def show(request: Request) -> None:
    """What came: everything but the messages, as JSON."""
    shown = {key: value for key, value in request.params.items() if key != "messages"}
    request.say(json.dumps(shown, sort_keys=True))
    request.end()


def stop_early(request: Request) -> None:
    request.say("It was a dark and")
    request.end("length")


def refuse(request: Request) -> None:
    request.fail(-32602, "no such city")


def fail(request: Request) -> None:
    request.fail(-32603, "no luck")


def fail_later(request: Request) -> None:
    request.say("so far")
    request.fail(-32603, "no luck")


def crash(request: Request) -> None:
    os._exit(3)


def crash_later(request: Request) -> None:
    request.say("so far")
    os._exit(3)


held: dict[int, Request] = {}


def hold(request: Request) -> None:
    """Goes on until it is cancelled."""
    request.say("so far", ", so good")
    held[request.number] = request


def cancel(number: int) -> None:
    if (request := held.pop(number, None)) is not None:
        log(f"cancelled {request.token}")
        request.fail(-32800, "cancelled")


DOES: dict[str, Callable[[Request], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        hello, weather, weather_in_pieces, weather_whole, weather_twice, search_then_weather,
        own_weather, search, fail_in_search, think, ask, ask_when, ask_leave, draw, work, change,
        look, roles, show, stop_early, refuse, fail, fail_later, crash, crash_later, hold,
    )
}  # fmt: skip


def answer(request: Request) -> None:
    log(f"runs {request.token}")
    if answers := request.params.get("resume"):
        go_on(request, answers[0])
    elif request.last["role"] == "tool":
        request.say("It is ", f"{text_of(request.last['content'])}.")
        request.end()
    elif (does := DOES.get(request.task)) is not None:
        does(request)
    else:
        request.fail(-32602, f"{request.task!r} is not one of {', '.join(DOES)}")


def main() -> None:
    ready = {"protocol": 1, "handlers": ["chat"], **json.loads(sys.argv[1])}
    write({"method": "ready", "params": ready})
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] == "cancel":
            cancel(message["params"]["id"])
        else:
            answer(Request(message["id"], message["params"]))


main()
