"""Server-Sent Events, and the fallback both ways between a stream and one answer."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config import Clocks
from gateway.errors import AgentFailed
from gateway.exchange import Exchange
from gateway.front.native import sse
from gateway.front.native.dialect import NativeCodec
from gateway.front.native.results import as_body, as_chunk
from protocol import Outcome
from tests.unit.conftest import unhurried

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def as_json(text: str, *, ascii_only: bool) -> bytes:
    """A JSON string, with each escape that it needs, or with every one that it may have."""
    return json.dumps(text, ensure_ascii=ascii_only).encode()


def make_stream(method: Literal["invoke", "chat"] = "invoke") -> tuple[sse.EventStream, Exchange]:
    call = Call(agent="a", method=method, payload=b"1", stream=True, request_id="r-1")
    exchange = Exchange(call, Clocks(), 0.0)
    return sse.EventStream(exchange), exchange


def test_chunks_are_one_event_each_in_one_piece() -> None:
    assert sse.EventStream.chunks([b'"Hello "', rb'"\n"']) == (
        b'data: {"chunk":"Hello "}\n\n' + rb'data: {"chunk":"\n"}' + b"\n\n"
    )


def test_an_event_is_one_line_to_a_client_that_ends_lines_as_python_does() -> None:
    texts = ["a\u2028b\u2029c\u0085d", "é"]
    chunks = [as_json(text, ascii_only=False) for text in texts]
    stream, _ = make_stream()
    error = AgentFailed(texts[0])
    lines = (stream.chunks(chunks) + stream.error(error)).decode().splitlines()
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert data[:2] == [{"chunk": text} for text in texts]
    assert texts[0] in data[2]["error"]["message"]
    assert len([line for line in lines if line]) == 4  # the fourth says `event: error`


def test_the_end_and_a_comment_are_whole_events() -> None:
    stream, _ = make_stream()
    assert stream.end(None) == sse.DONE == b"data: [DONE]\n\n"
    assert stream.keep_alive() == sse.KEEP_ALIVE == b": keep-alive\n\n"


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_is_an_event_that_says_whether_output_had_begun(begun: bool) -> None:
    stream, exchange = make_stream()
    if begun:
        exchange.add_words([b'"x"'], 0.0)
    assert stream.error(AgentFailed("no", code=1)) == (
        b'event: error\ndata: {"error":{"type":"agent_error","message":"no",'
        b'"request_id":"r-1","code":1,"output_begun":%b}}\n\n' % str(begun).lower().encode()
    )


def test_one_result_is_an_event_before_the_end() -> None:
    stream, _ = make_stream("chat")
    end = stream.end(b'{"role":"assistant","content":"Hi"}')
    assert end == b'data: {"chunk":"Hi"}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("kind", "result", "chunk"),
    [
        ("invoke", b'"a string"', "a string"),
        ("invoke", b"7", "7"),
        ("invoke", b"null", "null"),
        ("invoke", b'{"a": [1, 2]}', '{"a": [1, 2]}'),
        ("invoke", '"é\\u00e9"'.encode(), "éé"),
        ("chat", b'{"role":"assistant","content":"Hi"}', "Hi"),
        ("chat", b'{"content":"Hi","role":"assistant","name":"n"}', "Hi"),
        ("chat", b'{"role":"assistant","content":"Hi","tool_calls":null}', "Hi"),
        ("chat", b'{"role":"assistant","content":null}', '{"role":"assistant","content":null}'),
        ("chat", b'{"role":"assistant","content":[]}', '{"role":"assistant","content":[]}'),
        (
            "chat",
            b'{"role":"assistant","content":"x","tool_calls":[]}',
            '{"role":"assistant","content":"x","tool_calls":[]}',
        ),
    ],
)
def test_one_result_becomes_one_chunk(
    kind: Literal["invoke", "chat"], result: bytes, chunk: str
) -> None:
    assert json.loads(as_chunk(kind, result)) == chunk


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("invoke", b'{"output":"Hello World!"}'),
        ("chat", b'{"message":{"role":"assistant","content":"Hello World!"}}'),
    ],
)
def test_chunks_become_one_result(kind: Literal["invoke", "chat"], body: bytes) -> None:
    assert as_body(kind, None, [b'"Hello "', b'""', b'"World!"']) == body


def test_no_chunks_at_all_are_an_empty_text() -> None:
    assert as_body("invoke", None, []) == b'{"output":""}'


def test_a_result_is_put_into_its_envelope_as_the_bytes_it_is() -> None:
    assert as_body("invoke", b'{ "a" : 1e2 }', []) == b'{"output":{ "a" : 1e2 }}'
    assert as_body("chat", b'{"role":"tool"}', []) == b'{"message":{"role":"tool"}}'


@unhurried
@given(st.lists(st.tuples(TEXT, st.booleans())))
@example([("💡", True), ("💡", False), ('"', True), ("\\", True), ("\n\r\u2028", False)])
@example([("\\ud83d", True), ("\\udca1", True)])
def test_joined_chunks_are_the_concatenation_of_what_they_mean(
    parts: list[tuple[str, bool]],
) -> None:
    chunks = [as_json(text, ascii_only=ascii_only) for text, ascii_only in parts]
    whole = "".join(text for text, _ in parts)
    assert msgspec.json.decode(as_body("invoke", None, chunks)) == {"output": whole}
    assert json.loads(as_body("chat", None, chunks))["message"]["content"] == whole


@unhurried
@given(TEXT, st.booleans())
def test_an_event_is_one_line_of_data_whatever_the_chunk_says(text: str, ascii_only: bool) -> None:
    event = sse.EventStream.chunks([as_json(text, ascii_only=ascii_only)])
    head, end, rest = event.partition(b"\n\n")
    assert (end, rest) == (b"\n\n", b"")
    assert b"\n" not in head
    assert b"\r" not in head
    assert json.loads(head.removeprefix(b"data: ")) == {"chunk": text}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@unhurried
@given(JSON_VALUES)
def test_a_result_can_be_read_out_of_its_one_chunk_again(value: Any) -> None:
    text = json.loads(as_chunk("invoke", json.dumps(value).encode()))
    assert (text if isinstance(value, str) else json.loads(text)) == value


# With events

THOUGHT = b'{"type":"reasoning","text":"hm"}'
AGENT_THOUGHT = b'event: agent\ndata: {"type":"reasoning","text":"hm"}\n\n'


def with_events(
    *words: bytes, stream: bool = False, outcome: Outcome | None = None, result: bytes | None = None
) -> tuple[NativeCodec, Exchange]:
    call = Call(
        agent="a", method="invoke", payload=b"1", stream=stream, request_id="r-1", events=True
    )
    exchange = Exchange(call, Clocks(), 0.0)
    if words:
        exchange.add_words(list(words), 0.0)
    exchange.end(result, outcome)
    return NativeCodec("a", "invoke"), exchange


def test_events_stand_between_the_chunks_of_a_stream_in_their_order() -> None:
    codec, exchange = with_events(stream=True)
    assert codec.stream(exchange).chunks([b'"a"', b'"b"', THOUGHT, THOUGHT, b'"c"']) == (
        b'data: {"chunk":"a"}\n\ndata: {"chunk":"b"}\n\n'
        + 2 * AGENT_THOUGHT
        + b'data: {"chunk":"c"}\n\n'
    )


def test_a_stream_tells_last_how_its_answer_ended() -> None:
    codec, exchange = with_events(stream=True, outcome=Outcome("stop", b'{"input_tokens":7}'))
    assert codec.stream(exchange).end(None) == (
        b'event: agent\ndata: {"type":"outcome","finish":"stop","usage":{"input_tokens":7}}\n\n'
        + sse.DONE
    )
    codec, exchange = with_events(stream=True, result=b'"x"', outcome=Outcome("length"))
    assert codec.stream(exchange).end(b'"x"') == (
        b'data: {"chunk":"x"}\n\n'
        b'event: agent\ndata: {"type":"outcome","finish":"length"}\n\n' + sse.DONE
    )
    codec, exchange = with_events(stream=True)
    assert codec.stream(exchange).end(None) == sse.DONE


def test_a_whole_answer_has_what_the_agent_said_beside_it() -> None:
    asks = b'[{"id":"a1","reason":"confirmation","message":"Sure?"}]'
    outcome = Outcome("input_required", b'{"input_tokens":7}', asks)
    codec, exchange = with_events(b'"a"', THOUGHT, b'"b"', outcome=outcome)
    assert json.loads(codec.encode(exchange, exchange.take()).body) == {
        "output": "ab",
        "finish": "input_required",
        "usage": {"input_tokens": 7},
        "asks": json.loads(asks),
        "events": [json.loads(THOUGHT)],
    }


def test_a_whole_answer_of_an_agent_that_says_nothing_beside_it_has_the_same_members() -> None:
    codec, exchange = with_events(result=b"[1]")
    assert codec.encode(exchange, exchange.take()).body == (
        b'{"output":[1],"finish":null,"usage":null,"asks":[],"events":[]}'
    )
