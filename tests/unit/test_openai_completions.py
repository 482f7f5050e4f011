"""Answers as chat completions: every chunk is one that OpenAI's types accept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    AgentFailed,
    InvalidAgentResponse,
)
from gateway.front.chats import calls
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
from gateway.front.openai.dialect import ChatCodec, ResponseCodec
from gateway.front.openai.memory import Memory
from protocol import Outcome
from tests.unit.conftest import unhurried
from tests.unit.openai_answers import (
    ANSWERED,
    CALLS,
    IMAGE,
    INVENTED,
    OWN,
    PIECES,
    REASONING,
    REPORT,
    RESULT,
    STATUS,
    TEXT,
    USAGE,
    WEATHER,
    begin,
    chunks_of,
    completed,
    deltas,
    responded,
    streamed,
    words_of,
)


def test_a_completion_is_the_text_of_its_chunks() -> None:
    answer = completed(words_of("It ", "is\n", "12 °C."), Outcome("stop", USAGE, None))
    assert answer.choices[0].message.content == "It is\n12 °C."
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", "bot")
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
    }


def test_one_message_is_a_completion_as_well() -> None:
    message = b'{"role":"assistant","content":"Hi","reasoning_content":"hm"}'
    answer = completed(result=message)
    assert answer.choices[0].message.content == "Hi"
    assert answer.choices[0].message.model_extra == {"reasoning_content": "hm"}
    assert answer.usage is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"null", ""),
        (b'""', ""),
        (b'["a",{"type":"text","text":"b"}]', "ab"),
        (b'{"answer": 1}', '{"answer": 1}'),
        (b'[{"type":"image_url"}]', '[{"type":"image_url"}]'),
        (b"[]", ""),
    ],
)
def test_a_content_that_is_no_string_is_told_as_text(content: bytes, text: str) -> None:
    answer = completed(result=b'{"role":"assistant","content":%b}' % content)
    assert answer.choices[0].message.content == text


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (None, "stop"),
        ("stop", "stop"),
        ("length", "length"),
        ("refused", "content_filter"),
        ("tool_calls", "stop"),
    ],
)
def test_the_finish_is_told_in_openais_words(finish: str | None, reason: str) -> None:
    outcome = Outcome(finish, None, None)
    assert completed(words_of("x"), outcome).choices[0].finish_reason == reason
    assert streamed(words_of("x"), outcome=outcome)[-1].choices[0].finish_reason == reason


def test_chunks_are_one_event_each_and_the_finish_is_one_of_its_own() -> None:
    chunks = streamed(words_of("It ", "is\u2028"), words_of("12."))
    assert deltas(chunks) == [{"content": "It "}, {"content": "is\u2028"}, {"content": "12."}, {}]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize("model", ['a"b', "a\\", "a\u2028b", '","usage":null'])
def test_a_model_is_told_as_it_was_asked_for(model: str) -> None:
    stream_options = {"include_usage": True}
    outcome = Outcome("stop", USAGE, None)
    chunks = streamed(words_of("x"), outcome=outcome, model=model, stream_options=stream_options)
    assert {chunk.model for chunk in chunks} == {model}
    assert completed(words_of("x"), model=model).model == model
    assert responded(words_of("x"), model=model).model == model


def test_two_streams_have_ids_of_their_own() -> None:
    assert streamed(words_of("x"))[0].id != streamed(words_of("x"))[0].id


def test_usage_is_told_in_a_stream_when_asked_for_and_known() -> None:
    outcome = Outcome("stop", USAGE, None)
    asked = {"stream_options": {"include_usage": True}}
    assert all(chunk.usage is None for chunk in streamed(words_of("x"), outcome=outcome))
    assert all(chunk.usage is None for chunk in streamed(words_of("x"), **asked))
    *others, last = streamed(words_of("x"), outcome=outcome, **asked)
    assert all(chunk.usage is None for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 10


@pytest.mark.parametrize("usage", [b"{}", b'{"input_tokens":7}', b'{"output_tokens":3}'])
def test_half_a_usage_is_none(usage: bytes) -> None:
    assert completed(words_of("x"), Outcome("stop", usage, None)).usage is None


def test_reasoning_is_a_delta_of_its_own_and_a_status_is_a_comment() -> None:
    chunks = streamed(words_of(REASONING, STATUS, "x"))
    assert deltas(chunks) == [{"reasoning_content": "hm\u2028"}, {"content": "x"}, {}]
    codec = ChatCodec()
    part = codec.stream(begin(codec, stream=True)).chunks(words_of(STATUS))
    assert part.endswith(b'\n\n: "at\\nwork"\n\n')


def test_calls_of_the_clients_tools_are_handed_over_at_the_end() -> None:
    said = words_of(OWN, WEATHER, *PIECES)
    first, second = deltas(streamed(said, outcome=CALLS, tools=True))[:2]
    assert [first["tool_calls"], second["tool_calls"]] == [
        [
            {
                "index": 0,
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
        [
            {
                "index": 1,
                "id": "c2",
                "type": "function",
                "function": {"name": "clock", "arguments": '{"zone":1}'},
            }
        ],
    ]
    choice = completed(said, CALLS, tools=True).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [each.id for each in choice.message.tool_calls or ()] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("said", "outcome", "tools"),
    [
        ([OWN], CALLS, True),
        ([WEATHER], CALLS, False),
        ([WEATHER, RESULT], CALLS, True),
        ([PIECES[0], ANSWERED, PIECES[-1]], CALLS, True),
        ([*INVENTED, PIECES[0], ANSWERED, PIECES[-1]], CALLS, True),
        ([WEATHER], Outcome("stop", None, None), True),
        ([WEATHER], None, True),
    ],
)
def test_the_agents_own_calls_are_never_the_clients(said, outcome, tools) -> None:
    words = words_of(*said, "x")
    assert deltas(streamed(words, outcome=outcome, tools=tools)) == [{"content": "x"}, {}]
    choice = completed(words, outcome, tools=tools).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    response = responded(words, outcome, tools=tools)
    assert [item.type for item in response.output] == ["message"]


def test_a_call_in_a_message_that_the_agent_has_told_a_result_for_is_its_own() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    result = json.dumps({"role": "assistant", "content": "x", "tool_calls": [call]}).encode()
    choice = completed(words_of(WEATHER, RESULT), None, result, tools=True).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)


def test_calls_in_a_message_are_the_clients_if_their_tools_are() -> None:
    made = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        {"function": {"name": "clock", "arguments": {"a": 1}}},
        {"id": "own", "type": "function", "function": {"name": "search", "arguments": "{}"}},
    ]
    message = json.dumps({"role": "assistant", "content": None, "tool_calls": made}).encode()
    choice = completed(result=message, tools=True).choices[0]
    found = choice.message.model_dump()["tool_calls"]
    assert [each["function"] for each in found] == [
        {"name": "weather", "arguments": "{}"},
        {"name": "clock", "arguments": '{"a": 1}'},
    ]
    assert choice.finish_reason == "tool_calls"
    assert completed(result=message).choices[0].finish_reason == "stop"
    stopped = completed(result=message, outcome=Outcome("stop", None, None), tools=True)
    assert stopped.choices[0].message.tool_calls is None


MALFORMED_CALLS: list[Any] = [
    "weather",
    {"function": {"name": "weather"}},
    [{"id": "c1", "function": {"name": "weather", "arguments": "{}"}}, {"function": {}}],
    [{"id": 1, "function": {"name": "weather"}}],
    ["weather"],
    [{"type": "function"}],
    [{"function": {"name": "weather", "arguments": 7}}],
]


@pytest.mark.parametrize("made", MALFORMED_CALLS)
def test_a_malformed_call_in_a_message_is_an_error_of_the_agent(made: Any) -> None:
    message = {"role": "assistant", "content": "Hm", "tool_calls": made}
    result = json.dumps(message).encode()
    for ask in (completed, responded):
        with pytest.raises(InvalidAgentResponse, match="tool_calls") as caught:
            ask(result=result, tools=True)
        assert caught.value.status == 502
    assert completed(result=result).choices[0].finish_reason == "stop", "no tools, no calls"


@pytest.mark.parametrize("codec", [ChatCodec(), ResponseCodec(Memory())])
def test_a_malformed_call_at_the_end_of_a_stream_never_looks_whole(
    codec: ChatCodec | ResponseCodec,
) -> None:
    exchange = begin(codec, stream=True, tools=True)
    stream = codec.stream(exchange)
    stream.chunks(words_of("Hm"))
    result = b'{"role":"assistant","content":"","tool_calls":[{}]}'
    exchange.end(result, None)
    last = stream.end(result).decode()
    assert isinstance(stream.failure, InvalidAgentResponse)
    assert '"code":"invalid_agent_response"' in last
    assert "[DONE]" not in last
    assert "response.completed" not in last


def test_no_calls_for_the_client_in_a_message_are_none() -> None:
    for nothing in (b"null", b"[]", b'[{"type":"custom","custom":{"name":"weather"}}]'):
        result = b'{"role":"assistant","content":"Hi","tool_calls":%b}' % nothing
        choice = completed(result=result, tools=True).choices[0]
        assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)


def test_events_before_a_message_belong_to_it() -> None:
    message = b'{"role":"assistant","content":null}'
    choice = completed(words_of(REASONING, WEATHER), CALLS, message, tools=True).choices[0]
    assert choice.message.model_extra == {"reasoning_content": "hm\u2028"}
    assert len(choice.message.tool_calls or ()) == 1
    found = deltas(streamed(words_of(WEATHER), outcome=CALLS, result=message, tools=True))
    assert len(found) == 2


def test_a_question_is_the_end_of_the_text() -> None:
    asks = json.dumps([{"id": "a", "reason": "r", "message": "Which day?"}]).encode()
    outcome = Outcome("input_required", None, asks)
    assert completed((), outcome).choices[0].message.content == "Which day?"
    choice = completed(words_of("One thing."), outcome).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("One thing.\n\nWhich day?", "stop")
    assert deltas(streamed(words_of("One."), outcome=outcome))[1] == {"content": "\n\nWhich day?"}
    assert responded(words_of("One."), outcome).output_text == "One.\n\nWhich day?"


def test_a_file_is_a_link_in_the_text() -> None:
    text = completed(words_of(IMAGE, REPORT)).choices[0].message.content
    assert text == "\n![a(1).png](data:image/png;base64,aGk=)\n\n[r.pdf](/out/r.pdf)\n"


def test_an_error_in_a_stream_is_no_end() -> None:
    codec = ChatCodec()
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    part = stream.chunks(words_of("x"))
    exchange.output_begun = True
    last = stream.error(AgentFailed("no\u2028"))
    assert b"[DONE]" not in part + last
    assert len(last.decode().splitlines()) == 2
    assert json.loads(last.removeprefix(b"data: "))["error"] == {
        "message": "no\u2028",
        "type": "server_error",
        "param": None,
        "code": "agent_error",
        "request_id": "r-1",
        "output_begun": True,
    }


def test_more_arguments_than_can_be_held_end_the_stream_with_an_error() -> None:
    half = "x" * (calls.MAX_HELD // 2 + 1)
    piece = {"type": "tool_call", "call": "c", "name": "clock", "delta": half}
    codec = ChatCodec()
    exchange = begin(codec, stream=True, tools=True)
    stream = codec.stream(exchange)
    part = stream.chunks(words_of("before", piece, piece, "after"))
    assert b"before" in part
    assert isinstance(exchange.error, InvalidAgentResponse)
    assert stream.chunks(words_of("later")) == b""
    assert b"are more than" in stream.end(None)


@unhurried
@given(st.lists(st.lists(TEXT, min_size=1), max_size=4), st.booleans())
def test_a_stream_has_every_character_of_its_chunks(batches: list[list[str]], first: bool) -> None:
    codec = ChatCodec()
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    opening = stream.keep_alive() if first else b""
    parts = [stream.chunks(words_of(*batch)) for batch in batches]
    chunks = list(chunks_of(b"".join([opening, *parts, stream.end(None)])))
    told = [delta["content"] for delta in deltas(chunks)[:-1]]
    assert "".join(told) == "".join(text for batch in batches for text in batch)


@pytest.mark.parametrize("count", [MAX_EVENTS_AT_ONCE + 1, 1000])
def test_many_chunks_that_come_together_are_few_events_with_every_character(count: int) -> None:
    texts = [f'{number} \u2028\U0001f600"' for number in range(count)]
    told = [delta["content"] for delta in deltas(streamed(words_of(*texts)))[:-1]]
    assert len(told) <= MAX_EVENTS_AT_ONCE
    assert "".join(told) == "".join(texts)


def test_chunks_that_are_few_are_events_of_their_own() -> None:
    texts = [f"{number} " for number in range(MAX_EVENTS_AT_ONCE)]
    told = [delta["content"] for delta in deltas(streamed(words_of(*texts)))[:-1]]
    assert told == texts
