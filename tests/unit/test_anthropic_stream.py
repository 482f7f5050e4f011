"""Streams of Anthropic's messages: every event is one that its client's types accept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import (
    WorkerCrashed,
)
from gateway.front.anthropic.dialect import MessagesCodec
from gateway.front.anthropic.stream import PING, MessageStream
from gateway.front.chats.parts import MAX_EVENTS_AT_ONCE
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
    content_of,
    events_of,
    put_together,
    streamed,
    words_of,
)
from tests.unit.conftest import unhurried


def test_a_stream_encoder_is_made_by_the_codec() -> None:
    codec = MessagesCodec()
    assert isinstance(codec.stream(begin(codec, stream=True)), MessageStream)


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


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


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
