"""Tokens are counted as answers say, however these are split, and whatever else they hold."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.sandbox.network import usage
from gateway.sandbox.network.usage import Tokens, UsageReader

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": 'a "usage": {}'}}],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
CHAT_STREAM: list[Any] = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": None},
    {"choices": [{"delta": {"content": "usage"}}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}},
    "[DONE]",
]
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 123,
    },
}
RESPONSE_STREAM: list[Any] = [
    {"type": "response.created", "response": {"id": "resp_1", "output": [], "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hi"},
    {"type": "response.completed", "response": RESPONSE},
]
MESSAGE = {
    "type": "message",
    "content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 999_999}}}],
    "usage": {
        "input_tokens": 12,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "output_tokens": 6,
    },
}
MESSAGE_STREAM: list[Any] = [
    {
        "type": "message_start",
        "message": {"type": "message", "usage": {"input_tokens": 25, "output_tokens": 1}},
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
]
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}]}}],
    "usageMetadata": {
        "promptTokenCount": 4,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 2,
        "totalTokenCount": 54,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
    },
}
GEMINI_STREAM: list[Any] = [
    {"usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}},
    {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 9, "totalTokenCount": 13}},
    GEMINI,
]
OLLAMA_LINES = [
    {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False},
    {"model": "m", "done": True, "prompt_eval_count": 26, "eval_count": 298, "eval_duration": 5},
]
GROQ_STREAM: list[Any] = [
    {"choices": [{"delta": {"content": "Hi"}}]},
    {
        "choices": [],
        "x_groq": {"id": "r", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    },
]


def events(values: list[Any], end: str = "\n") -> bytes:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"event: x{end}data: {text}{end}{end}" for text in texts).encode()


def lines(values: list[Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


ANSWERS = {
    "OpenAI": (JSON, json.dumps(CHAT).encode(), Tokens(19, 10)),
    "OpenAI, indented": (JSON, json.dumps(CHAT, indent=2).encode(), Tokens(19, 10)),
    "OpenAI, embeddings": (
        JSON,
        b'{"data":[{"embedding":[0.1,-2e-3,[]]}],"usage":{"prompt_tokens":8,"total_tokens":8}}',
        Tokens(8, 0),
    ),
    "OpenAI, streamed": (SSE, events(CHAT_STREAM), Tokens(19, 10)),
    "Responses": (JSON, json.dumps(RESPONSE).encode(), Tokens(36, 87)),
    "Responses, streamed": (SSE, events(RESPONSE_STREAM), Tokens(36, 87)),
    "Anthropic": (JSON, json.dumps(MESSAGE).encode(), Tokens(1112, 6)),
    "Anthropic, streamed": (SSE, events(MESSAGE_STREAM), Tokens(25, 15)),
    "Gemini": (JSON, json.dumps(GEMINI).encode(), Tokens(4, 50)),
    "Gemini, streamed": (SSE, events(GEMINI_STREAM, "\r\n"), Tokens(4, 50)),
    "Gemini, streamed as an array": (JSON, json.dumps(GEMINI_STREAM).encode(), Tokens(4, 50)),
    "Ollama": (JSON, json.dumps(OLLAMA_LINES[1]).encode(), Tokens(26, 298)),
    "Ollama, streamed": ("application/x-ndjson", lines(OLLAMA_LINES), Tokens(26, 298)),
    "Groq, streamed": (SSE, events(GROQ_STREAM, "\r"), Tokens(3, 4)),
}


def read(content_type: str, pieces: list[bytes]) -> UsageReader:
    reader = UsageReader(content_type)
    for piece in pieces:
        reader.feed(piece)
    return reader


def charge(reader: UsageReader, *, sent: int = 100, received: int = 100, whole: bool = True) -> int:
    return reader.charge(sent=sent, received=received, whole=whole)


def split(body: bytes, at: list[int]) -> list[bytes]:
    cuts = [0, *sorted(each % (len(body) + 1) for each in at), len(body)]
    return [body[start:end] for start, end in pairwise(cuts)]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answers_own_usage_is_what_counts(name: str) -> None:
    content_type, body, tokens = ANSWERS[name]
    reader = read(content_type, [body])
    assert reader.tokens == tokens
    assert charge(reader) == charge(reader, whole=False) == tokens.total


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_comes_byte_by_byte_counts_the_same(name: str) -> None:
    content_type, body, tokens = ANSWERS[name]
    assert read(content_type, [body[i : i + 1] for i in range(len(body))]).tokens == tokens


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 2000), max_size=8))
def test_any_split_counts_the_same(name: str, at: list[int]) -> None:
    content_type, body, tokens = ANSWERS[name]
    assert read(content_type, split(body, at)).tokens == tokens


SAID = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "message", "response", "input_tokens", "eval_count", 'a"\\'])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
GARBAGE = (
    st.binary(max_size=200)
    | st.lists(SAID, max_size=4).map(lines)
    | st.lists(SAID, max_size=4).map(events)
    | st.lists(
        st.sampled_from(
            [
                *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"7", b" "),
                *(b"data:", b"\n", b"\r", b"\n\n"),
                *(b'"usage"', b'"message"', b'{"input_tokens":', b'"usage":{"input_tokens":7}'),
            ]
        ),
        max_size=60,
    ).map(b"".join)
)


@given(st.sampled_from([JSON, SSE]), GARBAGE, st.lists(st.integers(0, 5000), max_size=8))
@example(SSE, b'data:{"usage":\ndata: {"input_tokens": 5}}\n\n', [20])
def test_whatever_comes_is_no_defect_and_any_split_of_it_counts_the_same(
    content_type: str, body: bytes, at: list[int]
) -> None:
    whole, parts = read(content_type, [body]), read(content_type, split(body, at))
    assert (whole.tokens, charge(whole)) == (parts.tokens, charge(parts))


@given(st.dictionaries(st.text(max_size=5) | st.just("usage"), SAID, max_size=4))
def test_what_is_counted_is_what_a_decoder_finds(body: dict[str, Any]) -> None:
    said = body.get("usage")
    within = [body[key] for key in ("message", "response", "x_groq") if key in body]
    found = [said, *(each.get("usage") for each in within if isinstance(each, dict))]
    numbers = [
        each["input_tokens"]
        for each in found
        if isinstance(each, dict)
        and type(each.get("input_tokens")) is int
        and 0 <= each["input_tokens"] <= usage.MAX_TOKENS
    ]
    tokens = read(JSON, [json.dumps(body).encode()]).tokens
    other = "eval_count" in body or any(
        "eval_count" in each for each in found if isinstance(each, dict)
    )
    assert other or tokens == (Tokens(max(numbers), 0) if numbers else None)


@pytest.mark.parametrize(
    "number",
    ['"12"', "-1", "1e400", "NaN", "-Infinity", "true", "null", "[1]", "1.5", "9" * 5000, "10" * 9],
)
def test_a_number_that_is_none_is_ignored_and_the_others_count(number: str) -> None:
    body = f'{{"usage":{{"input_tokens":{number},"output_tokens":5}}}}'.encode()
    assert read(JSON, [body]).tokens == Tokens(0, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"usage":null}',
        b'{"usage":[{"input_tokens":1}]}',
        b'{"choices":[{"usage":{"prompt_tokens":5}}]}',
        b'{"metadata":{"usage":{"prompt_tokens":5}}}',
        b'{"text":"\\"usage\\":{\\"prompt_tokens\\":5}"}',
        b'{"usage":{"prompt_tokens":5',
        b'{"usage":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
        b'{"usage":{"prompt_tokens":5,"padding":"' + b"x" * usage.MAX_USAGE + b'"}}',
    ],
)
def test_what_says_nothing_of_tokens_counts_nothing(body: bytes) -> None:
    assert read(JSON, [body]).tokens is None


def test_a_stream_without_usage_is_unknown_and_charged_by_its_events() -> None:
    """As OpenAI's chat streams, where `include_usage` is not asked for."""
    reader = read(SSE, [events([{"choices": [{"delta": {"content": "word"}}]}] * 40)])
    assert reader.tokens is None
    assert charge(reader, sent=0) == 40


