"""Runs of AG-UI: the protocol's types accept every event, and its rules the order of events."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from gateway.errors import AgentFailed, Cancelled, InvalidAgentResponse, WorkerCrashed
from gateway.exchange import MAX_HELD_PER_REQUEST
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
from protocol import Outcome
from protocol.framing import MAX_LINE_BYTES
from tests.unit.ag_ui import (
    HISTORY,
    OUTCOMES,
    REQUESTS,
    RESULTS,
    TOOLS,
    USER,
    WORDS,
    Order,
    allowed,
    begin,
    events_of,
    ran,
    words_of,
)
from tests.unit.conftest import unhurried

ANSWER = [{"interruptId": "a1", "status": "resolved", "payload": True}]


def call(call: str = "c1", name: str = "weather", **members: Any) -> dict[str, Any]:
    if not members:
        members = {"arguments": {"city": "Oslo"}}
    return {"type": "tool_call", "call": call, "name": name, **members}


def returned(call: str = "c1", content: Any = "12 °C", **members: Any) -> dict[str, Any]:
    return {"type": "tool_result", "call": call, "content": content, **members}


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [each["type"] for each in events]


def of_kind(events: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in events if each["type"] == kind]


def outcome_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    assert events[-1]["type"] == "RUN_FINISHED"
    found: dict[str, Any] = events[-1]["outcome"]
    return found


# In every order


@given(REQUESTS, st.lists(st.lists(WORDS, max_size=6), max_size=4), OUTCOMES, RESULTS)
@unhurried
def test_whatever_an_agent_says_is_a_run_in_order(
    members: dict[str, Any],
    said: list[list[Any]],
    outcome: Outcome | None,
    result: bytes | None,
) -> None:
    words = list(allowed([word for batch in said for word in batch]))
    half = len(words) // 2
    events = ran(words[:half], words[half:], outcome=outcome, result=result, **members)
    known = ["old", "done"] if len(members["messages"]) > 1 else []
    order = Order(known)
    order.check(events)
    if pending := outcome_of(events).get("pendingToolCallIds"):
        named = {
            each["toolCallId"]: each["toolCallName"] for each in of_kind(events, "TOOL_CALL_START")
        }
        assert {named.get(each, "weather") for each in pending} <= {"weather", "clock"}
    if outcome_of(events)["type"] == "success":
        # What nobody is to make must not look like a call that is left to the client.
        shown = {each["toolCallId"] for each in of_kind(events, "TOOL_CALL_START")}
        answered = {each["toolCallId"] for each in of_kind(events, "TOOL_CALL_RESULT")}
        assert shown - answered <= set(outcome_of(events)["pendingToolCallIds"])


RUNS = st.tuples(REQUESTS, st.lists(WORDS, max_size=6), OUTCOMES, RESULTS).map(
    lambda run: ran(list(allowed(run[1])), outcome=run[2], result=run[3], **run[0])
)


def is_between(events: Sequence[dict[str, Any]], inner: str, first: str, last: str) -> bool:
    told = kinds(events)
    if not {inner, first, last} <= set(told):
        return False
    return told.index(first) < told.index(inner) < told.index(last)


HARD: dict[str, Callable[[Sequence[dict[str, Any]]], bool]] = {
    "two calls left to the client": lambda events: (
        len(outcome_of(events).get("pendingToolCallIds", [])) > 1
    ),
    "a question about a call": lambda events: any(
        "toolCallId" in each for each in outcome_of(events).get("interrupts", [])
    ),
    "text while a call is told": lambda events: is_between(
        events, "TEXT_MESSAGE_CONTENT", "TOOL_CALL_START", "TOOL_CALL_END"
    ),
    "a patch within a step": lambda events: is_between(
        events, "STATE_DELTA", "STEP_STARTED", "STEP_FINISHED"
    ),
    "a state within reasoning": lambda events: is_between(
        events, "STATE_SNAPSHOT", "REASONING_MESSAGE_START", "REASONING_MESSAGE_END"
    ),
    "an id that the conversation had": lambda events: any(
        each["toolCallId"].startswith("call_") for each in of_kind(events, "TOOL_CALL_START")
    ),
}


def test_the_runs_that_are_tried_reach_what_is_hard() -> None:
    missing = dict(HARD)

    @seed(1)
    @settings(unhurried, max_examples=1000, phases=[Phase.generate], database=None)
    @given(RUNS)
    def look(events: list[dict[str, Any]]) -> None:
        for name in [name for name, is_reached in missing.items() if is_reached(events)]:
            del missing[name]

    look()
    assert not missing


@given(REQUESTS, st.lists(WORDS, max_size=12))
@unhurried
def test_a_run_may_fail_at_any_time(members: dict[str, Any], said: list[Any]) -> None:
    codec, exchange = begin(**members)
    stream = codec.stream(exchange)
    words = list(allowed(said))
    told = stream.chunks(words) if words else b""
    exchange.add_words(words, 0.0)
    events = events_of(told + stream.error(AgentFailed("no luck")))
    Order(["old", "done"] if len(members["messages"]) > 1 else []).check(events)
    assert (events[-1]["message"], events[-1]["code"]) == ("no luck", "agent_error")


@given(st.lists(WORDS, max_size=12))
@unhurried
def test_a_run_that_was_cancelled_closes_what_is_open(said: list[Any]) -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    words = list(allowed(said))
    told = stream.chunks(words) if words else b""
    events = events_of(told + stream.error(Cancelled()))
    Order().check(events)
    assert outcome_of(events) == {"type": "cancelled"}


# Text and reasoning


def test_an_answer_is_one_message_in_pieces() -> None:
    events = ran(words_of("It ", "is\n"), words_of("12 °C\u2028"), outcome=Outcome("stop"))
    assert kinds(events) == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        *["TEXT_MESSAGE_CONTENT"] * 3,
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert [each["delta"] for each in of_kind(events, "TEXT_MESSAGE_CONTENT")] == [
        "It ", "is\n", "12 °C\u2028",
    ]  # fmt: skip
    assert len({each["messageId"] for each in events[1:-1]}) == 1
    assert events[0] == {
        "type": "RUN_STARTED", "threadId": "t", "runId": "r", "protocolVersion": "1.0",
    }  # fmt: skip
    assert outcome_of(events) == {"type": "success", "pendingToolCallIds": []}


def test_one_message_is_a_run_as_well() -> None:
    message = b'{"role":"assistant","content":"Hi","reasoning_content":"hm"}'
    events = ran(result=message)
    assert [each["delta"] for each in events if "delta" in each] == ["hm", "Hi"]


def test_an_answer_without_a_word_is_a_run() -> None:
    assert kinds(ran()) == ["RUN_STARTED", "RUN_FINISHED"]


def test_chunks_that_come_together_are_few_events() -> None:
    events = ran(words_of(*"x" * 1000))
    assert len(of_kind(events, "TEXT_MESSAGE_CONTENT")) <= MAX_EVENTS_AT_ONCE


def test_reasoning_is_a_message_of_its_own() -> None:
    thought = {"type": "reasoning", "text": "hm"}
    events = ran(words_of(thought, thought, "Done."))
    assert kinds(events)[1:8] == [
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
    ]


# Tool calls


def test_a_call_of_the_agents_own_is_shown_with_its_result() -> None:
    events = ran(words_of("Let me see. ", call("s1", "search"), returned("s1", {"pages": 3}), "3."))
    assert kinds(events)[3:7] == [
        "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END",
    ]  # fmt: skip
    [start] = of_kind(events, "TOOL_CALL_START")
    first, second = of_kind(events, "TEXT_MESSAGE_START")
    assert start["parentMessageId"] == first["messageId"] != second["messageId"]
    [result] = of_kind(events, "TOOL_CALL_RESULT")
    assert (result["toolCallId"], result["content"]) == ("s1", '{"pages": 3}')
    assert outcome_of(events)["pendingToolCallIds"] == []


def test_a_call_of_the_clients_is_pending() -> None:
    said = words_of(call("c1", delta='{"a"'), call("c1", delta=":1}"), call("c2", "search"))
    events = ran(said, tools=TOOLS, outcome=Outcome("tool_calls"))
    assert outcome_of(events) == {"type": "success", "pendingToolCallIds": ["c1"]}
    assert [each["delta"] for each in of_kind(events, "TOOL_CALL_ARGS")][:2] == ['{"a"', ":1}"]
    # Calls of one turn belong to one message.
    assert len({each["parentMessageId"] for each in of_kind(events, "TOOL_CALL_START")}) == 1


@pytest.mark.parametrize("finish", ["stop", "length", None])
def test_a_call_that_nobody_is_to_make_has_a_result_at_the_end(finish: str | None) -> None:
    events = ran(words_of(call()), tools=TOOLS, outcome=Outcome(finish))
    assert outcome_of(events)["pendingToolCallIds"] == []
    [result] = of_kind(events, "TOOL_CALL_RESULT")
    assert (result["toolCallId"], result["content"]) == ("c1", "")


def test_a_call_in_a_message_is_pending() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": name, "arguments": "{}"}}
            for name in ("weather", "search")
        ],
    }
    events = ran(result=json.dumps(message).encode(), tools=TOOLS)
    assert outcome_of(events)["pendingToolCallIds"] == ["c1"]


def test_a_tool_of_the_agents_own_may_fail() -> None:
    [result] = of_kind(ran(words_of(call(), returned(is_error=True))), "TOOL_CALL_RESULT")
    assert result["metadata"] == {"is_error": True}


def test_what_is_said_of_a_call_after_its_result_is_dropped() -> None:
    said = words_of(call(delta="{}"), returned(), call(delta="}"), returned(), returned("nobody"))
    events = ran(said)
    assert len(of_kind(events, "TOOL_CALL_ARGS")) == len(of_kind(events, "TOOL_CALL_RESULT")) == 1


def test_arguments_that_were_never_told_are_none() -> None:
    [arguments] = of_kind(ran(words_of(call(delta=""))), "TOOL_CALL_ARGS")
    assert arguments["delta"] == "{}"


def test_an_id_that_the_conversation_has_already_is_not_used_again() -> None:
    events = ran(
        words_of(call("old"), call("done", "search"), returned("done")),
        messages=[USER, *HISTORY],
        tools=TOOLS,
        outcome=Outcome("tool_calls"),
    )
    starts = of_kind(events, "TOOL_CALL_START")
    assert not {"old", "done"} & {each["toolCallId"] for each in starts}
    assert outcome_of(events)["pendingToolCallIds"] == [starts[0]["toolCallId"]]


def test_an_agent_goes_on_with_a_call_after_a_question() -> None:
    events = ran(words_of(call("old"), returned("old")), messages=[USER, *HISTORY], resume=ANSWER)
    assert kinds(events) == ["RUN_STARTED", "TOOL_CALL_RESULT", "RUN_FINISHED"]
    again = ran(words_of(returned("old")), messages=[USER, *HISTORY], resume=ANSWER)
    assert kinds(again) == kinds(events)


def test_an_agent_hands_over_a_call_after_a_question() -> None:
    events = ran(
        words_of(call("old")), messages=[USER, *HISTORY], resume=ANSWER, tools=TOOLS,
        outcome=Outcome("tool_calls"),
    )  # fmt: skip
    assert kinds(events) == ["RUN_STARTED", "RUN_FINISHED"]
    assert outcome_of(events)["pendingToolCallIds"] == ["old"]


# How it ended


def test_questions_are_interrupts() -> None:
    asks = (
        b'[{"id":"a1","reason":"confirm","message":"Sure?","schema":{"type":"boolean"},'
        b'"call":"c1"}]'
    )
    events = ran(words_of(call()), outcome=Outcome("input_required", None, asks), tools=TOOLS)
    [interrupt] = outcome_of(events)["interrupts"]
    assert interrupt == {
        "id": "a1",
        "reason": "confirm",
        "message": "Sure?",
        "responseSchema": {"type": "boolean"},
        "toolCallId": "c1",
    }
    assert not of_kind(events, "TOOL_CALL_RESULT")  # it waits for the answer


def test_a_question_may_be_about_a_call_of_an_earlier_run() -> None:
    asks = b'[{"id":"a2","reason":"confirm","message":"Sure?","call":"old"}]'
    events = ran(
        messages=[USER, *HISTORY], resume=ANSWER, outcome=Outcome("input_required", None, asks)
    )
    assert outcome_of(events)["interrupts"][0]["toolCallId"] == "old"


def test_usage_has_the_names_of_the_protocol() -> None:
    usage = b'{"input_tokens":7,"cached_input_tokens":2,"seconds":5}'
    events = ran(words_of("Hi"), outcome=Outcome("length", usage, None))
    assert events[-1]["usage"] == [{"inputTokens": 7, "cachedInputTokens": 2}]
    assert events[-1]["metadata"] == {"finish": "length"}
    assert "usage" not in ran(words_of("Hi"))[-1]


def test_a_failure_says_what_was_used_until_then() -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    words = words_of("so far", {"type": "usage", "output_tokens": 3})
    exchange.add_words(words, 0.0)
    told = stream.chunks(words)
    *_, failed = events_of(told + stream.error(WorkerCrashed("it died", signal="SIGKILL")))
    assert failed["usage"] == [{"outputTokens": 3}]
    details = {"request_id": "r-1", "signal": "SIGKILL", "output_begun": True}
    assert failed["metadata"] == details


def test_a_client_that_says_no_version_gets_no_word_that_older_ones_refuse() -> None:
    events = ran(
        words_of(call(), call("c2", "search")),
        tools=TOOLS,
        protocolVersion=None,
        outcome=Outcome("tool_calls"),
    )
    assert outcome_of(events) == {"type": "success"}
    # It takes what has no result for what it is to make.
    assert [each["toolCallId"] for each in of_kind(events, "TOOL_CALL_RESULT")] == ["c2"]
    codec, exchange = begin(protocolVersion=None)
    cancelled = events_of(codec.stream(exchange).error(Cancelled()))[-1]
    assert (cancelled["type"], cancelled["code"]) == ("RUN_ERROR", "cancelled")


# What else there is


def test_a_state_is_a_snapshot_or_a_patch() -> None:
    patch = [{"op": "replace", "path": "/step", "value": 2}]
    said = words_of({"type": "state", "value": {"step": 1}}, {"type": "state", "patch": patch})
    _, snapshot, delta, _ = ran(said)
    assert (snapshot["type"], snapshot["snapshot"]) == ("STATE_SNAPSHOT", {"step": 1})
    assert (delta["type"], delta["delta"]) == ("STATE_DELTA", patch)


@pytest.mark.parametrize(
    "patch",
    [
        [1],
        [{"op": "grow", "path": "/a"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "remove", "path": "a"}],
        [{"op": "move", "path": "/a"}],
        [{"op": "move", "from": "", "path": "/a"}],
        [{"op": "move", "from": "/a", "path": "/a/0"}],
        [{"op": "test", "path": "/~2", "value": 1}],
    ],
)
def test_a_patch_that_is_none_ends_the_run_with_an_error(patch: Any) -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    told = stream.chunks(words_of("so far", {"type": "state", "patch": patch}))
    assert isinstance(exchange.error, InvalidAgentResponse)
    assert stream.chunks(words_of("more")) == b""
    *_, failed = events_of(told + stream.end(None))
    assert (failed["type"], failed["code"]) == ("RUN_ERROR", "invalid_agent_response")
    assert "RFC 6902" in failed["message"]


def test_a_status_is_a_step_until_the_next_one() -> None:
    def at(text: str, **members: Any) -> dict[str, Any]:
        return {"type": "status", "text": text, **members}

    events = ran(words_of(at("Look"), at("Look", progress=1, total=2), at("Write"), at("")))
    told = [(each["type"], each.get("stepName") or each.get("value")) for each in events[1:-1]]
    assert told == [
        ("STEP_STARTED", "Look"),
        ("CUSTOM", at("Look", progress=1, total=2)),
        ("STEP_FINISHED", "Look"),
        ("STEP_STARTED", "Write"),
        ("STEP_FINISHED", "Write"),
    ]


def test_files_and_events_of_the_agents_own_are_custom_events() -> None:
    file = {"type": "file", "name": "a.txt", "mime": "text/plain", "data": "aGk="}
    own = {"type": "x-mine", "a": ["\u2028"]}
    first, second = of_kind(ran(words_of(file, own)), "CUSTOM")
    assert (first["name"], second["name"]) == ("file", "x-mine")
    assert first["value"] == file
    assert second["value"] == own


LONG = MAX_LINE_BYTES - 200


@pytest.mark.parametrize(
    "word",
    [
        {"type": "file", "name": "a", "mime": "a/b", "data": "aaaa" * (LONG // 4)},
        {"type": "tool_call", "call": "c1", "name": "a", "arguments": {"a": '"' * 500_000}},
        {"type": "tool_result", "call": "c1", "content": ['"' * 500_000]},
        {"type": "state", "value": "\u2028" * 300_000},
        {"type": "x-mine", "a": "\u2028" * 300_000},
        {"type": "reasoning", "text": "\u2028" * 300_000},
    ],
    ids=lambda word: word["type"],
)
def test_the_longest_events_are_held_within_the_bound(word: dict[str, Any]) -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    stream.chunks(words_of(call(name="a", delta="{}")))
    words = words_of(word if word["type"] != "tool_call" else {**word, "call": "c2"})
    tracemalloc.start()
    try:
        told = stream.chunks(words)
        assert len(told) > len(words[0]) / 2
        assert tracemalloc.get_traced_memory()[1] + len(words[0]) < MAX_HELD_PER_REQUEST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("letter", ["x", "\u2028"])
def test_the_longest_message_is_held_within_the_bound(letter: str) -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    size = len(letter.encode())
    message = {"role": "assistant", "content": letter * (LONG // size)}
    result = json.dumps(message, ensure_ascii=False).encode()
    exchange.end(result, None)
    tracemalloc.start()
    try:
        told = stream.end(result)
        assert len(told) > LONG
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_HELD_PER_REQUEST
    finally:
        tracemalloc.stop()


def test_a_silent_run_has_begun_with_its_first_comment() -> None:
    codec, exchange = begin()
    stream = codec.stream(exchange)
    told = stream.keep_alive()
    assert told.endswith(b"\n\n: keep-alive\n\n")
    assert kinds(events_of(told + stream.keep_alive() + stream.chunks(words_of("Hi")))) == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
    ]  # fmt: skip


def test_a_whole_answer_is_the_same_stream() -> None:
    codec, exchange = begin(parentRunId="r0")
    exchange.end(b'{"role":"assistant","content":"Hi"}', None)
    response = codec.encode(exchange, [])
    assert dict(response.headers)[b"content-type"] == b"text/event-stream"
    events = events_of(response.body)
    assert events[0]["parentRunId"] == "r0"
    assert kinds(events)[-1] == "RUN_FINISHED"
