"""What is asked of each client, and what must come back.

A scenario is an order of `runners`, and a check of its reply. Several make a column of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reply = Mapping[str, Any]

HELLO = "Hello, Wörld!"
USAGE = [7, 3]

REASONING = "reasoning"
OWN = "agent's own tools"

TOLD = "told"
FRAGILE = "fragile"
"""The same agent, one request to a worker: it is asked to crash."""
PLAIN = "plain"
"""The same agent, which says nothing of what it can do."""


@dataclass(frozen=True)
class Scenario:
    """One order, and what must come of it."""

    column: str
    do: str
    task: str
    check: Callable[[Reply], bool]
    model: str = TOLD
    tools: bool = False
    image: bool = False
    runs: int = 1
    """How many requests the agent must have been given."""

    @property
    def name(self) -> str:
        """Unique among all, and without spaces."""
        words = [*self.column.split(), self.do, self.task]
        words += ["with-tools"] * self.tools + ["with-image"] * self.image
        words += [f"of-{self.model}"] * (self.model != TOLD)
        return "-".join(words).replace("'", "")


def is_told(reply: Reply, text: str) -> bool:
    """A whole answer with this text, for which no tool was called."""
    return reply["error"] is None and reply["calls"] == [] and reply["text"] == text


def is_streamed(reply: Reply) -> bool:
    return is_told(reply, HELLO) and reply["pieces"] == 3


def has_usage(reply: Reply) -> bool:
    return list(reply["usage"] or ()) == USAGE


def called_for(*cities: str) -> Callable[[Reply], bool]:
    """The client's tool was called for each city, and the agent went on with what it said."""
    calls = [["weather", {"city": city}] for city in cities]

    def check(reply: Reply) -> bool:
        error, text = reply["error"], reply["text"]
        return error is None and reply["calls"] == calls and text == "It is 12 °C."

    return check


def saw_no_call(reply: Reply) -> bool:
    return is_told(reply, "Let me see. Found 3 pages.")


def had_it_done(reply: Reply) -> bool:
    """The agent has a tool of the same name, and has called that."""
    return is_told(reply, "It is 12 °C there.")


def stopped_early(reply: Reply) -> bool:
    """An answer that is cut, and says so; some clients raise an error for it."""
    words = {"length", "incomplete", "LengthFinishReasonError"}
    if (error := reply["error"]) is not None:
        return error["name"] in words or "response.incomplete" in error["message"]
    finish = reply["finish"]
    return is_told(reply, "It was a dark and") and (finish is None or finish in words)


def failed(status: int, saying: str = "") -> Callable[[Reply], bool]:
    """An error of the client's own with this status, and no answer."""

    def check(reply: Reply) -> bool:
        error = reply["error"] or {"status": None, "message": ""}
        return (
            error["status"] == status
            and saying in error["message"]
            and not reply["text"]
            and reply["finish"] is None
        )

    return check


def broke_off(reply: Reply) -> bool:
    """An error after the beginning of an answer, which is never taken for a whole one."""
    whole = {"stop", "completed", "end_turn"}
    return reply["error"] is not None and reply["text"] == "so far" and reply["finish"] not in whole


def thought(reply: Reply) -> bool:
    return is_told(reply, "Done.") and reply["reasoning"] == "First this, then that."


def heard_no_thought(reply: Reply) -> bool:
    """What a client gives that has nothing for them: the answer."""
    return is_told(reply, "Done.") and not reply["reasoning"]


def asked(reply: Reply) -> bool:
    """The text, and after it the question: an ordinary end of the turn."""
    text = reply["text"]
    return is_told(reply, text) and text.startswith("One thing. ") and "Which day?" in text


def left(reply: Reply) -> bool:
    """The client has left with what it had read, and its agent was told."""
    return reply["error"] is None and reply["text"].startswith("so far") and reply["cancelled"]


ALL: tuple[Scenario, ...] = (
    Scenario("answer", "answer", "hello", lambda reply: is_told(reply, HELLO)),
    Scenario("answer", "answer", "stop-early", stopped_early),
    Scenario("stream", "stream", "hello", is_streamed),
    Scenario("stream", "stream", "stop-early", stopped_early),
    Scenario("usage", "answer", "hello", has_usage),
    Scenario("usage", "stream", "hello", has_usage),
    Scenario("tools", "answer", "weather", called_for("Oslo"), tools=True, runs=2),
    Scenario("tools", "answer", "weather-whole", called_for("Oslo"), tools=True, runs=2),
    Scenario("tools", "stream", "weather", called_for("Oslo"), tools=True, runs=2),
    Scenario("tools", "stream", "weather-in-pieces", called_for("Oslo"), tools=True, runs=2),
    Scenario("tools", "answer", "weather-twice", called_for("Oslo", "Rome"), tools=True, runs=2),
    Scenario("tools", "stream", "weather-twice", called_for("Oslo", "Rome"), tools=True, runs=2),
    Scenario(OWN, "answer", "search", saw_no_call),
    Scenario(OWN, "stream", "search", saw_no_call),
    Scenario(OWN, "answer", "search", saw_no_call, tools=True),
    Scenario(OWN, "stream", "search", saw_no_call, tools=True),
    Scenario(OWN, "answer", "search-then-weather", called_for("Oslo"), tools=True, runs=2),
    Scenario(OWN, "stream", "search-then-weather", called_for("Oslo"), tools=True, runs=2),
    Scenario(OWN, "answer", "own-weather", had_it_done, tools=True),
    Scenario(OWN, "stream", "own-weather", had_it_done, tools=True),
    Scenario(REASONING, "answer", "think", thought),
    Scenario(REASONING, "stream", "think", thought),
    Scenario("question", "answer", "ask", asked),
    Scenario("question", "stream", "ask", asked),
    Scenario("image", "answer", "look", lambda r: is_told(r, "I see image_url."), image=True),
    Scenario("image", "answer", "look", failed(400, "image"), PLAIN, image=True, runs=0),
    Scenario("error", "answer", "hello", failed(404, "nobody"), "nobody", runs=0),
    Scenario("error", "stream", "hello", failed(404, "nobody"), "nobody", runs=0),
    Scenario("error", "answer", "refuse", failed(400, "no such city")),
    Scenario("error", "stream", "refuse", failed(400, "no such city")),
    Scenario("error", "answer", "fail", failed(500, "no luck")),
    Scenario("error", "stream", "fail", failed(500, "no luck")),
    Scenario("error", "answer", "crash", failed(501), FRAGILE),
    Scenario("error", "stream", "crash", failed(501), FRAGILE),
    Scenario("mid-stream error", "stream", "fail-later", broke_off),
    Scenario("mid-stream error", "stream", "crash-later", broke_off, FRAGILE),
    Scenario("mid-stream error", "answer", "crash-later", failed(501), FRAGILE),
    Scenario("cancel", "leave", "hold", left),
)

COLUMNS = tuple(dict.fromkeys(each.column for each in ALL))
