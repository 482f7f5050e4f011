"""Runs of AG-UI without a gateway: what an agent says goes in, and events come out, each of which
is one that the protocol's own types accept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ag_ui.core import Event
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.call import Call
from gateway.config import Clocks
from gateway.exchange import Exchange
from gateway.front.ag_ui.dialect import RunCodec
from gateway.front.dialect import RequestHead
from protocol import Outcome
from protocol.events import EventError, RequestEvents

HEAD = RequestHead(request_id="r-1")
TOOLS = [
    {"name": name, "description": "", "parameters": {"type": "object"}}
    for name in ("weather", "clock")
]
USER = {"id": "m1", "role": "user", "content": "hi"}
HISTORY: list[dict[str, Any]] = [
    {
        "id": "m2",
        "role": "assistant",
        "toolCalls": [
            {"id": call, "type": "function", "function": {"name": name, "arguments": "{}"}}
            for call, name in (("old", "weather"), ("done", "search"))
        ],
    },
    {"id": "m3", "role": "tool", "toolCallId": "done", "content": "3 pages"},
]
EVENT: TypeAdapter[Any] = TypeAdapter(Event)


def words_of(*said: str | dict[str, Any]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def body_of(**members: Any) -> bytes:
    body = {"threadId": "t", "runId": "r", "protocolVersion": "1.0", "messages": [USER]}
    return json.dumps({**body, **members}).encode()


def begin(**members: Any) -> tuple[RunCodec, Exchange]:
    codec = RunCodec("bot")
    call = codec.decode(HEAD, body_of(**members))
    assert isinstance(call, Call)
    return codec, Exchange(call, Clocks(), 0.0)


def events_of(parts: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream, each of which the protocol's types accept."""
    *lines, nothing = parts.decode().split("\n\n")
    assert nothing == ""
    found = []
    for line in lines:
        if not line.startswith(":"):
            assert len(line.splitlines()) == 1
            found.append(json.loads(line.removeprefix("data: ")))
            EVENT.validate_python(found[-1])
    return found


