"""Events of a worker that means harm: whatever it writes, the gateway's end keeps its promises."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import Chunk, End, Event, Failure, Malformed, Result, Violation
from protocol.events import MAX_CALLS, MAX_COUNT, EventError, RequestEvents, read_event

from .helpers import gateway, request_line
from .test_events import LEGAL

ASKED, UNASKED, NEVER = 1, 2, 3
"""Requests: with events, without, and one that was never sent."""

NUMBERS = st.sampled_from(
    [b"0", b"7", b"-1", b"1e999", b"0.5", b'"7"', b"null", b"true", b"9007199254740992", b"1" * 400]
)
IDS = st.sampled_from(["c1", "c2", "", "x" * 129])
TEXTS = st.sampled_from(["", "text", "\u2028", "x" * 5000])
EVENTS = st.one_of(
    st.builds(lambda text: {"type": "reasoning", "text": text}, TEXTS),
    st.builds(
        lambda call, name, part: {"type": "tool_call", "call": call, "name": name, **part},
        IDS,
        st.sampled_from(["a", "b"]),
        st.sampled_from([{"arguments": {}}, {"delta": '{"a"'}, {}, {"arguments": {}, "delta": ""}]),
    ),
    st.builds(lambda call: {"type": "tool_result", "call": call, "content": None}, IDS),
    st.builds(lambda text: {"type": "status", "text": text}, TEXTS),
    st.sampled_from(
        [
            {"type": "x-a", "deep": [[[[{}]]]]},
            {"type": "x-"},
            {"type": "thought"},
            {"type": ["reasoning"]},
            {"text": "no type"},
            {},
            [],
            "text",
            None,
            {"type": "file", "name": "a", "mime": "a/b", "data": "aGk="},
            {"type": "file", "name": "a", "mime": "a/b", "data": "?"},
            {"type": "file", "name": "a", "mime": "ab", "path": "p"},
            {"type": "state", "patch": []},
            {"type": "state", "patch": {}, "value": 1},
        ]
    ),
).map(msgspec.json.encode) | NUMBERS.map(b'{"type":"usage","input_tokens":%b}'.__mod__)

USAGES = NUMBERS.map(b'"usage":{"input_tokens":%b}'.__mod__)
ASKS = st.sampled_from(
    [b'"asks":[{"id":"a","reason":"r","message":"m"}]', b'"asks":[]', b'"asks":[{"id":"a"}]']
)
FINISHES = st.sampled_from([b'"finish":"stop"', b'"finish":"input_required"', b'"finish":7'])
USAGE_EVENTS = [b'{"type":"usage","input_tokens":%d}' % count for count in range(6)]
LEGAL_RESULTS = [
    b'{"finish":"input_required","asks":[{"id":"a","reason":"r","message":"m"}]}',
    b'{"output":1,"finish":"stop","usage":{"input_tokens":7}}',
    b'{"usage":{"a":0}}',
]
RESULTS = st.sampled_from(LEGAL_RESULTS) | st.lists(
    st.one_of(USAGES, ASKS, FINISHES, st.just(b'"output":1')), max_size=3
).map(lambda members: b"{%b}" % b",".join(members))
REQUESTS = st.sampled_from([ASKED] * 12 + [UNASKED] * 3 + [NEVER])
LINES = st.one_of(
    *(
        st.builds(b'{"method":"event","params":{"id":%d,"event":%b}}'.__mod__, line)
        for line in (
            st.tuples(REQUESTS, EVENTS),
            *[st.tuples(REQUESTS, st.sampled_from(LEGAL * 2 + USAGE_EVENTS))] * 3,
        )
    ),
    REQUESTS.map(b'{"method":"chunk","params":{"id":%d,"chunk":"a"}}'.__mod__),
    st.builds(b'{"id":%d,"result":%b}'.__mod__, st.tuples(REQUESTS, RESULTS)),
)

MOST = settings(max_examples=500, deadline=None, derandomize=True)
"""The same examples every time: which states are reached is no matter of luck."""

seen: Counter[str] = Counter()
"""What was reached, by name: a strategy that reaches nothing proves nothing."""


def connection_with_both() -> Any:
    connection = gateway(ids=itertools.count(1))
    for events in (True, False):
        request_line(connection, "invoke", b"1", stream=True, request_id="r", events=events)
    return connection


def told_by(reads: list[bytes]) -> list[Any]:
    connection = connection_with_both()
    told = [event for read in reads for event in connection.receive_data(read)]
    return [
        (each.id, each.error.violation) if isinstance(each, Malformed) else each for each in told
    ]


@MOST
@given(st.lists(LINES, max_size=12), st.integers(1, 4000))
def check_promises(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    told = told_by([data])
    assert told == told_by([data[at : at + size] for at in range(0, len(data), size)])
    ended: set[int | None] = set()
    rules = RequestEvents()
    for each in told:
        if isinstance(each, Event):
            assert each.id == ASKED, "events come only for who asked"
            assert ASKED not in ended
            rules.add(each.event)  # what passed one end passes any reader
            seen[type(read_event(each.event)).__name__] += 1
        elif isinstance(each, Chunk):
            assert each.id not in ended
        elif isinstance(each, Result | End | Failure):
            assert each.id not in ended
            ended.add(each.id)
            outcome = each.outcome if not isinstance(each, Failure) else None
            if outcome is not None:
                assert each.id == ASKED
                check_outcome_is_usable(outcome)
        else:
            request_id, violation = each
            assert request_id not in ended or request_id is None
            ended.add(request_id)
            if violation is Violation.UNKNOWN_ID:
                assert each is told[-1], "nothing is read after what cannot be placed"
            seen[violation.value] += 1


def check_outcome_is_usable(outcome: Any) -> None:
    if outcome.usage is not None:
        counts = msgspec.json.decode(outcome.usage)
        assert all(type(n) is int and 0 <= n <= MAX_COUNT for n in counts.values())
        seen["usage in an outcome"] += 1
    if outcome.asks is not None:
        assert outcome.finish == "input_required"
        assert all(ask["id"] and ask["message"] for ask in msgspec.json.decode(outcome.asks))
        seen["asks in an outcome"] += 1


def test_whatever_a_worker_writes_of_events_the_promises_are_kept() -> None:
    seen.clear()
    check_promises()
    for state in (
        "Reasoning",
        "ToolCall",
        "ToolResult",
        "Status",
        "File",
        "State",
        "UsageSoFar",
        "Custom",
        Violation.WRONG_SHAPE,
        Violation.EVENT_AFTER_END,
        Violation.CHUNK_AFTER_END,
        Violation.SECOND_RESULT,
        Violation.UNKNOWN_ID,
        Violation.RESULT_AFTER_CHUNKS,
        "usage in an outcome",
        "asks in an outcome",
    ):
        assert seen[state], f"{state} was reached {seen[state]} times: {seen}"


PARTS = st.tuples(
    st.integers(0, 3), st.sampled_from(["a", "b"]), st.sampled_from(["whole", "piece"])
)


@settings(deadline=None)
@given(st.lists(PARTS, max_size=20))
def test_a_call_that_passes_is_one_name_and_either_whole_or_in_pieces(
    parts: list[tuple[int, str, str]],
) -> None:
    """Against a model: what a reader of the events puts together is never contradictory."""
    rules = RequestEvents()
    names: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for number, name, kind in parts:
        call = f"c{number}"
        part: dict[str, Any] = {"arguments": {}} if kind == "whole" else {"delta": "x"}
        event = msgspec.json.encode({"type": "tool_call", "call": call, "name": name, **part})
        may = call not in names or (names[call] == name and kinds[call] == kind == "piece")
        if may:
            rules.add(event)
            names[call], kinds[call] = name, kind
        else:
            with pytest.raises(EventError):
                rules.add(event)


def test_pieces_without_end_are_no_more_calls_than_may_be_remembered() -> None:
    rules = RequestEvents()
    for number in range(MAX_CALLS):
        for _ in range(2):
            rules.add(b'{"type":"tool_call","call":"c%d","name":"a","delta":"x"}' % number)
    with pytest.raises(EventError, match="more than 1024 tool calls"):
        rules.add(b'{"type":"tool_call","call":"more","name":"a","delta":"x"}')
