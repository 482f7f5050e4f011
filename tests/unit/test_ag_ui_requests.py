"""Inputs of runs: what the agent gets of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from ag_ui.core import RunAgentInput
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import (
    AgentFailed,
    GatewayError,
    InvalidRequest,
    RateLimited,
    RequestTooLarge,
    Unauthorized,
)
from gateway.front.ag_ui.dialect import AGUIDialect, RunCodec
from gateway.front.ag_ui.messages import MOST_THINGS
from gateway.front.described import AgentView
from gateway.front.dialect import RequestHead
from gateway.front.dialects import serve_dialects
from gateway.front.docs.document import make_document
from gateway.needs import unmet_needs
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS
from tests.unit.ag_ui import HEAD, HISTORY, TOOLS, USER, body_of
from tests.unit.conftest import unhurried

DATA = {"type": "data", "value": "aGk=", "mimeType": "image/png"}
URL = {"type": "url", "value": "https://example.org/a.png"}


def read(head: RequestHead = HEAD, **members: Any) -> Call:
    call = RunCodec("bot").decode(head, body_of(**members))
    assert isinstance(call, Call)
    return call


def messages_of(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as the agent gets them."""
    assert RunAgentInput.model_validate(json.loads(body_of(messages=messages)))
    found: list[dict[str, Any]] = json.loads(read(messages=messages).payload)
    return found


def refused(**members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**members)
    assert not isinstance(caught.value, RequestTooLarge)
    return caught.value


def user(content: Any) -> dict[str, Any]:
    return {"id": "m1", "role": "user", "content": content}


