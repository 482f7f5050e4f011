"""From the bodies of OpenAI's API to a call: what passes, what is mapped, and every 400."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.chats.chat import MOST_THINGS
from gateway.front.chats.parameters import MOST_PARAMETER_BYTES
from gateway.front.dialect import RequestHead
from gateway.front.openai import (
    chat_request,
    content,
    memory,
    output,
    parameters,
    response_request,
)
from gateway.front.openai.chat_request import read_chat
from gateway.front.openai.memory import Memory, Place
from gateway.front.openai.response_request import ResponseRequest, read_response
from protocol import MAX_INPUT_NESTING, MAX_REQUEST_BYTES
from protocol.gateway_side import GatewayConnection
from tests.test_architecture import ROOT
from tests.unit.conftest import unhurried

HEAD = RequestHead(request_id="r-1")
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
CHAT_TOOL = {"type": "function", "function": TOOL}
FLAT_TOOL = {"type": "function", "strict": True, **TOOL}


def chat(head: RequestHead = HEAD, **members: Any) -> Call:
    body = {"model": "bot", "messages": HELLO, **members}
    return read_chat(head, json.dumps(body).encode())[0]


def response(
    head: RequestHead = HEAD, known: Memory | None = None, **members: Any
) -> tuple[Call, ResponseRequest]:
    body = {"model": "bot", "input": "hello", **members}
    return read_response(head, json.dumps(body).encode(), known or Memory())


def messages_of(call: Call) -> Any:
    return json.loads(bytes(call.payload))


def told(call: Call) -> Any:
    return json.loads(call.context)


# Chat completions


def test_messages_pass_through_as_the_bytes_they_are() -> None:
    messages = b'[ {"role":"user", "content" : "\\u00e9", "name":"n"}, {"role":"tool"}]'
    call, _ = read_chat(HEAD, b'{"messages":%b,"model":"bot"}' % messages)
    assert call.payload == messages
    assert (call.agent, call.method, call.stream, call.events) == ("bot", "chat", False, True)
    assert (call.context, call.tools, call.needs) == (b"{}", None, frozenset())


def test_developer_is_system_and_nothing_else_of_the_messages_changes() -> None:
    messages = (
        b'[{"role":"developer","content":"be brief","x":[1, 2.50]},'
        b'{"role":"user","content":"\\"developer\\" \\u00e9"}]'
    )
    call, _ = read_chat(HEAD, b'{"messages":%b,"model":"bot"}' % messages)
    assert call.payload == messages.replace(b'"developer","', b'"system","', 1)


@pytest.mark.parametrize(
    ("message", "passed"),
    [
        (b'{"role" :  "developer"}', b'{"role" :  "system"}'),
        (
            b'{"content":[{"type":"text","role":"developer"}],"role":"developer"}',
            b'{"content":[{"type":"text","role":"developer"}],"role":"system"}',
        ),
        (
            b'{"role":"user","content":[{"type":"text","role":"developer"}]}',
            b'{"role":"user","content":[{"type":"text","role":"developer"}]}',
        ),
        (
            b'{"role":"user","role":"developer","content":"\\"role\\":\\"developer\\""}',
            b'{"role":"user","role":"system","content":"\\"role\\":\\"developer\\""}',
        ),
    ],
)
def test_only_the_role_that_counts_is_changed(message: bytes, passed: bytes) -> None:
    call, _ = read_chat(HEAD, b'{"model":"bot","messages":[%b]}' % message)
    assert call.payload == b"[%b]" % passed


def test_a_developer_who_cannot_be_told_apart_is_refused() -> None:
    parts = b",".join([b'{"type":"text","role":"developer"}'] * 5)
    message = b'{"content":[%b],"role":"developer"}' % parts
    with pytest.raises(InvalidRequest, match="cannot be told"):
        read_chat(HEAD, b'{"model":"bot","messages":[%b]}' % message)
    with pytest.raises(InvalidRequest, match="1001 messages of a developer"):
        chat(messages=[{"role": "developer"}] * 1001)


@pytest.mark.parametrize(
    ("part", "needs"),
    [
        ({"type": "text", "text": "t"}, set()),
        ({"type": "image_url", "image_url": {"url": "data:,"}}, {"image"}),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, {"audio"}),
        ({"type": "file", "file": {"file_data": "data:,"}}, {"file"}),
    ],
)
def test_content_parts_are_for_agents_that_declare_them(part: Any, needs: set[str]) -> None:
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "t"}]}]
    call = chat(messages=messages)
    assert call.needs == needs
    assert messages_of(call) == messages


def test_tools_come_in_the_form_of_the_wire() -> None:
    call = chat(tools=[CHAT_TOOL], tool_choice="auto", parallel_tool_calls=False)
    assert json.loads(call.tools or b"") == [TOOL]
    assert call.needs == {"tools"}
    assert told(call)["parameters"] == {"tool_choice": "auto", "parallel_tool_calls": False}


@pytest.mark.parametrize("members", [{"tools": []}, {"tools": [CHAT_TOOL], "tool_choice": "none"}])
def test_an_agent_needs_to_know_nothing_of_tools_that_it_may_not_call(members: Any) -> None:
    call = chat(**members)
    assert (call.tools, call.needs) == (None, frozenset())


def test_a_choice_of_a_tool_is_told_in_one_form() -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    assert told(chat(tools=[CHAT_TOOL], tool_choice=choice))["parameters"]["tool_choice"] == choice
    call, _ = response(tools=[FLAT_TOOL], tool_choice={"type": "function", "name": "weather"})
    assert told(call)["parameters"]["tool_choice"] == choice


def test_who_asks_where_and_how_is_told_in_the_context() -> None:
    head = RequestHead(request_id="r", conversation=b"c-1", timeout=b"2")
    call = chat(head, user="u", metadata={"k": "v"}, temperature=0.5, stop=["a"], seed=None)
    assert told(call) == {
        "conversation_id": "c-1",
        "user_id": "u",
        "custom": {"k": "v"},
        "parameters": {"temperature": 0.5, "stop": ["a"]},
    }
    assert (call.conversation, call.total) == ("c-1", 2.0)
    assert told(chat(safety_identifier="s")) == {"user_id": "s"}


CHAT_PARAMETERS = {
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 3.0,
    "min_p": 0.5,
    "repetition_penalty": 1.5,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "stop": "x",
    "seed": 7,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"50256": -100.0},
    "reasoning_effort": "low",
    "verbosity": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "parallel_tool_calls": True,
}


def test_every_parameter_for_the_agent_is_told_as_it_is() -> None:
    assert told(chat(**CHAT_PARAMETERS)) == {"parameters": CHAT_PARAMETERS}
    assert {*chat_request._PASSED} == {*CHAT_PARAMETERS}


def test_responses_tell_the_agent_the_names_of_chat_completions() -> None:
    format_ = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    call, _ = response(
        temperature=0.5,
        max_output_tokens=9,
        max_tool_calls=2,
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": format_, "verbosity": "low"},
        truncation="auto",
    )
    assert told(call)["parameters"] == {
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "max_tool_calls": 2,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "truncation": "auto",
        "verbosity": "low",
    }


HINTS = {
    "store": True,
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "implicit"},
    "top_logprobs": 0,
}


def test_hints_are_ignored() -> None:
    assert chat(**HINTS, prediction={"type": "content"}, n=1, logprobs=False).context == b"{}"
    call, _ = response(
        **HINTS,
        include=["reasoning.encrypted_content"],
        stream_options={},
        reasoning={"summary": "auto", "generate_summary": "auto", "mode": "standard"},
    )
    assert call.context == b"{}"


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"n": 2}, "n", "an agent gives one answer"),
        ({"logprobs": True}, "logprobs", "probabilities"),
        ({"top_logprobs": 3}, "top_logprobs", "probabilities"),
        ({"modalities": ["text", "audio"]}, "modalities", "answers with text"),
        ({"audio": {"voice": "v"}}, "audio", "answers with text"),
        ({"functions": []}, "functions", "replaced by 'tools'"),
        ({"function_call": "auto"}, "function_call", "replaced by 'tools'"),
        ({"web_search_options": {}}, "web_search_options", "searches nothing"),
        ({"moderation": {}}, "moderation", "moderates nothing"),
        ({"unknown": 1}, "unknown", "'unknown' is not supported"),
        ({"temperature": "hot"}, "temperature", "temperature: expected `float | null`"),
        ({"model": 1}, "model", "model: expected `str`"),
        ({"messages": []}, "messages", "'messages' is empty"),
        ({"messages": [{"role": "function"}]}, "messages", "expected one of system, user"),
        ({"tools": 1}, "tools", "tools: expected `array`"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type", "a tool that OpenAI runs"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "has no name"),
        ({"tools": [CHAT_TOOL, CHAT_TOOL]}, "tools", "two have the same name"),
        ({"tools": [CHAT_TOOL] * 200}, "tools", "tools: "),
        ({"tools": [CHAT_TOOL], "tool_choice": "some"}, "tool_choice", "expected 'none'"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "not one of the tools",
        ),
        ({"metadata": {"a": 1}}, "metadata", "expected `str`"),
        ({"metadata": {"a": "x" * 513}}, "metadata", "length <= 512"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "length <= 16"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "messages[0].content[0].type",
            "'video', expected one of text",
        ),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content", "object"),
    ],
)
def test_what_cannot_be_honoured_in_a_chat_is_refused_by_name(members, param, words) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**members)
    assert words in caught.value.message
    assert caught.value.details["param"] == param


@pytest.mark.parametrize("body", [b"{}", b'{"model": "bot"}', b'{"messages": []}'])
def test_what_is_missing_is_named(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is missing") as caught:
        read_chat(HEAD, body)
    assert caught.value.details["param"] in {"model", "messages"}


# Responses


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


# Hostile bodies

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CHAT_MEMBERS = chat_request.ChatBody.__struct_fields__
RESPONSE_MEMBERS = response_request.ResponseBody.__struct_fields__


def check(call: Call) -> None:
    """The call can be sent to a worker, as one line."""
    sent = GatewayConnection().send_request(
        "chat",
        call.payload,
        stream=call.stream,
        context=call.context,
        request_id=call.request_id,
        events=True,
        tools=call.tools,
    )
    line = b"".join(bytes(part) for part in sent[1])
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["params"]["messages"]


@unhurried
@given(st.dictionaries(st.sampled_from(CHAT_MEMBERS), JSON, max_size=3))
@example({"messages": [{"role": "user", "content": [{}]}]})
@example({"tools": [{"type": "function", "function": {"name": "a\nb"}}]})
@example({"seed": 10**40})
@example({"temperature": 1e308})
def test_any_chat_body_is_a_call_or_a_400(members: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        check(chat(**members))


@unhurried
@given(st.dictionaries(st.sampled_from(RESPONSE_MEMBERS), JSON, max_size=3))
@example({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]})
@example({"text": {"format": {"type": 1}}})
@example({"conversation": ""})
def test_any_response_body_is_a_call_or_a_400(members: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        call, request = response(**members)
        check(call)
        assert json.loads(b"{%b}" % request.echo)["tool_choice"]


ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["message", "function_call", "function_call_output", "reasoning", "item_reference"]
        )
        | JSON,
        "role": st.sampled_from(["user", "assistant", "developer"]) | JSON,
        "content": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["input_text", "output_text", "input_image"])},
                optional={"text": JSON, "image_url": JSON, "detail": JSON},
            ),
            max_size=2,
        ),
        "call_id": JSON,
        "name": JSON,
        "arguments": JSON,
        "output": JSON,
        "id": JSON,
    },
)


@unhurried
@given(st.lists(ITEM, max_size=4))
def test_any_items_are_messages_or_a_400(items: list[Any]) -> None:
    with suppress(InvalidRequest):
        check(response(input=items)[0])


@pytest.mark.parametrize(
    "read", [read_chat, lambda head, body: read_response(head, body, Memory())]
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model":"\xff"}',
        b'\xef\xbb\xbf{"model":"bot"}',
        b'{"model":"bot","input":"\\ud800","messages":[]}',
        b'{"model":"bot","tools":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"bot","metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"model":"bot","tools":' + b"[" * 120 + b"]" * 120 + b',"input":"x","messages":[]}',
        b'{"model":"bot","temperature":1e999,"input":"x","messages":[{"role":"user"}]}',
    ],
)
def test_what_is_no_body_is_a_400(read: Any, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(HEAD, body)


def test_of_a_member_given_twice_the_last_counts_for_the_gateway_and_the_agent() -> None:
    once = b'"model":"a","messages":[],"user":"x"'
    again = b'"model":"b","messages":[{"role":"user"}],"user":"y"'
    call, _ = read_chat(HEAD, b"{%b,%b}" % (once, again))
    assert (call.agent, call.payload, told(call)) == ("b", b'[{"role":"user"}]', {"user_id": "y"})


def test_a_deep_schema_is_refused_before_it_can_break_a_worker() -> None:
    schema: Any = {}
    for _ in range(MAX_INPUT_NESTING):
        schema = {"properties": schema}
    with pytest.raises(InvalidRequest, match="nests arrays and objects deeper"):
        chat(tools=[{"type": "function", "function": {"name": "n", "parameters": schema}}])


def test_what_makes_too_long_a_line_is_refused() -> None:
    text = "\u2028" * (MAX_REQUEST_BYTES // 5)
    with pytest.raises(RequestTooLarge):
        response(input=text)
    with pytest.raises(RequestTooLarge):
        chat(messages=[{"role": "user", "content": text}])


MANY = 100_000


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"metadata": {str(n): "" for n in range(MANY)}}, "beside messages, input"),
        ({"stop": ["x"] * MANY}, "beside messages, input"),
        ({"logit_bias": {str(n): 1 for n in range(MANY)}}, "beside messages, input"),
        ({"tools": [CHAT_TOOL] * MANY}, "tools: "),
        (
            {"tools": [{"type": "function", "function": {"name": "n", "parameters": [0] * MANY}}]},
            "expected an object",
        ),
        ({"messages": [{"role": "developer"}] * MANY}, "of a developer"),
    ],
)
def test_what_would_take_many_objects_is_refused_before_it_does(members: Any, words: str) -> None:
    body = json.dumps({"model": "bot", "messages": HELLO, **members}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=words):
            read_chat(HEAD, body)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "said",
    [
        [{"role": "user", "content": ""}] * 10_001,
        [{"role": "user", "content": [{"type": "input_text", "text": ""}] * 10_000}],
    ],
)
def test_too_many_items_are_refused(said: Any) -> None:
    with pytest.raises(InvalidRequest, match="more than 10000 items and parts"):
        response(input=said)


def test_long_tools_are_told_by_name_only() -> None:
    long = [{**FLAT_TOOL, "name": f"n{n}", "description": "x" * 10_000} for n in range(10)]
    _, request = response(tools=long)
    told_again = json.loads(b"{%b}" % request.echo)["tools"]
    assert [tool["name"] for tool in told_again] == [tool["name"] for tool in long]
    assert {tool["description"] for tool in told_again} == {None}


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_large_image_is_not_held_many_times(api: str) -> None:
    url = "data:image/png;base64," + "A" * 4_000_000
    if api == "chat":
        part: Any = {"type": "image_url", "image_url": {"url": url}}
        members: Any = {"messages": [{"role": "user", "content": [part]}]}
    else:
        part = {"type": "input_image", "image_url": url}
        members = {"input": [{"role": "user", "content": [part]}]}
    body = json.dumps({"model": "bot", **members}).encode()
    del url, part, members
    tracemalloc.start()
    try:
        if api == "chat":
            read_chat(HEAD, body)
        else:
            read_response(HEAD, body, Memory())
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


README = (ROOT / "gateway" / "front" / "openai" / "README.md").read_text(encoding="utf-8")
SHOWN_OTHERWISE = {"reasoning": "reasoning.effort", "text": "text.format"}
OF_RUNS = {"background"}


@pytest.mark.parametrize("name", sorted({*CHAT_MEMBERS, *RESPONSE_MEMBERS} - OF_RUNS))
def test_every_parameter_stands_in_the_readme(name: str) -> None:
    assert f"`{SHOWN_OTHERWISE.get(name, name)}`" in README


def test_every_bound_that_the_readme_tells_is_so() -> None:
    text = " ".join(README.split())
    assert f"at most {parameters.MOST_METADATA} pairs" in text
    assert f"it may have {output.MAX_OUTPUT // 1024**2} MiB in all" in text
    assert f"at most {output.MOST_ITEMS:,} output items" in text
    assert f"The last {memory.MOST_RESPONSES:,} such responses" in text
    assert f"at most {memory.MOST_ITEM_BYTES // 1024} KiB" in text
    assert f"{content.MOST_DEVELOPERS:,} messages of a developer" in text
    assert f"{MOST_THINGS:,} items and parts" in text
    assert f"{MOST_PARAMETER_BYTES // 1024} KiB of everything else" in text
    remembered = (
        f"{memory.MOST_ITEMS:,} items and {memory.MOST_BYTES // 1024**2} MiB are remembered"
    )
    assert remembered in text
