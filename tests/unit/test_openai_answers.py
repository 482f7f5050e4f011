"""Answers as chat completions and as Responses: every event is one that OpenAI's types accept."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import (
    AgentFailed,
    Cancelled,
    GatewayError,
    InvalidAgentResponse,
    InvalidRequest,
)
from gateway.exchange import MAX_HELD_PER_REQUEST, Exchange
from gateway.front.chats import calls
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
from gateway.front.dialect import RequestHead
from gateway.front.openai import output
from gateway.front.openai.dialect import ChatCodec, OpenAIDialect, ResponseCodec
from gateway.front.openai.memory import Memory
from gateway.front.run_codec import RunCodec
from gateway.needs import unmet_needs
from protocol import Outcome
from protocol.events import MAX_CALLS
from tests.unit.conftest import unhurried

HEAD = RequestHead(request_id="r-1")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {}}, "name": name}
    for name in ("weather", "clock")
]
USAGE = b'{"input_tokens":7,"output_tokens":3}'
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGES = [{"role": "user", "content": "hi"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def words_of(*said: str | dict[str, Any]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in said]


def begin(
    codec: ChatCodec | ResponseCodec, *, stream: bool, tools: bool = False, **members: Any
) -> Exchange:
    asked = {"messages": MESSAGES} if isinstance(codec, ChatCodec) else {"input": "hi"}
    body = {"model": "bot", "stream": stream, **asked, **members}
    if tools:
        body["tools"] = TOOLS
    call = codec.decode(HEAD, json.dumps(body).encode())
    assert isinstance(call, Call)
    return Exchange(call, Clocks(), 0.0)


def completed(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> ChatCompletion:
    """One whole completion."""
    codec = ChatCodec()
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    response = codec.encode(exchange, exchange.take())
    assert response.status == 200
    return ChatCompletion.model_validate(json.loads(response.body))


def chunks_of(parts: bytes) -> Iterator[ChatCompletionChunk]:
    """The chunks of a whole stream, without the last event, which must be `[DONE]`."""
    *events, last, nothing = parts.decode().split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    for event in events:
        if not event.startswith(":"):
            assert "\n" not in event
            yield ChatCompletionChunk.model_validate(json.loads(event.removeprefix("data: ")))


def streamed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[ChatCompletionChunk]:
    codec = ChatCodec()
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    return list(chunks_of(b"".join([*parts, stream.end(result)])))


def deltas(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    found = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks]
    assert found[0] == {"role": "assistant", "content": ""}
    return found[1:]


# Chat completions


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


REASONING = {"type": "reasoning", "text": "hm\u2028"}
STATUS = {"type": "status", "text": "at\nwork"}
OWN = {"type": "tool_call", "call": "own", "name": "search", "arguments": {}}
WEATHER = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "call": "c1", "content": 12}
PIECES = [
    {"type": "tool_call", "call": "c2", "name": "clock", "delta": '{"zone'},
    {"type": "tool_call", "call": "c2", "name": "clock", "delta": '":1}'},
]
ANSWERED = {"type": "tool_result", "call": "c2", "content": 12}
INVENTED = [{**RESULT, "call": f"invented {number}"} for number in range(MAX_CALLS + 1)]
CALLS = Outcome("tool_calls", None, None)


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


IMAGE = {"type": "file", "name": "a[1].png", "mime": "image/png", "data": "aGk="}
REPORT = {"type": "file", "name": "r.pdf", "mime": "application/pdf", "path": "/out/r.pdf"}


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


# Responses


def responded(
    said: Sequence[bytes] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    memory: Memory | None = None,
    **members: Any,
) -> OpenAIResponse:
    """One whole Response."""
    codec = ResponseCodec(memory or Memory())
    exchange = begin(codec, stream=False, **members)
    exchange.add_words(list(said), 0.0)
    exchange.end(result, outcome)
    return OpenAIResponse.model_validate(json.loads(codec.encode(exchange, exchange.take()).body))


def events_of(parts: bytes) -> list[Any]:
    """The events of a stream, numbered without a gap."""
    found = []
    for event in parts.decode().split("\n\n")[:-1]:
        if not event.startswith(":"):
            kind, data = event.split("\n")
            members = json.loads(data.removeprefix("data: "))
            assert kind == f"event: {members['type']}"
            assert members["sequence_number"] == len(found)
            found.append(EVENT.validate_python(members))
    return found


def followed(
    *batches: Sequence[bytes],
    outcome: Outcome | None = None,
    result: bytes | None = None,
    **members: Any,
) -> list[Any]:
    codec = ResponseCodec(Memory())
    exchange = begin(codec, stream=True, **members)
    stream = codec.stream(exchange)
    parts = [stream.chunks(list(batch)) for batch in batches]
    exchange.end(result, outcome)
    events = events_of(b"".join([*parts, stream.end(result)]))
    whole = OpenAIResponse.model_validate(json.loads(stream.last_response or b""))
    assert events[-1].response == whole
    return events


def types_of(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


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
    assert b"ab" * 20_000 in told.finish()


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
