"""Hostile bodies of Anthropic's Messages: each is refused, and none takes much memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.anthropic.request import read_messages
from protocol import MAX_REQUEST_BYTES
from tests.unit.anthropic import (
    HEAD,
    MEMBERS,
    PNG,
    TEXT,
    TOOL,
    body_of,
    messages_of,
    read,
    told,
    turns,
)
from tests.unit.conftest import unhurried
from tests.unit.memory import most_memory


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model":"\xff"}',
        b'\xef\xbb\xbf{"model":"bot"}',
        b'{"model":"bot","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}],"x":1}',
        b'{"model":"bot","max_tokens":1,"tools":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"bot","max_tokens":1,"messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"bot","max_tokens":1,"diagnostics":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"model":"bot","max_tokens":1e999,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"bot","max_tokens":' + b"9" * 5000 + b',"messages":[]}',
    ],
)
def test_what_is_no_body_is_a_400(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_messages(HEAD, body)


def test_what_makes_too_long_a_line_is_refused() -> None:
    with pytest.raises(RequestTooLarge):
        read(messages=turns("\u2028" * (MAX_REQUEST_BYTES // 5)))


MANY = 30_000
RESULT = {"type": "tool_result", "tool_use_id": "c"}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"stop_sequences": ["x"] * MANY}, "beside messages, system and tools"),
        ({"mcp_servers": ["none"] * MANY}, "beside messages, system and tools"),
        ({"metadata": {str(n): "" for n in range(MANY)}}, "beside messages, system and tools"),
        ({"tools": [TOOL] * MANY}, "tools: "),
        ({"messages": turns(*["x"] * MANY)}, "more than 10000 items and parts"),
        ({"messages": turns([TEXT] * MANY)}, "more than 10000 items and parts"),
        ({"system": [TEXT] * MANY}, "more than 10000 items and parts"),
        (
            {"messages": turns([{**RESULT, "content": [TEXT] * MANY}])},
            "more than 10000 items and parts",
        ),
    ],
)  # fmt: skip
def test_what_would_take_many_objects_is_refused(members: Any, words: str) -> None:
    body = body_of(**members)
    with most_memory(48 * 1024 * 1024), pytest.raises(InvalidRequest, match=words):
        read_messages(HEAD, body)


def test_a_large_image_is_not_held_many_times() -> None:
    source = {**PNG, "data": "A" * 4_000_000}
    body = body_of(messages=turns([{"type": "image", "source": source}]))
    del source
    with most_memory(3 * len(body)):
        read_messages(HEAD, body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("text"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "source", "data", "id", "input"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@unhurried
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON_VALUES, max_size=5))
def test_any_body_becomes_a_line_for_the_agent_or_a_400(members: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        call, _ = read(**members)
        assert messages_of(call)
        assert told(call)
        for line in (bytes(call.payload), call.context, call.tools or b""):
            assert b"\n" not in line
