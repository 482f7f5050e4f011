"""One program for each client: it does with it what it is told, and says what the client gave.

    python -m tests.clients.runners.with_openai URL
    node with_openai.mjs URL

An order is a line of JSON on stdin, and its reply one on stdout; the first line there has the
version of each package by its name.

    {"api": "chat",           or another of the client's: "responses", "compatible"
     "do": "answer",          or "stream"; or "leave": read the first piece of a stream, and go
     "model": "told",
     "text": "weather t7",    what the user says
     "tools": true,           offer the tool `weather`, which answers `12 °C`, and go on after it
     "image": true,           send a picture with the text
     "answer": {"day": ...},  if the agent asks, answer this in the protocol's way, and let it go on
     "key": "agw_..."}

    {"text": "It is 12 °C.", "pieces": 2, "reasoning": "", "calls": [["weather", {"city": "Oslo"}]],
     "usage": [7, 3], "finish": "stop", "error": {"name", "status", "message"},
     "own": [["search", {"query": "cats"}, "3 pages"]],       calls of the agent's own tools
     "files": [["notes.txt", "text/plain", "SGVsbG8="]],
     "statuses": ["Reading"], "state": {...}, "asks": ["Which day?"]}

`usage` is of the last request. `finish` is the client's own word; `error` is what the client
raised, null if it raised nothing, with what it had given until then beside it. `text` is that of
the agent's answers, not of what stands beside them; the last line has what only some protocols
show.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

KEY = "agw_the-key-of-all-clients-that-are-tested-here"
ANSWER = {"day": "Tuesday"}
"""What the user says to the agent's question."""
TOOL = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CHAT_TOOL = {"type": "function", "function": {"strict": True, **TOOL}}
RESPONSES_TOOL = {"type": "function", "strict": True, **TOOL}
TOOL_SAYS = "12 °C"
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQ"
    "DwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
MAX_STEPS = 4
"""Requests for one order, with tools."""
SECONDS = 30
"""For one request."""


@dataclass
class Order:
    """What is to be done."""

    api: str
    do: str
    model: str
    text: str
    tools: bool = False
    image: bool = False
    answer: dict[str, Any] | None = None
    key: str = KEY

    def chat_content(self) -> Any:
        """The user's message, as chat completions have it."""
        if not self.image:
            return self.text
        picture = {"type": "image_url", "image_url": {"url": PICTURE}}
        return [{"type": "text", "text": self.text}, picture]

    def responses_content(self) -> Any:
        """The user's message, as Responses have it."""
        if not self.image:
            return self.text
        picture = {"type": "input_image", "image_url": PICTURE, "detail": "auto"}
        return [{"type": "input_text", "text": self.text}, picture]


@dataclass
class Reply:
    """What the client gave."""

    text: str = ""
    pieces: int = 0
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    usage: tuple[int, int] | None = None
    finish: str | None = None
    error: dict[str, Any] | None = None
    own: list[tuple[str, Any, Any]] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    state: Any = None
    asks: list[str] = field(default_factory=list)

    def say(self, text: str | None) -> None:
        if text:
            self.text += text
            self.pieces += 1

    def spent(self, usage: Any, asked: str, answered: str) -> None:
        """Take the usage from an object or a mapping with these members."""
        if usage:
            get = usage.get if isinstance(usage, dict) else lambda name: getattr(usage, name)
            self.usage = (get(asked), get(answered))

    def call(self, name: str, arguments: str | dict[str, Any]) -> str:
        """Call a tool of ours, and return what it says."""
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        self.calls.append((name, arguments))
        return TOOL_SAYS if name == TOOL["name"] else f"there is no tool {name}"

    def fail(self, name: str, message: str, status: int | None = None) -> None:
        self.error = {"name": name, "status": status, "message": message}

    @contextmanager
    def noting_errors(self, *kinds: type[Exception]) -> Iterator[None]:
        """Note an error of the client's own kinds; any other is the runner's defect."""
        try:
            yield
        except kinds as error:
            message = str(getattr(error, "message", error))
            self.fail(type(error).__name__, message, getattr(error, "status_code", None))


def serve(packages: tuple[str, ...], carry_out: Callable[[Order], Reply]) -> None:
    """Carry out one order after the other, until the end of stdin."""
    tell({name: version(name) for name in packages})
    for line in sys.stdin:
        try:
            reply = asdict(carry_out(Order(**json.loads(line))))
        except Exception:
            reply = {"broken": traceback.format_exc()}
        tell(reply)


def tell(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)
