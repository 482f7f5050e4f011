"""What is asked of each client, and what must come back.

A scenario is an order of `runners`, and a check of its reply. Several make a column of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reply = Mapping[str, Any]
Check = Callable[[Reply], bool]

HELLO = "Hello, Wörld!"
USAGE = [7, 3]
FILE_SENT = ["notes.txt", "text/plain", "SGVsbG8="]
"""A file's name, its type and its data."""
ASKED = "Which day?"

REASONING = "reasoning"
OWN = "agent's own tools"
FILE = "file"
STATUS = "status"
STATE = "state"
QUESTION = "question"
ANSWERED = "answer to a question"
KEY = "key"
JQ = "jq"
"""What the one-liner is called, and the column of what clients get from it."""

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
    check: Check
    model: str = TOLD
    tools: bool = False
    image: bool = False
    wrong_key: bool = False
    answer: bool = False
    """Whether the agent's question is answered, and the agent goes on."""
    runs: int | None = 1
    """How many requests the agent must have been given; None: it does not say."""
    without: Check | None = None
    """What must come back to a client that has nothing for the column; None: it is not asked."""

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
    words = {"length", "incomplete", "max_tokens", "LengthFinishReasonError"}
    if (error := reply["error"]) is not None:
        return error["name"] in words or "response.incomplete" in error["message"]
    finish = reply["finish"]
    return is_told(reply, "It was a dark and") and (finish is None or finish in words)


@dataclass(frozen=True)
class Failed:
    """An error of the client's own with this status, and no answer."""

    status: int | None
    saying: str = ""

    def __call__(self, reply: Reply) -> bool:
        error = reply["error"]
        return (
            error is not None
            and error["status"] == self.status
            and self.saying in error["message"]
            and not reply["text"]
            and reply["finish"] is None
        )


def broke_off(reply: Reply) -> bool:
    """An error after the beginning of an answer, which is never taken for a whole one."""
    whole = {"stop", "completed", "end_turn"}
    return reply["error"] is not None and reply["text"] == "so far" and reply["finish"] not in whole


def thought(reply: Reply) -> bool:
    return is_told(reply, "Done.") and reply["reasoning"] == "First this, then that."


def heard_no_thought(reply: Reply) -> bool:
    """What a client gives that has nothing for them: the answer."""
    return is_told(reply, "Done.") and not reply["reasoning"]


def showed_its_search(reply: Reply) -> bool:
    """The call of the agent's own is there beside the answer, with what it returned."""
    own = [["search", {"query": "cats"}, "3 pages"]]
    return saw_no_call(reply) and reply["own"] == own


def linked(reply: Reply) -> bool:
    """A file as a link in the text, which is all that some protocols have."""
    link = "[notes.txt](data:text/plain;base64,SGVsbG8=)"
    return is_told(reply, reply["text"]) and link in reply["text"]


def attached(reply: Reply) -> bool:
    """A file beside the text."""
    return is_told(reply, "Here it is.") and reply["files"] == [FILE_SENT]


def told_how_far(reply: Reply) -> bool:
    return is_told(reply, "Done.") and reply["statuses"] == ["Reading", "Writing"]


def showed_state(reply: Reply) -> bool:
    return is_told(reply, "Done.") and reply["state"] == {"step": 2, "of": 3}


def heard_the_answer(reply: Reply) -> bool:
    """What a client gives that has nothing for what stands beside the answer."""
    return is_told(reply, "Done.")


def asked(reply: Reply) -> bool:
    """The text, and after it the question: an ordinary end of the turn."""
    text = reply["text"]
    return is_told(reply, text) and text.startswith("One thing. ") and "Which day?" in text


def asked_apart(reply: Reply) -> bool:
    """The text, and the question beside it, for whoever may answer it."""
    return reply["error"] is None and reply["text"] == "One thing. " and reply["asks"] == [ASKED]


def went_on(reply: Reply) -> bool:
    """The question was answered, and the agent has gone on with the answer."""
    error, text = reply["error"], reply["text"]
    return error is None and reply["asks"] == [ASKED] and text.endswith("On Tuesday, then.")


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
    Scenario(REASONING, "answer", "think", thought, without=heard_no_thought),
    Scenario(REASONING, "stream", "think", thought, without=heard_no_thought),
    Scenario(FILE, "answer", "draw", linked),
    Scenario(FILE, "stream", "draw", linked),
    Scenario(STATUS, "answer", "work", told_how_far, without=heard_the_answer),
    Scenario(STATUS, "stream", "work", told_how_far, without=heard_the_answer),
    Scenario(STATE, "answer", "change", showed_state, without=heard_the_answer),
    Scenario(STATE, "stream", "change", showed_state, without=heard_the_answer),
    Scenario(QUESTION, "answer", "ask", asked),
    Scenario(QUESTION, "stream", "ask", asked),
    Scenario(ANSWERED, "answer", "ask-when", went_on, answer=True, runs=2),
    Scenario(ANSWERED, "stream", "ask-when", went_on, answer=True, runs=2),
    Scenario("image", "answer", "look", lambda r: is_told(r, "I see image_url."), image=True),
    Scenario("image", "answer", "look", Failed(400, "image"), PLAIN, image=True, runs=0),
    Scenario("error", "answer", "hello", Failed(404, "nobody"), "nobody", runs=0),
    Scenario("error", "stream", "hello", Failed(404, "nobody"), "nobody", runs=0),
    Scenario("error", "answer", "refuse", Failed(400, "no such city")),
    Scenario("error", "stream", "refuse", Failed(400, "no such city")),
    Scenario("error", "answer", "fail", Failed(500, "no luck")),
    Scenario("error", "stream", "fail", Failed(500, "no luck")),
    Scenario("error", "answer", "crash", Failed(501), FRAGILE),
    Scenario("error", "stream", "crash", Failed(501), FRAGILE),
    Scenario("mid-stream error", "stream", "fail-later", broke_off),
    Scenario("mid-stream error", "stream", "crash-later", broke_off, FRAGILE),
    Scenario("mid-stream error", "answer", "crash-later", Failed(501), FRAGILE),
    Scenario("cancel", "leave", "hold", left),
    Scenario(KEY, "answer", "hello", Failed(401), wrong_key=True, runs=0),
    Scenario(KEY, "stream", "hello", Failed(401), wrong_key=True, runs=0),
    Scenario(JQ, "answer", "hello", lambda reply: is_told(reply, HELLO), JQ, runs=None),
    Scenario(JQ, "stream", "hello", is_streamed, JQ, runs=None),
    Scenario(JQ, "answer", "break", Failed(502), JQ, runs=None),
    Scenario(JQ, "stream", "break", Failed(502), JQ, runs=None),
    Scenario(JQ, "stream", "break-later", broke_off, JQ, runs=None),
)

STREAMS_ONLY: Mapping[str, Check] = {
    scenario.name: broke_off
    for scenario in ALL
    if scenario.do == "answer" and scenario.task == "crash-later"
}
"""For a protocol whose every answer is a stream: what it had begun is there before the error."""

COLUMNS = tuple(dict.fromkeys(each.column for each in ALL))
