"""From the messages of Anthropic's API to a chat: what passes, what is mapped, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.front.anthropic.conversation import FAILED
from gateway.front.anthropic.request import MessagesRequest
from tests.unit.anthropic import (
    HELLO,
    PDF,
    PNG,
    TEXT,
    call_of,
    messages_of,
    read,
    refused,
    told,
    turns,
)


def test_a_message_is_one_of_the_chat() -> None:
    call, request = read()
    assert messages_of(call) == HELLO
    assert (call.agent, call.method, call.stream, call.events) == ("bot", "chat", False, True)
    assert (call.tools, call.needs, call.continues) == (None, frozenset(), False)
    assert told(call) == {"parameters": {"max_tokens": 9}}
    assert request == MessagesRequest("bot", frozenset(), shows_thinking=True)


@pytest.mark.parametrize(
    ("system", "content"),
    [("be brief", "be brief"), ([TEXT], "t"), ([TEXT, TEXT], [TEXT, TEXT])],
)
def test_what_the_system_says_comes_first(system: Any, content: Any) -> None:
    assert messages_of(call_of(system=system)) == [{"role": "system", "content": content}, *HELLO]
    among = [*HELLO, {"role": "system", "content": system}]
    assert messages_of(call_of(messages=among)) == [*HELLO, {"role": "system", "content": content}]


@pytest.mark.parametrize(
    ("block", "parts", "needs"),
    [
        ({**TEXT, "cache_control": {"type": "ephemeral"}, "citations": None}, [TEXT], set()),
        (
            {"type": "image", "source": PNG},
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}],
            {"image"},
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
            [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
            {"image"},
        ),
        (
            {"type": "document", "source": PDF, "title": "a.pdf", "context": "c"},
            [
                {"type": "text", "text": "c"},
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,JVBERi0=",
                    },
                },
            ],
            {"file"},
        ),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                "title": "T",
                "context": "c",
                "citations": {"enabled": False},
            },
            [{"type": "text", "text": "T\nc"}, {"type": "text", "text": "d"}],
            set(),
        ),
        (
            {
                "type": "document",
                "source": {"type": "content", "content": [TEXT, {"type": "image", "source": PNG}]},
            },
            [
                TEXT,
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
            ],
            {"image"},
        ),
        (
            {"type": "document", "source": {"type": "content", "content": "d"}},
            [{"type": "text", "text": "d"}],
            set(),
        ),
        (
            {
                "type": "search_result",
                "title": "T",
                "source": "https://a.example",
                "content": [TEXT],
            },
            [{"type": "text", "text": "T\nhttps://a.example"}, TEXT],
            set(),
        ),
    ],
)
def test_a_block_becomes_parts(block: Any, parts: Any, needs: set[str]) -> None:
    call = call_of(messages=turns([block, TEXT]))
    assert messages_of(call) == [{"role": "user", "content": [*parts, TEXT]}]
    assert call.needs == needs
    [result] = messages_of(
        call_of(
            messages=turns([{"type": "tool_result", "tool_use_id": "c1", "content": [block, TEXT]}])
        )
    )
    assert result == {"role": "tool", "tool_call_id": "c1", "content": [*parts, TEXT]}


def test_one_text_is_a_string_for_the_simplest_agents() -> None:
    call = call_of(messages=turns([TEXT], [TEXT], []))
    assert messages_of(call) == turns("t", "t", "")


def test_a_round_of_tools_is_one_of_chat_completions() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    redacted = {"type": "redacted_thinking", "data": "x"}
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}
    other = {"type": "tool_use", "id": "c2", "name": "clock", "input": {}}
    results = [
        {"type": "text", "text": "and now?"},
        {"type": "tool_result", "tool_use_id": "c1", "content": "12 °C"},
        {"type": "tool_result", "tool_use_id": "c2"},
    ]
    call = call_of(messages=turns("hi", [thinking, redacted, TEXT, use, other], results))
    assert messages_of(call) == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "t",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        {"role": "user", "content": "and now?"},
    ]


def test_calls_without_a_text_have_none_beside_them() -> None:
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    _, said = messages_of(call_of(messages=turns("hi", [use])))
    assert said["content"] is None
    assert len(said["tool_calls"]) == 1


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ('not "found"', f'{FAILED} not "found"'),
        ([TEXT], f"{FAILED} t"),
        (None, FAILED),
        ([], FAILED),
        (
            [{"type": "image", "source": PNG}],
            [
                {"type": "text", "text": FAILED},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
            ],
        ),
    ],
)
def test_a_tool_that_failed_says_so(content: Any, shown: Any) -> None:
    block = {"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": content}
    [result] = messages_of(call_of(messages=turns([block])))
    assert result["content"] == shown


def test_what_was_thought_is_not_given_back() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert messages_of(call_of(messages=turns("hi", [thinking], "go on"))) == [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "go on"},
    ]


def test_blocks_of_what_anthropic_runs_are_refused_by_name() -> None:
    for kind in ("server_tool_use", "web_search_tool_result", "container_upload", "mcp_tool_use"):
        error = refused(messages=turns("hi", [{"type": kind}]))
        assert error.details == {
            "param": "messages[1].content[0].type",
            "code": "unsupported_parameter",
        }
        assert repr(kind) in error.message
        assert refused(messages=turns([TEXT, {"type": kind}])).details["param"] == (
            "messages[0].content[1].type"
        )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "tool", "content": "x"}], "messages"),
        ([{"role": "user"}], "messages"),
        (turns(5), "messages[0].content"),
        (turns({}), "messages[0].content"),
        (turns([{}]), "messages[0].content"),
        (turns([5]), "messages[0].content"),
        (turns([{"type": "text"}]), "messages[0].content[0].text"),
        (turns([{"type": "text", "text": 5}]), "messages[0].content[0].text"),
        (turns([{"type": "tool_use", "id": "c", "name": "n", "input": {}}]),
         "messages[0].content[0].type"),
        (turns([{"type": "tool_result"}]), "messages[0].content[0].tool_use_id"),
        (turns([{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "tool_use"}]}]),
         "messages[0].content[0].content[0].type"),
        (turns("a", [{"type": "image", "source": PNG}]), "messages[1].content[0].type"),
        (turns("a", [{"type": "document", "source": PDF}]), "messages[1].content[0].type"),
        (turns("a", [{"type": "tool_use", "name": "n", "input": {}}]), "messages[1].content[0].id"),
        (turns("a", [{"type": "tool_use", "id": "c", "input": {}}]), "messages[1].content[0].name"),
        (turns("a", [{"type": "tool_use", "id": "c", "name": "n"}]),
         "messages[1].content[0].input"),
        (turns("a", [{"type": "tool_use", "id": "c", "name": "n", "input": "{}"}]),
         "messages[1].content[0].input"),
        (turns([{"type": "image"}]), "messages[0].content[0].source"),
        (turns([{"type": "image", "source": "x"}]), "messages[0].content[0].source"),
        (turns([{"type": "image", "source": {"type": "file", "file_id": "f"}}]),
         "messages[0].content[0].source.type"),
        (turns([{"type": "image", "source": {**PNG, "data": 5}}]),
         "messages[0].content[0].source.data"),
        (turns([{"type": "image", "source": {**PNG, "media_type": 'a/b";x="'}}]),
         "messages[0].content[0].source.media_type"),
        (turns([{"type": "image", "source": {"type": "url"}}]),
         "messages[0].content[0].source.url"),
        (turns([{"type": "document", "source": {"type": "url", "url": "https://a.example"}}]),
         "messages[0].content[0].source.type"),
        (turns([{"type": "document", "source": PDF, "citations": {"enabled": True}}]),
         "messages[0].content[0].citations"),
        (turns([{"type": "document", "source": PDF, "citations": True}]),
         "messages[0].content[0].citations"),
        (turns([{"type": "document", "source": {"type": "content", "content": [
            {"type": "document", "source": PDF}]}}]),
         "messages[0].content[0].source.content[0].type"),
        (turns([{"type": "search_result", "title": "t", "content": []}]),
         "messages[0].content[0].source"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_refused_where_it_is_wrong(messages: Any, param: str) -> None:
    assert refused(messages=messages).details["param"] == param


@pytest.mark.parametrize("system", [5, {}, [{"type": "image", "source": PNG}], [5]])
def test_a_wrong_system_is_refused(system: Any) -> None:
    assert refused(system=system).details["param"].startswith("system")


def test_messages_that_tell_nothing_are_refused() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    message = refused(messages=[{"role": "assistant", "content": [thinking]}]).message
    assert "nothing that an agent is told" in message
