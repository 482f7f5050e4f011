"""From the bodies of Anthropic's Messages to a call: what passes, what is mapped, and every 400."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from anthropic.types.beta import message_create_params
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.anthropic.conversation import FAILED
from gateway.front.anthropic.parameters import MessagesBody
from gateway.front.anthropic.request import KNOWN_VERSIONS, MessagesRequest, read_messages
from gateway.front.chats.chat import MOST_THINGS
from gateway.front.chats.parameters import MOST_PARAMETER_BYTES
from gateway.front.dialect import RequestHead
from protocol import MAX_REQUEST_BYTES
from tests.test_architecture import ROOT
from tests.unit.conftest import unhurried

VERSION = {b"anthropic-version": b"2026-10-21"}
HEAD = RequestHead(request_id="r-1", fields=VERSION)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
TEXT = {"type": "text", "text": "t"}


def read(head: RequestHead = HEAD, **members: Any) -> tuple[Call, MessagesRequest]:
    body = {"model": "bot", "max_tokens": 9, "messages": HELLO, **members}
    return read_messages(head, json.dumps(body).encode())


def call_of(head: RequestHead = HEAD, **members: Any) -> Call:
    return read(head, **members)[0]


def messages_of(call: Call) -> Any:
    return json.loads(bytes(call.payload))


def told(call: Call) -> Any:
    return json.loads(call.context)


def turns(*contents: Any) -> list[dict[str, Any]]:
    """Messages of the user and the assistant, one after the other."""
    return [
        {"role": "assistant" if index % 2 else "user", "content": content}
        for index, content in enumerate(contents)
    ]


def refused(**members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**members)
    return caught.value


# Messages


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


# Hostile bodies


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
    body = json.dumps({"model": "bot", "max_tokens": 9, "messages": HELLO, **members}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=words):
            read_messages(HEAD, body)
        assert tracemalloc.get_traced_memory()[1] < 48 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_large_image_is_not_held_many_times() -> None:
    source = {**PNG, "data": "A" * 4_000_000}
    body = json.dumps(
        {"model": "bot", "max_tokens": 9, "messages": turns([{"type": "image", "source": source}])}
    ).encode()
    del source
    tracemalloc.start()
    try:
        read_messages(HEAD, body)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


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
MEMBERS = sorted(set(MessagesBody.__struct_fields__) - {"model"})


@unhurried
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON_VALUES, max_size=5))
def test_any_body_becomes_a_line_for_the_agent_or_a_400(members: dict[str, Any]) -> None:
    body = {"model": "bot", "max_tokens": 9, "messages": HELLO, **members}
    with suppress(InvalidRequest):
        call, _ = read_messages(HEAD, json.dumps(body).encode())
        assert messages_of(call)
        assert told(call)
        for line in (bytes(call.payload), call.context, call.tools or b""):
            assert b"\n" not in line


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
