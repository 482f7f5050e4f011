"""Answers as agents give them, for the properties of every dialect: words, an outcome, a result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from protocol import Outcome
from protocol.events import EventError, RequestEvents, check_outcome

NAMES = {"c1": "weather", "c2": "clock", "own": "search"}
"""The names of the tools that are called, by the calls' ids. All but the last are the client's."""

TOOLS = tuple(name for call, name in NAMES.items() if call != "own")

TEXTS = st.sampled_from(["", "It is ", "12 °C.", "a\u2028b\r\n", '"\\', "😀", "\n\n"])


class Said(NamedTuple):
    """All that an agent says of one request."""

    words: list[bytes]
    outcome: Outcome | None
    result: bytes | None
    cuts: list[int]
    """Where the words are divided into those that come together; each is an index of a word."""

    def batches(self) -> Iterator[list[bytes]]:
        start = 0
        for cut in [*sorted(self.cuts), len(self.words)]:
            if start < cut <= len(self.words):
                yield self.words[start:cut]
                start = cut


def _event(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


def _call(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(sorted(NAMES)).flatmap(
        lambda call: _event("tool_call", call=st.just(call), name=st.just(NAMES[call]), **members)
    )


_FILES = st.sampled_from(
    [
        {"name": "a[1].png", "mime": "image/png", "data": "aGk="},
        {"name": "b.png", "mime": "image/png", "path": "https://example.com/b.png"},
        {"name": "r.pdf", "mime": "application/pdf", "data": "aGk="},
    ]
).map(lambda file: {"type": "file", **file})

_PIECES = st.sampled_from(['{"a":', "1}", '{"a":1}', "{}", ""])

EVENTS = st.one_of(
    _event("reasoning", text=TEXTS),
    _event("reasoning", text=TEXTS),
    _call(arguments=st.sampled_from([{}, {"city": "Oslo"}])),
    _call(delta=_PIECES),
    _event("tool_result", call=st.sampled_from([*NAMES, "nobody"]), content=st.just("12")),
    _FILES,
    _event("status", text=TEXTS),
    _event("state", value=st.just(1)),
    _event("usage", input_tokens=st.just(1)),
    _event("x-mine", more=st.just([1])),
)


def _calls() -> st.SearchStrategy[Any]:
    arguments = st.sampled_from(["{}", '{"a":1}', {"a": 1}, "no JSON", 7])
    ids = st.sampled_from([*NAMES, "c9"])
    made = st.builds(
        lambda call, arguments: {
            "id": call,
            "type": "function",
            "function": {"name": NAMES.get(call, "weather"), "arguments": arguments},
        },
        ids,
        arguments,
    )
    return st.lists(made, max_size=2, unique_by=lambda call: call["id"])


MESSAGES = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none() | TEXTS | st.just(["a", {"type": "text", "text": "b"}]),
    },
    optional={"reasoning_content": st.none() | TEXTS, "tool_calls": _calls()},
)

_ASKS = b'[{"id":"a1","reason":"r","message":"Which day?"},{"id":"a2","reason":"r","message":""}]'
_USAGES = st.sampled_from(
    [
        None,
        b'{"input_tokens":7}',
        b'{"input_tokens":7,"output_tokens":3}',
        b'{"input_tokens":7,"output_tokens":3,"cached_input_tokens":2,"reasoning_tokens":1}',
    ]
)
OUTCOMES = st.none() | st.builds(
    lambda finish, usage: check_outcome(
        Outcome(finish, usage, _ASKS if finish == "input_required" else None)
    ),
    st.sampled_from(
        [None, "stop", "length", "refused", "tool_calls", "tool_calls", "input_required"]
    ),
    _USAGES,
)


def encoded(word: Any) -> bytes:
    return json.dumps(word, ensure_ascii=False).replace("\u2028", "\\u2028").encode()


def allowed(words: Sequence[Any]) -> list[bytes]:
    """Those of the words that the wire lets pass."""
    known, found = RequestEvents(), []
    for word in words:
        if not isinstance(word, str):
            try:
                known.add(encoded(word))
            except EventError:
                continue
        found.append(encoded(word))
    return found


def _said(words: list[Any], message: Any, outcome: Outcome | None, cuts: list[int]) -> Said:
    result = None if message is None else encoded(message)
    return Said(allowed(words), outcome, result, cuts)


_CUTS = st.lists(st.integers(1, 8), max_size=3, unique=True)

ANSWERS = st.one_of(
    st.builds(_said, st.lists(EVENTS | TEXTS, max_size=8), st.none(), OUTCOMES, _CUTS),
    st.builds(_said, st.lists(EVENTS, max_size=6), MESSAGES, OUTCOMES, _CUTS),
)
"""By the wire's rules: either chunks among the events, or a message after them."""