def ran(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[dict[str, Any]]:
    """The events of a run that ended well."""
    codec, exchange = begin(**members)
    stream = codec.stream(exchange)
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    return events_of(b"".join([*parts, stream.end(result)]))


OPENS = {
    "TEXT_MESSAGE_START": "TEXT_MESSAGE",
    "TOOL_CALL_START": "TOOL_CALL",
    "REASONING_START": "REASONING",
    "REASONING_MESSAGE_START": "REASONING_MESSAGE",
    "STEP_STARTED": "STEP",
}
USES = {
    "TEXT_MESSAGE_CONTENT": "TEXT_MESSAGE",
    "TOOL_CALL_ARGS": "TOOL_CALL",
    "REASONING_MESSAGE_CONTENT": "REASONING_MESSAGE",
}
CLOSES = {
    "TEXT_MESSAGE_END": "TEXT_MESSAGE",
    "TOOL_CALL_END": "TOOL_CALL",
    "REASONING_END": "REASONING",
    "REASONING_MESSAGE_END": "REASONING_MESSAGE",
    "STEP_FINISHED": "STEP",
}


class Order:
    """The rules of AG-UI on the order of events, https://docs.ag-ui.com/spec/1.0/basic/patterns."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self.open: set[tuple[str, str]] = set()
        self.messages: set[str] = {USER["id"], *known}
        self.calls: set[str] = set(known)
        self.answered: set[str] = set()

    def check(self, events: Sequence[dict[str, Any]]) -> None:
        first, *between, last = events
        assert (first["type"], first["threadId"], first["runId"]) == ("RUN_STARTED", "t", "r")
        for event in between:
            self._look_at(event)
        if last["type"] == "RUN_FINISHED":
            assert self.open == set()
            assert (last["threadId"], last["runId"]) == ("t", "r")
            self._look_at_outcome(last["outcome"])
        else:
            assert last["type"] == "RUN_ERROR"

    def _look_at(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        assert not kind.startswith("RUN_")
        name = next(
            (event[key] for key in ("stepName", "toolCallId", "messageId") if key in event), ""
        )
        if kind in OPENS:
            assert (OPENS[kind], name) not in self.open
            self.open.add((OPENS[kind], name))
            if kind in {"TEXT_MESSAGE_START", "REASONING_MESSAGE_START"}:
                assert name not in self.messages
                self.messages.add(name)
            if kind == "TOOL_CALL_START":
                assert name not in self.calls
                self.calls.add(name)
        elif kind in USES:
            assert (USES[kind], name) in self.open
            assert event["delta"] != ""
        elif kind in CLOSES:
            self.open.remove((CLOSES[kind], name))
        elif kind == "TOOL_CALL_RESULT":
            assert name in self.calls
            assert ("TOOL_CALL", name) not in self.open
            assert name not in self.answered
            self.answered.add(name)

    def _look_at_outcome(self, outcome: dict[str, Any]) -> None:
        pending = set(outcome.get("pendingToolCallIds", []))
        assert pending <= self.calls - self.answered
        for interrupt in outcome.get("interrupts", []):
            assert interrupt.get("toolCallId") in self.calls | {None}


# What agents say

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", "a\u2028b", "\r\n", "data: x"]
)
CALLS = st.sampled_from(["c1", "c2", "old", "done"])
NAMES = {"c1": "weather", "c2": "search", "old": "weather", "done": "search"}
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
PATHS = st.sampled_from(["", "/a", "/a/0", "/a~1b"])
PATCHES = st.lists(
    st.fixed_dictionaries({"op": st.just("add"), "path": PATHS, "value": VALUES})
    | st.fixed_dictionaries({"op": st.just("remove"), "path": PATHS})
    | st.fixed_dictionaries(
        {"op": st.sampled_from(["copy", "move"]), "path": PATHS, "from": PATHS}
    ).filter(lambda patch: patch["op"] == "copy" or not patch["path"].startswith(patch["from"])),
    max_size=3,
)


def _event(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


def _call(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    told = CALLS.map(lambda call: {"type": "tool_call", "call": call, "name": NAMES[call]})
    more = st.fixed_dictionaries(dict(members))
    return st.tuples(told, more).map(lambda both: both[0] | both[1])


WORDS = st.one_of(
    TEXTS,
    TEXTS,
    _event("reasoning", text=TEXTS),
    _call(delta=TEXTS),
    _call(delta=TEXTS),
    _call(arguments=st.dictionaries(TEXTS, VALUES, max_size=2)),
    _event("tool_result", call=CALLS, content=VALUES, is_error=st.booleans()),
    _event("file", name=st.just("a.txt"), mime=st.just("text/plain"), data=st.just("aGk=")),
    _event("file", name=st.just("a.txt"), mime=st.just("text/plain"), path=st.just("/a.txt")),
    _event("status", text=TEXTS, progress=st.none() | st.integers(0, 9)),
    _event("state", value=VALUES),
    _event("state", patch=PATCHES),
    _event("usage", input_tokens=st.integers(0, 9)),
    _event("x-mine", anything=VALUES),
)
OUTCOMES = st.sampled_from(
    [
        None,
        Outcome(None, b'{"input_tokens":7,"output_tokens":3,"seconds":2}', None),
        Outcome("stop", b"{}", None),
        Outcome("length", None, None),
        Outcome("refused", None, None),
        Outcome("tool_calls", None, None),
        Outcome(
            "input_required",
            None,
            b'[{"id":"a1","reason":"confirm","message":"Really?","schema":{},"call":"c1"},'
            b'{"id":"a2","reason":"other","message":"","call":"nobody"}]',
        ),
    ]
)
RESULTS = st.none() | st.sampled_from(
    [
        b'{"role":"assistant","content":"Hi","reasoning_content":"hm"}',
        json.dumps(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": call, "type": "function", "function": {"name": name, "arguments": {}}}
                    for call, name in (("c1", "weather"), ("old", "clock"))
                ],
            }
        ).encode(),
    ]
)
REQUESTS = st.fixed_dictionaries(
    {
        "messages": st.just([USER]) | st.just([USER, *HISTORY]),
        "tools": st.just([]) | st.just(TOOLS),
        "resume": st.just([]) | st.just([{"interruptId": "a1", "status": "cancelled"}]),
    }
)


def allowed(words: Sequence[str | dict[str, Any]]) -> Iterator[bytes]:
    """Those of the words that the wire lets pass."""
    known = RequestEvents()
    for word in words_of(*words):
        if word[:1] == b'"':
            yield word
            continue
        try:
            known.add(word)
        except EventError:
            continue
        yield word
