"""Requests of Anthropic's API beside their messages: parameters, tools and the version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types.beta import message_create_params

from gateway.errors import InvalidRequest
from gateway.front.anthropic.parameters import MessagesBody
from gateway.front.anthropic.request import KNOWN_VERSIONS, read_messages
from gateway.front.chats.chat import MOST_THINGS
from gateway.front.chats.parameters import MOST_PARAMETER_BYTES
from gateway.front.dialect import RequestHead
from tests.test_architecture import ROOT
from tests.unit.anthropic import (
    HEAD,
    HELLO,
    MEMBERS,
    TOOL,
    VERSION,
    call_of,
    read,
    refused,
    told,
)

# Parameters


def test_what_is_for_the_model_reaches_the_agent_in_the_words_of_chat_completions() -> None:
    schema = {"type": "object"}
    call = call_of(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop_sequences=["END"],
        thinking={"type": "enabled", "budget_tokens": 2048},
        output_config={
            "effort": "low",
            "format": {"type": "json_schema", "schema": schema},
            "task_budget": {"type": "tokens", "total": 9},
        },
        tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    assert told(call)["parameters"] == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        },
        "task_budget": {"type": "tokens", "total": 9},
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


def test_the_format_of_the_answer_has_an_older_name() -> None:
    form = {"type": "json_schema", "schema": {}}
    newer, older = call_of(output_config={"format": form}), call_of(output_format=form)
    assert told(newer) == told(older)
    assert refused(output_config={"format": form}, output_format=form).details["param"] == (
        "output_format"
    )


def test_who_asks_and_where_is_told() -> None:
    head = RequestHead(request_id="r", conversation=b"c", timeout=b"2", fields=VERSION)
    call = call_of(head, metadata={"user_id": "u"})
    assert (call.conversation, call.user, call.total) == ("c", "u", 2.0)
    assert told(call)["conversation_id"] == "c"
    assert told(call)["user_id"] == "u"


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        (None, True),
        ({"type": "adaptive"}, True),
        ({"type": "between_tools"}, True),
        ({"type": "enabled", "budget_tokens": 1024, "display": "summarized"}, True),
        ({"type": "adaptive", "display": "omitted"}, False),
        ({"type": "disabled"}, False),
    ],
)
def test_thoughts_are_shown_unless_they_are_not_wanted(thinking: Any, shown: bool) -> None:
    assert read(thinking=thinking)[1].shows_thinking is shown


IGNORED = {
    "billing_policy": {"type": "billing_policy", "bill_to": "self"},
    "cache_control": {"type": "ephemeral"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "diagnostics": {"previous_message_id": "msg_1"},
    "service_tier": "auto",
    "speed": "fast",
}
REFUSED = {
    "compaction": {"type": "summarize"},
    "container": "container_1",
    "fallback_credit_token": "x",
    "fallbacks": [{"model": "other"}],
    "inference_geo": "us",
    "mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}],
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_changes_nothing_is_ignored(name: str) -> None:
    assert call_of(**{name: IGNORED[name]}) == call_of()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    error = refused(**{name: REFUSED[name]})
    assert error.details == {"param": name, "code": "unsupported_parameter"}
    assert call_of(**{name: None}) == call_of()


def test_a_thread_is_refused_as_the_clients_know_it() -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        code = "thread_unsupported_request"
        assert refused(thread=thread).details == {"param": "thread", "code": code}
    assert call_of(thread=None) == call_of()


@pytest.mark.parametrize(("name", "value"), [("mcp_servers", []), ("fallbacks", "default")])
def test_what_asks_for_nothing_else_is_accepted(name: str, value: Any) -> None:
    assert call_of(**{name: value}) == call_of()


def test_every_parameter_that_the_client_knows_is_known() -> None:
    """Those that are header fields, or of the client alone, are no members of a body."""
    known = set(MessagesBody.__struct_fields__)
    of_the_client = set(message_create_params.MessageCreateParamsBase.__annotations__)
    assert of_the_client - known == {"betas", "user_profile_id", "workspace_id"}


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"n": 2}, "n", "unknown_parameter"),
        ({"metadata": {"user_id": 5}}, "metadata", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_type"),
        ({"max_tokens": None}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"stop_sequences": "x"}, "stop_sequences", "invalid_type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "missing_required_parameter"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 9}},
         "thinking.budget_tokens", "invalid_request"),
        ({"thinking": {"type": "often"}}, "thinking", "invalid_type"),
        ({"thinking": {"type": "adaptive", "more": 1}}, "thinking.more", "unknown_parameter"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config", "invalid_type"),
        ({"output_config": {"tone": "x"}}, "output_config.tone", "unknown_parameter"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_by_name(members: Any, param: str, code: str) -> None:
    assert refused(**members).details == {"param": param, "code": code}


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_what_every_request_has_is_needed(name: str) -> None:
    body = {"model": "bot", "max_tokens": 9, "messages": HELLO}
    del body[name]
    with pytest.raises(InvalidRequest) as caught:
        read_messages(HEAD, json.dumps(body).encode())
    assert caught.value.details == {"param": name, "code": "missing_required_parameter"}


# Tools
def test_tools_reach_the_agent_in_the_form_of_the_wire() -> None:
    more = {"type": "custom", "strict": True, "input_examples": [{}], "defer_loading": True}
    call, request = read(tools=[{**TOOL, **more}, {"name": "a.b", "input_schema": {}}])
    assert json.loads(call.tools or b"") == [
        {"name": "weather", "description": "d", "parameters": {"type": "object"}},
        {"name": "a.b", "description": "", "parameters": {}},
    ]
    assert request.tools == {"weather", "a.b"}
    assert call.needs == {"tools"}
    assert "tool_choice" not in told(call)["parameters"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        (
            {"type": "auto", "disable_parallel_tool_use": False},
            {"tool_choice": "auto", "parallel_tool_calls": True},
        ),
        ({"type": "any"}, {"tool_choice": "required"}),
        (
            {"type": "tool", "name": "weather"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (None, {}),
    ],
)
def test_a_choice_is_told_in_the_words_of_chat_completions(choice: Any, said: Any) -> None:
    call = call_of(tools=[TOOL], tool_choice=choice)
    assert told(call)["parameters"] == {"max_tokens": 9, **said}


def test_tools_that_may_not_be_called_are_not_offered() -> None:
    call, request = read(tools=[TOOL], tool_choice={"type": "none"})
    assert (call.tools, call.needs, request.tools) == (None, frozenset(), frozenset())


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "a", "input_schema": []}]}, "tools[0].input_schema"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "s"}]}, "tools[1].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        (
            {"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "other"}, "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "auto", "more": 1}}, "tool_choice"),
    ],
)
def test_a_wrong_tool_is_refused(members: Any, param: str) -> None:
    assert refused(**members).details["param"] == param


# The version
@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_every_known_version_is_the_same(version: str) -> None:
    head = RequestHead(request_id="r-1", fields={b"anthropic-version": version.encode()})
    assert call_of(head, temperature=1.0) == call_of(temperature=1.0)


@pytest.mark.parametrize("version", [None, b"", b"2023-01-01", b"2023-06-01\n2023-06-01", b"\xff"])
def test_any_other_version_is_refused(version: bytes | None) -> None:
    fields = {} if version is None else {b"anthropic-version": version}
    with pytest.raises(InvalidRequest, match="expected 2023-06-01 or 2026-10-21") as caught:
        call_of(RequestHead(request_id="r", fields=fields))
    assert caught.value.details["param"] == "anthropic-version"


# What the documentation says
README = " ".join(
    (ROOT / "gateway" / "front" / "anthropic" / "README.md").read_text(encoding="utf-8").split()
)


SHOWN_OTHERWISE = {"output_config": "output_config.effort"}


@pytest.mark.parametrize("name", MEMBERS)
def test_every_parameter_stands_in_the_readme(name: str) -> None:
    assert f"`{SHOWN_OTHERWISE.get(name, name)}`" in README


def test_every_bound_that_the_readme_tells_is_so() -> None:
    assert f"{MOST_THINGS:,} messages, blocks" in README
    assert f"{MOST_PARAMETER_BYTES // 1024} KiB of everything else" in README
    for version in KNOWN_VERSIONS:
        assert f"`{version}`" in README
