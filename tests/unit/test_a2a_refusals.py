"""Requests of A2A that are refused: each has its code and the name of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.errors import AgentFailed, GatewayError, InvalidRequest, NotFound
from gateway.front.a2a.dialect import A2ACodec, A2ADialect
from gateway.front.a2a.errors import CODES, encode_error
from gateway.front.a2a.sending import TOOLS
from gateway.front.dialect import RequestHead, RunRequest
from protocol import MAX_INPUT_NESTING
from tests.unit.a2a import (
    VERSION,
    a2a,
    body_of,
    message,
    rpc,
    talk,
)
from tests.unit.memory import SPARE, most_memory
from tests.unit.runs import Client

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PART = st.one_of(
    JUNK,
    st.fixed_dictionaries(
        {},
        optional={
            "text": JUNK,
            "raw": JUNK | st.just("aGk="),
            "url": JUNK,
            "data": JUNK,
            "mediaType": JUNK | st.sampled_from(["image/png", "audio/wav", "a/b;c"]),
            "filename": JUNK,
        },
    ),
    st.just({"text": "x"}),
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "messageId": JUNK | st.just("m"),
        "message_id": JUNK,
        "contextId": JUNK,
        "taskId": JUNK,
        "role": JUNK | st.just("ROLE_USER"),
        "parts": JUNK | st.lists(PART, max_size=3),
        "metadata": JUNK | st.fixed_dictionaries({TOOLS: JUNK}),
        "referenceTaskIds": JUNK,
    },
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "message": JUNK | MESSAGE,
        "configuration": JUNK
        | st.fixed_dictionaries(
            {}, optional={"historyLength": JUNK, "history_length": JUNK, "returnImmediately": JUNK}
        ),
        "metadata": JUNK,
        "tenant": JUNK,
        "id": JUNK,
        "pageSize": JUNK,
        "pageToken": JUNK,
        "status": JUNK,
        "statusTimestampAfter": JUNK,
    },
)
METHODS = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "GetExtendedAgentCard",
)


@given(st.sampled_from(METHODS), JUNK | PARAMS, JUNK | st.just(1))
def test_any_body_is_a_request_or_a_refusal(method: str, params: Any, rpc_id: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params})
    codec = A2ACodec("a", None)
    head = RequestHead("r", fields={b"a2a-version": b"1.0", b"authorization": b"x"})
    try:
        asked: Any = codec.decode(head, body.encode("utf-8", "replace"))
    except GatewayError as error:
        asked = error
    if isinstance(asked, GatewayError):
        told = json.loads(codec.encode_error(asked, "r").body)
        assert (asked.status in {400, 413}, told["jsonrpc"]) == (True, "2.0")
        assert told["error"]["code"] < 0
    else:
        assert isinstance(asked, Call | RunRequest)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"message/send"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetExtendedAgentCard"}', -32004),
        (b'{"jsonrpc":"2.0","id":1,"method":"CreateTaskPushNotificationConfig"}', -32003),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":%b}}'
            % (b"[" * MAX_INPUT_NESTING + b"]" * MAX_INPUT_NESTING),
            -32602,
        ),
    ],
)
async def test_a_wrong_request_has_its_code(body: bytes, code: int) -> None:
    async with a2a(talk) as it:
        client = Client(body)
        scope = it.scope_of("/a2a/a", VERSION)
        await it.routes(scope, client.receive, client.send)
        assert (client.status, client.json["error"]["code"]) == (200, code)
        known = b'"id":1,' in body
        assert client.json["id"] == (1 if known else None)


@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({}, -32602, "message"),
        ({"message": message()}, -32602, "message.parts"),
        ({"message": {"role": "ROLE_USER", "parts": []}}, -32602, "message.messageId"),
        ({"message": message("x", role="ROLE_AGENT")}, -32602, "message.role"),
        ({"message": message("x", role="user")}, -32602, "message.role"),
        ({"message": message({})}, -32602, "message.parts[0]"),
        ({"message": message({"text": "x", "data": 1})}, -32602, "message.parts[0]"),
        ({"message": message({"text": 5})}, -32602, "message.parts[0].text"),
        ({"message": message({"raw": "!", "mediaType": "a/b"})}, -32602, "message.parts[0].raw"),
        ({"message": message({"raw": "", "mediaType": "x"})}, -32602, "message.parts[0].mediaType"),
        ({"message": message({"url": "file:///etc/passwd"})}, -32005, None),
        ({"message": message("x", contextId="c" * 300)}, -32602, "message.contextId"),
        ({"message": message("x"), "tenant": "b"}, -32602, "tenant"),
        ({"message": message("x", metadata=[])}, -32602, "message.metadata"),
        ({"message": message("x", metadata={TOOLS: 5})}, -32602, "metadata"),
        (
            {"message": message("x"), "configuration": {"historyLength": -1}},
            -32602,
            "configuration.historyLength",
        ),
        (
            {
                "message": message("x"),
                "configuration": {"taskPushNotificationConfig": {"url": "http://x"}},
            },
            -32003,
            None,
        ),
    ],
)
async def test_a_wrong_message_is_refused_by_the_name_of_what_is_wrong(
    params: Any, code: int, field: str | None
) -> None:
    async with a2a(talk) as it:
        error = (await rpc(it, "SendMessage", params)).json["error"]
        assert error["code"] == code
        if field is not None:
            [violation] = error["data"][1]["fieldViolations"]
            assert violation["field"] == field


MANY = 100_000
"""More than any list may have."""


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (b'{"message":{"task_id":"t","parts":[%b]}}', "message.parts"),
        (b'{"message":{"taskId":"t","messageId":"m","role":"ROLE_USER","parts":[%b]}}', ""),
        (
            (
                b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}],'
                b'"referenceTaskIds":[%b]}}'
            ),
            "message.referenceTaskIds",
        ),
        (
            (
                b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]},'
                b'"configuration":{"acceptedOutputModes":[%b]}}'
            ),
            "configuration.acceptedOutputModes",
        ),
    ],
)
def test_long_lists_are_refused_before_anything_is_made_of_them(params: bytes, field: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":%b}' % (
        params % b",".join([b"{}"] * MANY)
    )
    with (
        pytest.raises(InvalidRequest, match="has more than") as refused,
        most_memory(len(body) + SPARE),
    ):
        A2ACodec("a", None).decode(RequestHead("r", fields={b"a2a-version": b"1.0"}), body)
    assert refused.value.message.startswith(field or "message.parts")


def test_members_that_are_not_known_cost_nothing_beside_one_in_snake_case() -> None:
    unknown = b",".join(b'"%d":0' % index for index in range(MANY))
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"history_length":0,"id":"task_x",%b}}'
        % unknown
    )
    with most_memory(2 * len(body) + SPARE):
        asked = A2ACodec("a", None).decode(RequestHead("r", fields={b"a2a-version": b"1.0"}), body)
    assert asked == RunRequest("show", "x")


# Versions


@pytest.mark.parametrize("version", [None, "", "0.3", "1.1", "1", "1.0, 0.3"])
async def test_no_other_version_is_spoken(version: str | None) -> None:
    async with a2a(talk) as it:
        body = body_of("GetTask", {"id": "x"})
        headers = {} if version is None else {"a2a-version": version}
        error = (await it.ask("/a2a/a", body, headers=headers)).json["error"]
        assert (error["code"], error["data"][0]["reason"]) == (-32009, "VERSION_NOT_SUPPORTED")


async def test_the_version_may_have_a_patch_or_stand_in_the_query() -> None:
    async with a2a(talk) as it:
        body = body_of("GetTask", {"id": "x"})
        for headers, query in (({"a2a-version": "1.0.3"}, ""), ({}, "x=1&A2A-Version=1.0")):
            client = await it.ask("/a2a/a/", body, headers=headers, query=query)
            assert client.json["error"]["code"] == -32001


def test_a_head_without_a_query_has_no_version() -> None:
    codec = A2ACodec("a", None)
    with pytest.raises(InvalidRequest, match="no A2A-Version"):
        codec.decode(RequestHead("r"), b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}')


# Paths


def test_errors_of_paths_are_not_of_tasks() -> None:
    dialect = A2ADialect()
    assert (
        dialect.match("/a2a/") is dialect.match("/a2a/x/y") is dialect.match_run("/a2a/x") is None
    )
    assert dialect.covers("/a2a/x/y") is True
    response = dialect.encode_error(NotFound("nothing"), "r1")
    assert (response.status, json.loads(response.body)["error"]["code"]) == (404, -32000)
    assert json.loads(response.body)["error"]["data"][0]["metadata"]["requestId"] == "r1"
    assert set(CODES.values()) & set(range(-32009, -32000)) == set(range(-32009, -32000)) - {
        -32007,
        -32008,
    }
    assert encode_error(AgentFailed("x"), "r").status == 500
