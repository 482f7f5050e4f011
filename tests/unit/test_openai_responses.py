"""Answers as Responses: every event is one that OpenAI's types accept."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response as OpenAIResponse

from gateway.errors import (
    AgentFailed,
    Cancelled,
    GatewayError,
    InvalidAgentResponse,
    InvalidRequest,
)
from gateway.exchange import MAX_HELD_PER_REQUEST, Exchange
from gateway.front.openai import output
from gateway.front.openai.dialect import ChatCodec, OpenAIDialect, ResponseCodec
from gateway.front.openai.memory import Memory
from gateway.front.run_codec import RunCodec
from gateway.needs import unmet_needs
from protocol import Outcome
from tests.unit.conftest import unhurried
from tests.unit.openai_answers import (
    CALLS,
    IMAGE,
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
    events_of,
    followed,
    responded,
    streamed,
    types_of,
    words_of,
)

OPENING = ["created", "in_progress"]
MESSAGE_BEGINS = ["output_item.added", "content_part.added"]
MESSAGE_ENDS = ["output_text.done", "content_part.done", "output_item.done"]


def test_a_response_is_told_event_by_event_and_then_whole() -> None:
    events = followed(words_of("It ", "is"), words_of(" 12."), outcome=Outcome("stop", USAGE, None))
    deltas_ = ["output_text.delta"] * 3
    assert types_of(events) == [
        *OPENING,
        *MESSAGE_BEGINS,
        *deltas_,
        *MESSAGE_ENDS,
        "completed",
    ]
    assert [event.delta for event in events[4:7]] == ["It ", "is", " 12."]
    assert events[7].text == events[8].part.text == "It is 12."
    response = events[-1].response
    assert (response.status, response.output_text) == ("completed", "It is 12.")
    assert response.usage.model_dump(exclude_none=True) == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }


def test_a_whole_response_is_the_one_at_the_end_of_its_stream() -> None:
    words = words_of(REASONING, "It is ", "12.", IMAGE, "See?")

    def without_ids(response: OpenAIResponse) -> dict[str, Any]:
        members = response.model_dump(exclude={"id", "created_at"})
        for item in members["output"]:
            del item["id"]
        return members

    whole = responded(words, metadata={"a": "b"})
    assert without_ids(whole) == without_ids(followed(words, metadata={"a": "b"})[-1].response)
    assert whole.metadata == {"a": "b"}


def test_every_kind_of_word_is_an_item_of_its_own_in_order() -> None:
    events = followed(
        words_of(REASONING, REASONING, "a", IMAGE, REPORT, WEATHER, *PIECES),
        outcome=CALLS,
        tools=True,
    )
    kinds = ["reasoning", "message", "image_generation_call", "message"]
    assert [item.type for item in events[-1].response.output] == [
        *kinds,
        "function_call",
        "function_call",
    ]
    done = [event for event in events if event.type == "response.output_item.done"]
    added = [event for event in events if event.type == "response.output_item.added"]
    for number, (first, last) in enumerate(zip(added, done, strict=True)):
        assert first.output_index == last.output_index == number
        assert first.item.id == last.item.id == events[-1].response.output[number].id
    items = {event.item.id: event.output_index for event in done}
    told = [event for event in events if getattr(event, "item_id", None)]
    assert all(items[event.item_id] == event.output_index for event in told)
    assert events[-1].response.output[0].summary[0].text == "hm\u2028hm\u2028"
    assert events[-1].response.output[5].arguments == '{"zone":1}'


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    events = followed()
    assert types_of(events) == [*OPENING, *MESSAGE_BEGINS, *MESSAGE_ENDS, "completed"]
    assert events[-1].response.output_text == ""


def test_a_result_is_told_as_text() -> None:
    message = b'{"role":"assistant","content":"Hi","reasoning_content":"hm"}'
    events = followed(result=message)
    assert events[-1].response.output_text == "Hi"
    assert [item.type for item in events[-1].response.output] == ["reasoning", "message"]
    assert responded(result=message).output_text == "Hi"


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("refused", "content_filter")]
)
def test_what_is_cut_is_incomplete(finish: str, reason: str) -> None:
    last = followed(words_of("x"), outcome=Outcome(finish, None, None))[-1]
    assert last.type == "response.incomplete"
    for response in (last.response, responded(words_of("x"), Outcome(finish, None, None))):
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == reason
        assert response.output[0].status == "incomplete"


@pytest.mark.parametrize("begun", [False, True])
def test_a_failure_ends_a_stream_with_an_event_that_clients_raise(begun: bool) -> None:
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    part = stream.chunks(words_of("so far")) if begun else stream.keep_alive()
    events = events_of(part + stream.error(AgentFailed("no\u2028")))
    failed, error = events[-2:]
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert failed.response.error.message == "no\u2028"
    assert failed.response.output_text == ("so far" if begun else "")
    assert (error.type, error.code, error.message) == ("error", "agent_error", "no\u2028")
    assert error.model_extra["error"]["request_id"] == "r-1"
    assert json.loads(stream.last_response or b"")["status"] == "failed"


def test_more_than_can_be_told_again_ends_in_an_error() -> None:
    half = json.dumps("x" * (output.MAX_OUTPUT // 2)).encode()
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    parts = [stream.chunks([half]), stream.chunks([half, half])]
    assert isinstance(exchange.error, InvalidAgentResponse)
    parts += [stream.chunks([half]), stream.end(None)]
    events = events_of(b"".join(parts))
    assert [event.type for event in events[-2:]] == ["response.failed", "error"]
    with pytest.raises(InvalidAgentResponse, match="a chat completion may have more"):
        responded([half, half, half])


@pytest.mark.parametrize("said", ["", "a"])
def test_items_that_say_nothing_are_bounded_as_well(said: str) -> None:
    """An agent may begin an item with every word."""
    words = words_of(said, {"type": "reasoning", "text": said}) * output.MOST_ITEMS
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    stream.chunks(words)
    assert isinstance(exchange.error, InvalidAgentResponse)
    assert len(stream.end(None)) < 2 * output.MAX_OUTPUT
    with pytest.raises(InvalidAgentResponse, match="items"):
        responded(words)


def test_short_pieces_of_a_response_take_no_more_than_their_text() -> None:
    told = output.Output()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            told.text([b'"ab"'])
            told.text([b'""'])
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    assert b"ab" * 20_000 in told.close()


@pytest.mark.parametrize("letter", ["x", "\u2028", "é"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_longest_response_is_held_within_the_bound(letter: str, stream: bool) -> None:
    """It is told four times at its end."""
    size = len(msgspec.json.encode(letter)) - 2 if letter != "\u2028" else len(r"\u2028")
    text = json.dumps(letter * (output.MAX_OUTPUT // 64 // size), ensure_ascii=False).encode()
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=stream)
    tracemalloc.start()
    try:
        if stream:
            encoder = codec.stream(exchange)
            for _ in range(64):
                encoder.chunks([text])
            exchange.end()
            told = encoder.end(None)
        else:
            exchange.add_words([text] * 64, 0.0)
            exchange.end()
            told = codec.encode(exchange, exchange.take()).body
        assert len(told) > output.MAX_OUTPUT * 0.9
        assert tracemalloc.get_traced_memory()[1] < MAX_HELD_PER_REQUEST
    finally:
        tracemalloc.stop()


def test_a_result_that_is_too_long_ends_a_stream_in_an_error_after_what_was_said() -> None:
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True)
    stream = codec.stream(exchange)
    result = {"role": "assistant", "content": "x" * output.MAX_OUTPUT, "reasoning_content": "hm"}
    events = events_of(stream.end(json.dumps(result).encode()))
    assert [event.type for event in events[-2:]] == ["response.failed", "error"]


def test_a_response_says_what_it_was_asked_for() -> None:
    asked = {
        "temperature": 0.5,
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "json_object"}},
        "user": "u",
        "conversation": "c-1",
        "max_output_tokens": 9,
        "parallel_tool_calls": False,
    }
    response = responded(words_of("x"), tools=True, **asked)
    found = response.model_dump(exclude_none=True)
    assert {name: found[name] for name in asked} == {**asked, "conversation": {"id": "c-1"}}
    assert [tool.name for tool in response.tools if tool.type == "function"] == ["weather", "clock"]


def test_to_go_on_from_a_response_the_agent_must_still_have_its_conversation() -> None:
    dialect = OpenAIDialect()

    def ask(session: Any, *, stream: bool, **members: Any) -> tuple[Any, Exchange]:
        codec = dialect.match("/v1/responses")
        assert isinstance(codec, ResponseCodec)
        exchange = begin(codec, stream=stream, **members)
        exchange.session = session
        return codec, exchange

    codec, exchange = ask("new", stream=False, conversation="c-1")
    exchange.end(b'{"role":"assistant","content":"Hi"}')
    first = json.loads(codec.encode(exchange, []).body)["id"]
    for session in ("new", "lost", None):
        codec, exchange = ask(session, stream=False, previous_response_id=first)
        exchange.end(b'{"role":"assistant","content":"Hi"}')
        with pytest.raises(InvalidRequest, match="not found"):
            codec.encode(exchange, [])
        codec, exchange = ask(session, stream=True, previous_response_id=first)
        stream = codec.stream(exchange)
        assert stream.chunks(words_of("x")) == b""
        error = exchange.error
        assert isinstance(error, GatewayError)
        assert error.details["code"] == "previous_response_not_found"
        codec, exchange = ask(session, stream=True, previous_response_id=first)
        exchange.end(b'{"role":"assistant","content":"Hi"}')
        events = events_of(codec.stream(exchange).end(exchange.result))
        assert [event.type for event in events[-2:]] == ["response.failed", "error"]
    codec, exchange = ask("kept", stream=True, previous_response_id=first)
    stream = codec.stream(exchange)
    events = events_of(stream.chunks(words_of("x")) + stream.end(None))
    assert events[-1].response.previous_response_id == first
    with pytest.raises(InvalidRequest, match="not found"):
        ask("kept", stream=True, previous_response_id=first)
    ask("kept", stream=True, previous_response_id=events[-1].response.id)


def test_a_response_of_an_agent_that_keeps_no_conversations_cannot_be_gone_on_from() -> None:
    known = Memory()
    first = responded(words_of("Hi"), memory=known, conversation="c-1")
    with pytest.raises(InvalidRequest, match="not found"):
        begin(ResponseCodec(known), stream=False, previous_response_id=first.id)


def test_what_was_said_is_remembered_unless_it_shall_not_be() -> None:
    memory = Memory()
    item = responded(words_of("Hi"), memory=memory).output[0]
    assert json.loads(memory.item("", item.id or "") or b"")["content"][0]["text"] == "Hi"
    item = responded(words_of("Hi"), memory=memory, store=False).output[0]
    assert memory.item("", item.id or "") is None


def test_a_run_names_a_response_and_has_it_tell_of_its_states() -> None:
    codec = ResponseCodec(Memory())
    assert isinstance(codec, RunCodec)
    exchange = begin(codec, stream=False, background=True)
    assert exchange.call.continues
    codec.kept_as("token")
    for state, status in (
        ("queued", "queued"),
        ("running", "in_progress"),
        ("cancelled", "cancelled"),
    ):
        told = codec.tell(state, Cancelled() if state == "cancelled" else None)
        assert told.status == 200
        response = OpenAIResponse.model_validate(json.loads(told.body))
        assert (response.id, response.status, response.background) == ("resp_token", status, True)
        assert response.error is None
    failed = OpenAIResponse.model_validate(json.loads(codec.tell("failed", AgentFailed("no")).body))
    assert failed.error is not None
    assert (failed.status, failed.error.message) == ("failed", "no")
    encoded = OpenAIResponse.model_validate(json.loads(codec.encode(exchange, words_of("x")).body))
    assert encoded.id == "resp_token"


WORD = st.one_of(
    TEXT,
    st.sampled_from([REASONING, STATUS, OWN, WEATHER, RESULT, IMAGE, REPORT, *PIECES]),
)


@unhurried
@given(st.lists(st.lists(WORD, min_size=1), max_size=4), st.sampled_from([None, CALLS]))
def test_a_stream_of_any_words_is_one_that_openais_types_accept(batches, outcome) -> None:
    events = followed(*(words_of(*batch) for batch in batches), outcome=outcome, tools=True)
    said = [word for batch in batches for word in batch]
    texts = [word for word in said if isinstance(word, str)]
    told = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(told) == len(texts) + said.count(REPORT)
    assert [text for text in told if not text.startswith("\n[r.pdf]")] == texts
    assert events[-1].response.status == "completed"
    streamed(*(words_of(*batch) for batch in batches), outcome=outcome, tools=True)


@pytest.mark.parametrize(
    ("codec", "param"), [(ChatCodec(), "messages"), (ResponseCodec(Memory()), "input")]
)
def test_an_error_in_the_messages_names_them_as_the_api_does(
    codec: ChatCodec | ResponseCodec, param: str
) -> None:
    exchange = begin(codec, stream=True)
    error = unmet_needs("bot", frozenset({"image"}), None)
    assert error is not None
    assert json.loads(codec.encode_error(error, "r-1").body)["error"]["param"] == param
    stream = codec.stream(exchange)
    exchange.fail(error)
    assert f'"param":"{param}"' in stream.error(error).decode()
    tools = unmet_needs("bot", frozenset({"tools"}), None)
    assert tools is not None
    assert json.loads(codec.encode_error(tools, "r-1").body)["error"]["param"] == "tools"