def test_a_stream_that_is_left_before_its_end_is_charged_by_its_events() -> None:
    start, delta, *_ = MESSAGE_STREAM
    reader = read(SSE, [events([start, *[delta] * 100])])
    assert reader.tokens == Tokens(25, 1)
    assert charge(reader, whole=False) == 25 + 101
    reader.feed(events(MESSAGE_STREAM[2:]))
    assert charge(reader) == Tokens(25, 15).total


def test_a_prompt_that_a_stream_does_not_count_is_charged_by_its_length() -> None:
    reader = read(SSE, [events([{"choices": [{"delta": {"content": "word"}}]}])])
    assert charge(reader, sent=400_000) == 100_001


def test_usage_behind_thousands_of_strings_is_found() -> None:
    body = b'{"data":[' + b'"a",' * 5000 + b'"b"],"usage":{"prompt_tokens":5}}'
    for size in (len(body), 1001):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert read(JSON, pieces).tokens == Tokens(input=5, output=0)


def test_an_answer_that_is_left_before_its_usage_is_charged_by_its_length() -> None:
    _, body, tokens = ANSWERS["OpenAI"]
    reader = read(JSON, [body[:40]])
    assert charge(reader, sent=400, received=40, whole=False) == 110
    assert charge(reader, sent=0, received=40, whole=False) == 0  # nothing was asked of a model
    reader.feed(body[40:])
    assert charge(reader, sent=400, received=len(body), whole=False) == tokens.total


@pytest.mark.parametrize("content_type", [JSON, SSE])
@pytest.mark.parametrize(
    "piece", [b"x" * 65536, b"[" * 4096, b"data: [\n" * 512, b'\\"' * 32768, b"data:" * 13108]
)
def test_memory_is_bounded_whatever_comes(content_type: str, piece: bytes) -> None:
    reader = UsageReader(content_type)
    reader.feed(b'data: {"usage":{"a":"')
    tracemalloc.start()
    try:
        for _ in range(20):
            reader.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600_000


def test_a_text_of_brackets_without_end_is_not_looked_at_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage, "MAX_STEPS", 100)
    reader = read(JSON, [b"[]" * 60, b'{"usage":{"input_tokens":5}}'])
    assert reader.tokens is None
    assert reader._scanner._steps == 100


def test_usage_behind_megabytes_of_an_answer_is_found() -> None:
    body = b'{"data":[{"b64_json":"' + b"QUJD" * 2**20 + b'"}],"usage":{"input_tokens":5}}'
    assert read(JSON, split(body, list(range(0, len(body), 60_000)))).tokens == Tokens(5, 0)
    event = b"data: " + body + b"\n\n"
    assert read(SSE, split(event, list(range(0, len(event), 60_000)))).tokens == Tokens(5, 0)
