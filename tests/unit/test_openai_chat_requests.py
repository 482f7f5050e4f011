"""Requests for chat completions: what the agent is given, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.front.dialect import RequestHead
from gateway.front.openai import (
    chat_request,
)
from gateway.front.openai.chat_request import read_chat
from tests.unit.openai_requests import (
    CHAT_TOOL,
    FLAT_TOOL,
    HEAD,
    TOOL,
    chat,
    messages_of,
    response,
    told,
)


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
        background_options={"completion_window": "8h"},
        image={"context_compression": "auto"},
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