def part(kind: str, source: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": kind, "source": source, **members}


# What the agent gets


def test_a_run_is_a_chat_that_is_streamed() -> None:
    call = read()
    assert (call.agent, call.method, call.stream, call.events) == ("bot", "chat", True, True)
    assert (call.conversation, call.needs, call.tools, call.resume) == (
        "t",
        frozenset(),
        None,
        None,
    )
    assert json.loads(call.context) == {"conversation_id": "t", "run_id": "r"}


def test_messages_of_every_role_reach_the_agent_in_its_form() -> None:
    said = messages_of(
        {"id": "s", "role": "system", "content": "Be kind."},
        {"id": "d", "role": "developer", "content": "Be brief.", "name": "ann"},
        user("hi"),
        {"id": "t", "role": "reasoning", "content": "hm"},
        {"id": "a", "role": "activity", "activityType": "x", "content": {}},
        *HISTORY,
        {"id": "m4", "role": "tool", "toolCallId": "old", "content": "", "error": "no luck"},
        {"id": "m5", "role": "assistant", "content": "Done."},
    )
    function = {"name": "weather", "arguments": "{}"}
    assert [message["role"] for message in said] == [
        "system", "system", "user", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip
    assert said[1] == {"role": "system", "id": "d", "content": "Be brief.", "name": "ann"}
    assert said[3]["content"] is None
    assert said[3]["tool_calls"][0] == {"id": "old", "function": function, "type": "function"}
    assert said[5] == {
        "role": "tool", "id": "m4", "content": "", "tool_call_id": "old", "error": "no luck",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "given_to_agent", "mode"),
    [
        (
            part("image", DATA),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            "image",
        ),
        (part("image", URL), {"type": "image_url", "image_url": {"url": URL["value"]}}, "image"),
        (
            part("audio", {**DATA, "mimeType": "audio/mpeg"}),
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
            "audio",
        ),
        (
            part("audio", {**DATA, "mimeType": "audio/wav; rate=1"}),
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            "audio",
        ),
        (
            part("video", {**DATA, "mimeType": "video/mp4"}),
            {
                "type": "file",
                "file": {"filename": "file", "file_data": "data:video/mp4;base64,aGk="},
            },
            "file",
        ),
        (
            part("document", {**DATA, "mimeType": "text/csv"}, metadata={"filename": "a.csv"}),
            {
                "type": "file",
                "file": {"filename": "a.csv", "file_data": "data:text/csv;base64,aGk="},
            },
            "file",
        ),
    ],
)
def test_parts_of_every_kind_reach_an_agent_that_takes_them(
    sent: dict[str, Any], given_to_agent: dict[str, Any], mode: str
) -> None:
    content = [{"type": "text", "text": "look"}, sent]
    [said] = messages_of(user(content))
    assert said["content"] == [{"type": "text", "text": "look"}, given_to_agent]
    assert read(messages=[user(content)]).needs == {mode}


def test_a_content_of_one_text_is_a_string() -> None:
    [said] = messages_of(user([{"type": "text", "text": "hi"}]))
    assert said["content"] == "hi"


def test_tools_and_answers_reach_an_agent_that_takes_them() -> None:
    metadata = {"signature": "x"}
    call = read(
        tools=[{**TOOLS[0], "metadata": {"icon": "sun"}}, {"name": "clock", "description": ""}],
        resume=[
            {"interruptId": "a1", "status": "resolved", "payload": {"ok": True}},
            {"interruptId": "a2", "status": "cancelled", "payload": None, "metadata": metadata},
        ],
    )
    assert json.loads(call.tools or b"") == [
        TOOLS[0],
        {"name": "clock", "description": "", "parameters": None},
    ]
    assert json.loads(call.resume or b"") == [
        {"id": "a1", "status": "resolved", "payload": {"ok": True}},
        {"id": "a2", "status": "cancelled", "metadata": metadata},
    ]
    assert call.needs == {"tools", "asks"}
    lacking = unmet_needs("bot", call.needs, None)
    assert lacking is not None
    assert lacking.details["field"] == "resume"


def test_the_rest_of_the_input_is_in_the_context() -> None:
    hints = [{"description": "the page", "value": "/home"}]
    call = read(
        parentRunId="r0", state={"a": [1]}, context=hints, forwardedProps={"b": "\u2028"},
        protocolVersion="1.0",
    )  # fmt: skip
    assert json.loads(call.context) == {
        "conversation_id": "t",
        "run_id": "r",
        "parent_run_id": "r0",
        "state": {"a": [1]},
        "context": hints,
        "forwarded_props": {"b": "\u2028"},
    }
    assert len(call.context.decode().splitlines()) == 1


def test_what_is_as_good_as_absent_is_left_out() -> None:
    nothing: dict[str, Any] = {
        "state": {}, "forwardedProps": {}, "tools": [], "context": [], "resume": [],
        "parentRunId": None, "protocolVersion": None,
    }  # fmt: skip
    assert read(**nothing) == read()
    assert read(**dict.fromkeys(nothing)) == read()
    assert json.loads(read(state=[]).context)["state"] == []


def test_members_that_the_protocol_does_not_know_are_passed_over() -> None:
    message = {**USER, "later": 1, "subagentRunId": None}
    assert read(messages=[message], later={"a": 1}) == read()


def test_a_header_may_name_the_same_conversation() -> None:
    assert read(RequestHead(request_id="r-1", conversation=b"t")).conversation == "t"
    with pytest.raises(InvalidRequest, match="different conversations"):
        read(RequestHead(request_id="r-1", conversation=b"u"))


# What is refused


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"threadId": 1}, "threadId"),
        ({"threadId": ""}, "threadId"),
        ({"runId": "x" * 257}, "runId"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
        ({"messages": [{**USER, "role": "robot"}]}, "messages"),
        ({"messages": [user(5)]}, "messages[0].content"),
        ({"messages": [user([{"type": "binary"}])]}, "messages[0].content"),
        ({"messages": [user([part("image", {"type": "file", "value": "f1"})])]},
         "messages[0].content[0].source"),
        ({"messages": [user([part("document", URL)])]}, "messages[0].content[0].source"),
        ({"messages": [{"id": "t", "role": "reasoning", "content": "hm"}]}, "messages"),
        ({"tools": [{"name": "x"}]}, "tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [{**TOOLS[0], "parameters": 1}]}, "tools"),
        ({"tools": [{**TOOLS[0], "name": f"t{i}"} for i in range(MAX_TOOLS + 1)]}, "tools"),
        ({"context": ["x"]}, "context"),
        ({"resume": [{"interruptId": "a", "status": "maybe"}]}, "resume"),
        ({"resume": [{"interruptId": "a", "status": "cancelled", "payload": 1}]}, "resume"),
        ({"resume": [{"interruptId": "", "status": "cancelled"}]}, "resume"),
        ({"resume": [{"interruptId": f"a{i}", "status": "cancelled"}
                     for i in range(MAX_ASKS + 1)]}, "resume"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_place(members: dict[str, Any], field: str) -> None:
    error = refused(**members)
    assert error.details["field"] == field, error.message
    assert field.partition("[")[0] in error.message


def test_a_body_that_is_none_is_refused() -> None:
    for body in (b"", b"[]", b"{", b"\xff", b"{}", b"null", b'{"threadId":"t","runId":"r"}'):
        with pytest.raises(InvalidRequest):
            RunCodec("bot").decode(HEAD, body)


def test_a_body_that_nests_too_deeply_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert "nests" in refused(state=deep).message


def test_a_conversation_may_have_so_many_messages_and_parts() -> None:
    parts = [{"type": "text", "text": ""}] * (MOST_THINGS - 1)
    read(messages=[user(parts)])
    refused(messages=[user([*parts, parts[0]])])
    refused(messages=[USER] * (MOST_THINGS + 1))


def test_an_input_that_grows_beyond_a_line_is_refused() -> None:
    with pytest.raises(RequestTooLarge):
        read(state="\u2028" * 2_000_000)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "role", "content", "type", "source", "toolCalls", "name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        "threadId", "runId", "parentRunId", "protocolVersion", "messages", "tools", "context",
        "resume", "state", "forwardedProps",
    ]
)  # fmt: skip


@given(st.dictionaries(MEMBERS, JSON_VALUES, max_size=4))
@unhurried
def test_any_member_is_read_or_refused(members: dict[str, Any]) -> None:
    try:
        call = read(**members)
    except (InvalidRequest, RequestTooLarge):
        return
    assert msgspec.json.decode(call.payload)
    assert msgspec.json.decode(call.context)["run_id"]


# Its description


DOCUMENT = json.loads(
    msgspec.json.encode(
        make_document(
            [AgentView("bot")],
            [each.describe for each in serve_dialects(["ag-ui"])],
            version="1",
            keys=True,
            metrics=False,
        )
    )
)
BODY = DOCUMENT["paths"]["/ag-ui/bot"]["post"]["requestBody"]["content"]["application/json"]
ALLOWED = jsonschema_rs.validator_for(
    {**BODY["schema"], "components": DOCUMENT["components"]}, offline=True
)


def test_its_example_is_a_run() -> None:
    assert ALLOWED.is_valid(BODY["example"])
    assert RunCodec("bot").decode(HEAD, json.dumps(BODY["example"]).encode())


@given(st.dictionaries(MEMBERS, JSON_VALUES, max_size=4))
@unhurried
def test_what_is_accepted_is_described(members: dict[str, Any]) -> None:
    try:
        read(**members)
    except InvalidRequest:
        return
    assert ALLOWED.is_valid(json.loads(body_of(**members)))


@pytest.mark.parametrize(
    "members",
    [
        {"threadId": 1}, {"runId": ""}, {"messages": []}, {"messages": [{"role": "user"}]},
        {"messages": [user(5)]}, {"tools": [{"name": "x"}]}, {"context": ["x"]},
        {"resume": [{"interruptId": "a", "status": "maybe"}]},
    ],
)  # fmt: skip
def test_what_is_refused_is_described_as_such(members: dict[str, Any]) -> None:
    refused(**members)
    assert not ALLOWED.is_valid(json.loads(body_of(**members)))


# Paths and errors


@pytest.mark.parametrize(
    ("path", "agent"),
    [
        ("/ag-ui/bot", "bot"),
        ("/ag-ui/", None),
        ("/ag-ui", None),
        ("/ag-ui/bot/", None),
        ("/ag-ui/bot/x", None),
        ("/agent/bot", None),
    ],
)
def test_one_path_calls_an_agent(path: str, agent: str | None) -> None:
    dialect = AGUIDialect()
    codec = dialect.match(path)
    assert (None if codec is None else codec.agent) == agent
    assert dialect.covers(path) is path.startswith("/ag-ui/")
    assert dialect.match_run(path) is None


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", field="tools"),
        Unauthorized("no key"),
        RateLimited("slowly", retry_after=2.5, setting="rate"),
        AgentFailed("no luck", code=-32603),
    ],
)
def test_an_error_is_a_status_with_a_message_and_a_code(error: GatewayError) -> None:
    response = RunCodec("bot").encode_error(error, "r-1", False)
    assert response.status == error.status
    assert json.loads(response.body) == {
        "message": error.message,
        "code": error.type,
        "metadata": {**error.details, "request_id": "r-1", "output_begun": False},
    }
    described = DOCUMENT["components"]["responses"][f"AGUIError{error.status}"]["content"]
    allows = jsonschema_rs.validator_for(
        {**described["application/json"]["schema"], "components": DOCUMENT["components"]},
        offline=True,
    )
    assert allows.is_valid(json.loads(response.body))
