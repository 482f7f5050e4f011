"""Answers as Anthropic's messages, each the same whether it is told whole or as a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import (
    InvalidAgentResponse,
)
from gateway.front.anthropic.dialect import MessagesCodec
from gateway.front.chats import calls
from protocol import Outcome
from tests.unit.anthropic import (
    CALL,
    CALLS,
    FILE,
    OWN,
    RESULT,
    STATUS,
    SUN,
    USAGE,
    answered,
    begin,
    both,
    content_of,
    events_of,
    put_together,
    streamed,
    words_of,
)


def test_a_message_is_the_text_of_its_chunks() -> None:
    answer = both("It ", "is\n", "12 °C.\u2028", outcome=Outcome("stop", USAGE, None))
    assert content_of(answer) == [{"type": "text", "text": "It is\n12 °C.\u2028"}]
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", "bot", "assistant")
    assert answer.stop_sequence is None
    assert answer.usage.to_dict() == {"input_tokens": 7, "output_tokens": 3}


def test_a_result_is_a_message_as_well() -> None:
    message = b'{"role":"assistant","content":"Hi","reasoning_content":"hm"}'
    assert content_of(both(result=message)) == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Hi"},
    ]
    assert content_of(both(SUN, STATUS, result=message)) == [
        {"type": "thinking", "thinking": "Sun?hm", "signature": ""},
        {"type": "text", "text": "Hi"},
    ]


def test_every_kind_of_word_is_a_block_of_its_own_in_order() -> None:
    answer = both(SUN, "a", STATUS, "b", SUN, OWN, SUN, "c", FILE, CALL, outcome=CALLS)
    assert content_of(answer) == [
        {"type": "thinking", "thinking": "Sun?", "signature": ""},
        {"type": "text", "text": "ab"},
        {"type": "thinking", "thinking": "Sun?Sun?", "signature": ""},
        {"type": "text", "text": "c\n[a.txt](/a.txt)\n"},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
    ]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "thinking", [{"type": "disabled"}, {"type": "adaptive", "display": "omitted"}]
)
def test_thoughts_that_are_not_wanted_are_not_told(thinking: Any) -> None:
    message = b'{"role":"assistant","content":"b","reasoning_content":"hm"}'
    answer = both(SUN, "a", result=message, thinking=thinking)
    assert content_of(answer) == [{"type": "text", "text": "ab"}]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (None, "end_turn"),
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("refused", "refusal"),
        ("tool_calls", "end_turn"),
    ],
)
def test_the_finish_is_told_in_anthropics_words(finish: str | None, reason: str) -> None:
    assert both("x", outcome=Outcome(finish, None, None)).stop_reason == reason


def test_a_question_is_a_paragraph_and_an_end_like_others() -> None:
    asks = [{"id": "a", "reason": "r", "message": message} for message in ("Which day?", "Why?")]
    outcome = Outcome("input_required", None, json.dumps(asks).encode())
    answer = both("One thing.", outcome=outcome)
    assert content_of(answer) == [{"type": "text", "text": "One thing.\n\nWhich day?\n\nWhy?"}]
    assert answer.stop_reason == "end_turn"
    assert content_of(both(SUN, outcome=outcome))[1] == {
        "type": "text",
        "text": "Which day?\n\nWhy?",
    }


def test_an_answer_without_a_word_is_an_empty_text() -> None:
    for answer in (both(), both(OWN), both(result=b'{"role":"assistant","content":null}')):
        assert content_of(answer) == [{"type": "text", "text": ""}]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (None, {"input_tokens": 0, "output_tokens": 0}),
        (b'{"input_tokens":7}', {"input_tokens": 0, "output_tokens": 0}),
        (
            b'{"input_tokens":7,"output_tokens":3,"cached_input_tokens":5,"reasoning_tokens":2}',
            {
                "input_tokens": 2,
                "output_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 5,
                "output_tokens_details": {"thinking_tokens": 2},
            },
        ),
        (
            b'{"input_tokens":7,"output_tokens":3,"cached_input_tokens":9}',
            {
                "input_tokens": 0,
                "output_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 7,
            },
        ),
    ],
)
def test_usage_is_told_in_numbers(usage: bytes | None, told: Any) -> None:
    assert both("x", outcome=Outcome("stop", usage, None)).usage.to_dict() == told


# Tools
def test_a_call_of_the_clients_tool_is_told_at_the_end() -> None:
    text = json.dumps({"city": "Oslo"})
    pieces = [{"type": "tool_call", "call": "c1", "name": "weather", "delta": piece}
              for piece in (text[:5], text[5:])]  # fmt: skip
    events = streamed(words_of(pieces[0], "a"), words_of(pieces[1]), outcome=CALLS)
    answer = put_together(events)
    assert content_of(answer) == content_of(both("a", CALL, outcome=CALLS))
    [delta] = [data["delta"] for name, data in events if "input_json_delta" in json.dumps(data)]
    assert json.loads(delta["partial_json"]) == {"city": "Oslo"}


def test_a_call_that_is_not_the_clients_is_not_told() -> None:
    for said, outcome in (
        ([CALL], Outcome("stop", None, None)),
        ([CALL, RESULT], CALLS),
        ([OWN], CALLS),
    ):
        answer = both(*said, outcome=outcome)
        assert content_of(answer) == [{"type": "text", "text": ""}]
        assert answer.stop_reason == "end_turn"
    assert content_of(both(CALL, outcome=CALLS, tools=False)) == [{"type": "text", "text": ""}]


def test_calls_in_a_message_are_the_clients() -> None:
    function = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": function},
            {"type": "function", "function": {"name": "clock"}},
        ],
    }
    answer = answered(result=json.dumps(message).encode())
    first, second = content_of(answer)
    assert first == {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}
    assert second["input"] == {}
    assert second["id"].startswith("call_")


@pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "{}x", "\\u0000"])
def test_arguments_that_are_no_object_make_the_answer_an_error(arguments: str) -> None:
    words = words_of({"type": "tool_call", "call": "c1", "name": "weather", "delta": arguments})
    with pytest.raises(InvalidAgentResponse, match="'c1' of the client's tool 'weather'"):
        answered(words, CALLS)
    *_, (name, data) = streamed(words_of("a"), words, outcome=CALLS)
    assert name == "error"
    assert data["error"]["details"]["error_code"] == "invalid_agent_response"


def test_arguments_may_come_in_any_number_of_short_pieces() -> None:
    pieces = ['{"city":"', *["x"] * 10_000, '"}']
    said = [
        {"type": "tool_call", "call": "c1", "name": "weather", "delta": each} for each in pieces
    ]
    message = put_together(streamed(words_of(*said), outcome=CALLS))
    assert content_of(message)[0]["input"] == {"city": "x" * 10_000}


def test_more_arguments_than_can_be_held_end_the_stream_with_an_error() -> None:
    piece = {"type": "tool_call", "call": "c1", "name": "weather", "delta": "x" * 1000}
    codec = MessagesCodec()
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    words = words_of(piece)
    for _ in range(calls.MAX_HELD // 1000 + 1):
        stream.chunks(words)
    assert isinstance(stream.failure, InvalidAgentResponse)
    assert exchange.error is stream.failure
    assert stream.chunks(words) == b""
    [(name, _)] = events_of(stream.end(None))
    assert name == "error"
