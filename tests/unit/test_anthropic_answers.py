"""Answers as Anthropic's messages: every event is one that its client's types accept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import (
    AgentFailed,
    AgentNotFound,
    GatewayError,
    InvalidAgentResponse,
    InvalidRequest,
    RateLimited,
    WorkerCrashed,
)
from gateway.exchange import Exchange
from gateway.front.anthropic.dialect import AnthropicDialect, MessagesCodec
from gateway.front.anthropic.models import MODELS
from gateway.front.anthropic.stream import PING, MessageStream
from gateway.front.chats import calls
from gateway.front.chats.models import Model
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
from gateway.front.dialect import RequestHead, dialect_of
from gateway.front.native.dialect import NativeDialect
from gateway.front.openai.dialect import OpenAIDialect
from protocol import Outcome
from tests.unit.conftest import unhurried

VERSION = {b"anthropic-version": b"2026-10-21"}
HEAD = RequestHead(request_id="r-1", fields=VERSION)
TOOLS = [{"name": name, "input_schema": {}} for name in ("weather", "clock")]
USAGE = b'{"input_tokens":7,"output_tokens":3}'
CALLS = Outcome("tool_calls", None, None)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SUN = {"type": "reasoning", "text": "Sun?"}
CALL = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "call": "c1", "content": "x"}
OWN = {"type": "tool_call", "call": "c2", "name": "search", "arguments": {}}
STATUS = {"type": "status", "text": "Looking \u2028 it up"}
FILE = {"type": "file", "name": "a.txt", "mime": "text/plain", "path": "/a.txt"}


def words_of(*said: str | dict[str, Any]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def begin(codec: MessagesCodec, *, stream: bool, tools: bool = True, **members: Any) -> Exchange:
    body = {
        "model": "bot",
        "max_tokens": 9,
        "stream": stream,
        "messages": [{"role": "user", "content": "hi"}],
        **({"tools": TOOLS} if tools else {}),
        **members,
    }
    call = codec.decode(HEAD, json.dumps(body).encode())
    assert isinstance(call, Call)
    return Exchange(call, Clocks(), 0.0)


def answered(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> Message:
    """One whole message."""
    codec = MessagesCodec()
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    response = codec.encode(exchange, exchange.take())
    assert response.status == 200
    assert dict(response.headers)[b"request-id"] == b"r-1"
    return Message.model_validate(json.loads(response.body))


def events_of(parts: bytes) -> list[tuple[str, Any]]:
    """The names and the data of events."""
    *events, nothing = parts.decode().split("\n\n")
    assert nothing == ""
    found = []
    for event in events:
        name, data = event.split("\n")
        decoded = json.loads(data.removeprefix("data: "))
        assert name == f"event: {decoded['type']}"
        found.append((decoded["type"], decoded))
    return found


def streamed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[tuple[str, Any]]:
    codec = MessagesCodec()
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    assert (b"request-id", b"r-1") in stream.headers
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    return events_of(b"".join([*parts, stream.end(result)]))


def put_together(events: list[tuple[str, Any]]) -> Message:
    """What the client makes of a stream, which must be complete and in order."""
    names = [name for name, _ in events if name != "ping"]
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    opened: list[int] = []
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for name, data in events:
        if name == "ping":
            continue
        event = EVENT.validate_python(data)
        if name == "content_block_start":
            opened.append(data["index"])
            assert opened == list(range(len(opened)))
        elif name.startswith("content_block"):
            assert data["index"] == opened[-1]
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert names.count("content_block_start") == names.count("content_block_stop") == len(opened)
    return Message.model_validate(snapshot.to_dict())


def content_of(message: Message) -> list[dict[str, Any]]:
    return [block.model_dump(exclude_none=True) for block in message.content]


def both(
    *said: str | dict[str, Any],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> Message:
    """The message, which is the same whether it is told whole or as a stream."""
    words = words_of(*said)
    whole = answered(words, outcome, result, **members)
    batches = [words] if words else []
    parts = put_together(streamed(*batches, outcome=outcome, result=result, **members))
    assert content_of(parts) == content_of(whole)
    assert parts.stop_reason == whole.stop_reason
    assert parts.usage.to_dict() == whole.usage.to_dict()
    assert parts.id != whole.id
    return whole


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
    assert content_of(both(SUN, "a", result=message)) == [
        {"type": "thinking", "thinking": "Sun?", "signature": ""},
        {"type": "text", "text": "aHi"},
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


# Streams


def test_chunks_are_one_event_each() -> None:
    events = streamed(words_of("It ", "is"), words_of("12."))
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    [(_, start), *_] = events
    assert start["message"]["content"] == []
    assert start["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}


def test_many_chunks_that_come_together_are_few_events() -> None:
    said = [str(number) for number in range(1000)]
    events = streamed(words_of(*said))
    assert content_of(put_together(events)) == [{"type": "text", "text": "".join(said)}]
    deltas = [name for name, _ in events if name == "content_block_delta"]
    assert 1 < len(deltas) <= MAX_EVENTS_AT_ONCE


def test_pings_stand_after_the_start() -> None:
    codec = MessagesCodec()
    stream = codec.stream(begin(codec, stream=True))
    first = stream.keep_alive()
    assert first.endswith(PING)
    assert [name for name, _ in events_of(first)] == ["message_start", "ping"]
    assert stream.keep_alive() == PING
    [(name, data)] = events_of(stream.chunks(words_of(STATUS)))
    assert (name, data["status"]) == ("ping", STATUS["text"])


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_in_a_stream_is_no_end(begun: bool) -> None:
    codec = MessagesCodec()
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    said = stream.chunks(words_of("so far")) if begun else stream.keep_alive()
    error = WorkerCrashed("it died", exit_status=3)
    exchange.fail(error)
    events = events_of(said + stream.error(error))
    assert events[-1] == (
        "error",
        {
            "type": "error",
            "error": {
                "type": "api_error",
                "message": "it died",
                "details": {
                    "error_code": "worker_crashed",
                    "exit_status": 3,
                    "output_begun": False,
                },
            },
            "request_id": "r-1",
        },
    )
    assert "message_stop" not in [name for name, _ in events]


@unhurried
@given(st.lists(st.lists(TEXT, min_size=1), max_size=4))
def test_a_stream_has_every_character_of_its_chunks(batches: list[list[str]]) -> None:
    events = streamed(*[words_of(*batch) for batch in batches])
    said = "".join(text for batch in batches for text in batch)
    assert content_of(put_together(events)) == [{"type": "text", "text": said}]


WORD = st.one_of(
    TEXT,
    st.sampled_from([SUN, CALL, RESULT, OWN, STATUS, FILE]),
    st.sampled_from([{"type": "state", "value": 1}, {"type": "usage", "input_tokens": 1}]),
    st.builds(lambda text: {"type": "reasoning", "text": text}, TEXT),
    st.just({"type": "x-mine", "more": [1]}),
)
KINDS: set[tuple[str, ...]] = set()


@unhurried
@given(
    st.lists(st.lists(WORD, min_size=1, max_size=6), max_size=4),
    st.sampled_from([None, CALLS, CALLS, Outcome("length", USAGE, None)]),
    st.sampled_from([None, b'{"role":"assistant","content":"end","reasoning_content":"hm"}']),
)
@example([[SUN, "a", STATUS, "b"], [CALL, SUN]], CALLS, None)
@example([["a"]], None, None)
@example([[SUN]], None, None)
@example([[CALL]], CALLS, None)
def any_words(batches: Any, outcome: Any, result: Any) -> None:
    call = words_of(CALL)[0]
    said = [word for batch in batches for word in words_of(*batch)]
    first = said.index(call) if call in said else 0
    said = [
        word for at, word in enumerate(said) if word != call or at == first
    ]  # as the wire has it
    words = [said[at : at + 3] for at in range(0, len(said), 3)]
    events = streamed(*words, outcome=outcome, result=result)
    parts = put_together(events)
    whole = answered(said, outcome, result)
    assert content_of(parts) == content_of(whole)
    KINDS.add(tuple(block.type for block in whole.content))


def test_a_stream_of_any_words_is_the_whole_message_in_parts() -> None:
    any_words()
    reached = {kind for kinds in KINDS for kind in kinds}
    assert reached == {"text", "thinking", "tool_use"}
    assert any(len(kinds) > 2 for kinds in KINDS)
    assert len(KINDS) > 3


# Errors


@pytest.mark.parametrize(
    ("error", "kind", "more"),
    [
        (InvalidRequest("no", param="n", code="unknown_parameter"), "invalid_request_error",
         {"param": "n", "error_code": "unknown_parameter"}),
        (AgentNotFound("no"), "not_found_error", {"error_code": "agent_not_found"}),
        (AgentFailed("no"), "api_error", {"error_code": "agent_error"}),
        (RateLimited("no", retry_after=0.25, setting="s"), "rate_limit_error",
         {"error_code": "rate_limited", "setting": "s"}),
    ],
)  # fmt: skip
def test_an_error_is_in_anthropics_form(error: GatewayError, kind: str, more: Any) -> None:
    response = AnthropicDialect().encode_error(error, "r-1")
    headers = dict(response.headers)
    assert (response.status, headers[b"request-id"]) == (error.status, b"r-1")
    assert headers.get(b"retry-after-ms") == (b"250" if isinstance(error, RateLimited) else None)
    assert json.loads(response.body) == {
        "type": "error",
        "error": {"type": kind, "message": "no", "details": more},
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("path", "fields", "with_openai", "alone"),
    [
        ("/v1/models", VERSION, "anthropic", "anthropic"),
        ("/v1/models", {}, "openai", "anthropic"),
        ("/v1/messages/batches", {}, "anthropic", "anthropic"),
        ("/v1/responses", {}, "openai", "anthropic"),
        ("/v1/nothing", VERSION, "anthropic", "anthropic"),
        ("/v2/nothing", VERSION, "native", "native"),
        ("/v1", {}, "native", "native"),
    ],
)
def test_a_client_is_answered_in_the_dialect_that_it_speaks(
    path: str, fields: Any, with_openai: str, alone: str
) -> None:
    named: dict[str, Any] = {
        "openai": OpenAIDialect(),
        "anthropic": AnthropicDialect(),
        "native": NativeDialect(),
    }
    assert dialect_of(tuple(named.values()), path, fields) is named[with_openai]
    del named["openai"]
    assert dialect_of(tuple(named.values()), path, fields) is named[alone]


# Models

AGENTS = [Model(name, None, 0, "1970-01-01T00:00:00Z") for name in "abcde"]


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "c"}, "de", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "e"}, "cd", True),
        ({"limit": "2", "before_id": "c"}, "ab", False),
        ({"after_id": "a", "before_id": "d"}, "bc", False),
        ({"after_id": "d", "before_id": "b"}, "", False),
    ],
)
def test_models_come_in_pages(query: dict[str, str], names: str, more: bool) -> None:
    page = MODELS.many(AGENTS, query)
    assert "".join(model["id"] for model in page["data"]) == names
    assert page["has_more"] is more
    assert (page["first_id"] or "", page["last_id"] or "") == (names[:1], names[-1:])


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "000000001" + "0" * 5000}, "limit"),
        ({"limit": "0000000011001"}, "limit"),
        ({"after_id": "z"}, "after_id"),
        ({"before_id": ""}, "before_id"),
    ],
)
def test_a_wrong_page_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MODELS.many(AGENTS, query)
    assert caught.value.details["param"] == param


def test_a_stream_encoder_is_made_by_the_codec() -> None:
    codec = MessagesCodec()
    assert isinstance(codec.stream(begin(codec, stream=True)), MessageStream)
