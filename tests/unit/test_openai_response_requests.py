"""Requests for Responses: what the agent is given, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.front.dialect import RequestHead
from gateway.front.openai.memory import Memory, Place
from tests.unit.openai_requests import (
    HELLO,
    messages_of,
    response,
    told,
)


def test_a_string_is_a_message_of_the_user_and_instructions_are_the_systems() -> None:
    call, _ = response(instructions="be brief")
    assert messages_of(call) == [{"role": "system", "content": "be brief"}, *HELLO]


ITEMS = [
    {"role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
    {"type": "message", "role": "user", "content": "weather?"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
    },
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"c":1}'},
    {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "12"},
    {
        "type": "function_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "13"}, {"type": "input_text", "text": "14"}],
    },
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "and this?"},
            {"type": "input_image", "image_url": "data:,", "detail": "low"},
            {"type": "input_file", "file_data": "data:,", "filename": "f"},
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        ],
    },
]

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"c":1}'},
            },
            {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "12"},
    {
        "role": "tool",
        "tool_call_id": "c2",
        "content": [{"type": "text", "text": "13"}, {"type": "text", "text": "14"}],
    },
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "and this?"},
            {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
            {"type": "file", "file": {"filename": "f", "file_data": "data:,"}},
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        ],
    },
]


def test_items_become_messages() -> None:
    call, _ = response(input=ITEMS)
    assert messages_of(call) == MESSAGES
    assert call.needs == {"image", "file", "audio"}


def test_a_call_before_its_message_is_one_message_with_it() -> None:
    items = [ITEMS[1], ITEMS[4], ITEMS[3], ITEMS[6]]
    assert [each["role"] for each in messages_of(response(input=items)[0])] == [
        "user",
        "assistant",
        "tool",
    ]


def test_two_requests_share_no_messages() -> None:
    response(input=ITEMS)
    assert messages_of(response()[0]) == HELLO


def test_what_was_said_can_be_referred_to_while_it_is_remembered() -> None:
    known = Memory()
    known.keep_item("", "msg_1", json.dumps(ITEMS[3]).encode())
    items = [{"type": "item_reference", "id": "msg_1"}, {"id": "rs_9"}, ITEMS[1]]
    call, _ = response(input=items, known=known)
    assert messages_of(call) == [{"role": "assistant", "content": "I look."}, MESSAGES[1]]
    with pytest.raises(InvalidRequest, match="item 'msg_1' not found"):
        response(input=items)


def test_the_last_response_names_its_conversation() -> None:
    known = Memory()
    place = Place("", "bot", "c-1")
    known.keep_response("resp_1", place)
    call, request = response(previous_response_id="resp_1", known=known)
    assert (call.conversation, request.place, request.previous) == ("c-1", place, "resp_1")
    assert told(call) == {"conversation_id": "c-1"}
    known.keep_response("resp_2", place)
    for members in (
        {"previous_response_id": "resp_1"},
        {"previous_response_id": "resp_3"},
        {"previous_response_id": "resp_2", "model": "other"},
    ):
        with pytest.raises(InvalidRequest, match="not found") as caught:
            response(known=known, **members)
        assert caught.value.details["code"] == "previous_response_not_found"
        assert caught.value.details["param"] == "previous_response_id"


@pytest.mark.parametrize("conversation", ["c-1", {"id": "c-1"}])
def test_a_conversation_is_the_agents(conversation: Any) -> None:
    call, request = response(conversation=conversation)
    assert (call.conversation, request.place) == ("c-1", Place("", "bot", "c-1"))
    with pytest.raises(InvalidRequest, match="name different conversations"):
        response(RequestHead(request_id="r", conversation=b"c-2"), conversation=conversation)


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"input": None}, "input", "'input' is missing"),
        ({"input": 1}, "input", "input: expected `array`"),
        ({"input": []}, "input", "holds no message"),
        ({"input": [{"type": "reasoning"}]}, "input", "holds no message"),
        ({"input": ["x"]}, "input", "input[0]: expected `object`"),
        ({"input": [{"role": "tool", "content": ""}]}, "input[0].role", "expected one of user"),
        ({"input": [{"role": "user"}]}, "input[0].content", "expected `array`"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "a tool that OpenAI runs"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id", "is missing"),
        ({"input": [{"type": "function_call"}]}, "input[0].call_id", "is missing"),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "n", "arguments": {}}]},
            "input[0].arguments",
            "not a string",
        ),
        (
            {"input": [{"type": "function_call_output", "output": "x"}]},
            "input[0].call_id",
            "is missing",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
            "is missing",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "x"}]}]},
            "input[0].content[0].type",
            "expected input_text",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "a tool that OpenAI runs"),
        (
            {"tools": [{"type": "function", "name": "n", "async": True}]},
            "tools[0].async",
            "until its output is sent",
        ),
        (
            {"tools": [{"type": "function", "name": "n", "allowed_callers": ["programmatic"]}]},
            "tools[0].allowed_callers",
            "calls tools directly",
        ),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode", "one way of thinking"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context", "not given back"),
        ({"reasoning": {"budget": 1}}, "reasoning.budget", "not supported"),
        ({"text": {"stop": "."}}, "text.stop", "not supported"),
        ({"include": ["message.output_text.logprobs"]}, "include", "does not tell any"),
        ({"prompt": {"id": "p"}}, "prompt", "no templates"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs", "none of OpenAI's"),
        ({"context_management": []}, "context_management", "leaves the context"),
        ({"previous_response_id": "r", "conversation": "c"}, "previous_response_id", "exclude"),
        ({"messages": HELLO}, "messages", "not supported"),
        ({"background": 1}, "background", "expected `bool | null`"),
    ],
)
def test_what_cannot_be_honoured_in_a_response_is_refused_by_name(members, param, words) -> None:
    with pytest.raises(InvalidRequest) as caught:
        response(**members)
    assert words in caught.value.message
    assert caught.value.details["param"] == param
