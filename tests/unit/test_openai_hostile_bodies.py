"""Any body for OpenAI's two endpoints is a call or a 400, within bounds that the README tells."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from gateway.call import Call
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.front.chats.chat import MOST_THINGS
from gateway.front.chats.parameters import MOST_PARAMETER_BYTES
from gateway.front.openai import (
    chat_request,
    content,
    memory,
    output,
    parameters,
    response_request,
)
from gateway.front.openai.chat_request import read_chat
from gateway.front.openai.memory import Memory
from gateway.front.openai.response_request import read_response
from protocol import MAX_INPUT_NESTING, MAX_REQUEST_BYTES
from protocol.gateway_side import GatewayConnection
from tests.test_architecture import ROOT
from tests.unit.conftest import unhurried
from tests.unit.openai_requests import (
    CHAT_TOOL,
    FLAT_TOOL,
    HEAD,
    HELLO,
    chat,
    response,
    told,
)

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


def test_every_parameter_that_the_client_knows_is_known() -> None:
    of_chats = completion_create_params.CompletionCreateParamsBase.__annotations__
    assert set(of_chats) <= set(CHAT_MEMBERS)
    of_responses = response_create_params.ResponseCreateParamsBase.__annotations__
    assert set(of_responses) <= set(RESPONSE_MEMBERS)


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
