"""What agents say beside their text, through a real gateway: asked for, not asked for, wrong."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.http.conftest import Shared
from tests.http.raw import connected

INVOKE, CHAT = "/agent/scripted/invoke", "/agents/scripted/chat"

THOUGHT = {"type": "reasoning", "text": "Need the weather. "}
CALL = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
RESULT = {"type": "tool_result", "call": "c1", "content": "12 °C"}
OUTCOME = {"finish": "stop", "usage": {"input_tokens": 7, "output_tokens": 3}}
SCRIPT = [
    ["event", THOUGHT],
    ["event", CALL],
    ["event", RESULT],
    ["say", "It is "],
    ["say", "12."],
    ["end", OUTCOME],
]


def body(path: str, script: Any, **members: Any) -> dict[str, Any]:
    if path.endswith("/chat"):
        return {"messages": [{"role": "user", "content": script}], **members}
    return {"input": script, **members}


async def stream_of(shared: Shared, path: str, script: Any, **members: Any) -> bytes:
    async with connected(shared.port) as connection:
        await connection.request(path, body(path, script, stream=True, **members))
        answer = await connection.answer()
    assert answer.status == 200
    return answer.body


def data_line(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.mark.parametrize("path", [INVOKE, CHAT])
async def test_a_stream_has_events_in_their_place_where_they_were_asked_for(
    shared: Shared, path: str
) -> None:
    events = [b"event: agent\n" + data_line(event) for event in (THOUGHT, CALL, RESULT)]
    end = b'event: agent\ndata: {"type":"outcome","finish":"stop",'
    end += b'"usage":{"input_tokens":7,"output_tokens":3}}\n\ndata: [DONE]\n\n'
    text = b'data: {"chunk":"It is "}\n\ndata: {"chunk":"12."}\n\n'
    assert await stream_of(shared, path, SCRIPT, events=True) == b"".join(events) + text + end


@pytest.mark.parametrize("path", [INVOKE, CHAT])
async def test_a_stream_that_did_not_ask_is_the_one_that_it_always_was(
    shared: Shared, path: str
) -> None:
    text = b'data: {"chunk":"It is "}\n\ndata: {"chunk":"12."}\n\ndata: [DONE]\n\n'
    for members in ({}, {"events": False}, {"events": None}):
        assert await stream_of(shared, path, SCRIPT, **members) == text


async def test_one_answer_has_what_was_said_beside_it_where_it_was_asked_for(
    client: httpx.AsyncClient,
) -> None:
    beside = {**OUTCOME, "asks": [], "events": [THOUGHT, CALL, RESULT]}
    answer = await client.post(INVOKE, json=body(INVOKE, SCRIPT, events=True))
    assert answer.json() == {"output": "It is 12.", **beside}
    answer = await client.post(CHAT, json=body(CHAT, SCRIPT, events=True))
    assert answer.json() == {"message": {"role": "assistant", "content": "It is 12."}, **beside}


async def test_one_answer_that_did_not_ask_has_nothing_beside_it(client: httpx.AsyncClient) -> None:
    answer = await client.post(INVOKE, json=body(INVOKE, SCRIPT))
    assert answer.content == b'{"output":"It is 12."}'


async def test_a_shell_agent_answers_who_asks_for_events_as_it_always_did(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/agent/plain/invoke", json={"input": "x", "events": True})
    plain = await client.post("/agent/plain/invoke", json={"input": "x"})
    expected = {"finish": None, "usage": None, "asks": [], "events": []}
    assert answer.json() == {**plain.json(), **expected}


# What an agent gets


TOOLS = [{"name": "weather", "parameters": {"type": "object"}}]


async def test_tools_answers_and_the_trace_reach_an_agent_that_declares_them(
    client: httpx.AsyncClient,
) -> None:
    asked = {"tools": TOOLS, "resume": [{"id": "a1", "status": "resolved", "payload": {}}]}
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await client.post(
        "/agent/able/invoke",
        json=body(INVOKE, [["asked"]], events=True, **asked),
        headers={"traceparent": trace, "tracestate": "vendor=1"},
    )
    got = answer.json()["output"]
    assert {key: got[key] for key in ("events", "traceparent", "tracestate", *asked)} == {
        "events": True,
        "traceparent": trace,
        "tracestate": "vendor=1",
        **asked,
    }


async def test_what_is_not_asked_is_not_told_to_the_agent(client: httpx.AsyncClient) -> None:
    answer = await client.post(INVOKE, json=body(INVOKE, [["asked"]]))
    assert answer.json()["output"].keys() == {"input", "stream", "context", "request_id"}


@pytest.mark.parametrize("agent", ["scripted", "plain"])
@pytest.mark.parametrize(
    ("members", "field", "declaration"),
    [({"tools": TOOLS}, "tools", '"tools": true'), ({"resume": [{"id": "a"}]}, "resume", '"asks"')],
)
async def test_tools_for_an_agent_that_does_not_take_them_are_a_400_that_names_them(
    client: httpx.AsyncClient, agent: str, members: dict[str, Any], field: str, declaration: str
) -> None:
    await client.post(f"/agent/{agent}/invoke", json={"input": "x"})
    answer = await client.post(
        f"/agent/{agent}/invoke", json={"input": [["exit", 1]], "events": True, **members}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["field"]) == (400, "invalid_request", field)
    assert declaration in error["message"]


async def test_the_first_request_of_all_waits_for_what_its_worker_declares(
    client: httpx.AsyncClient,
) -> None:
    """Neither agent has a worker yet; a worker that was given the request would end."""
    asked = body(INVOKE, [["exit", 1]], events=True, tools=TOOLS)
    answer = await client.post("/agent/cold/invoke", json=asked)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "tools")
    asked = body(INVOKE, [["asked"]], events=True, tools=TOOLS)
    answer = await client.post("/agent/cold-able/invoke", json=asked)
    assert answer.json()["output"]["tools"] == TOOLS


@pytest.mark.parametrize("member", ["webhook", "tool_choice", "messages"])
async def test_a_member_that_nobody_would_honour_is_a_400_that_names_it(
    client: httpx.AsyncClient, member: str
) -> None:
    answer = await client.post(INVOKE, json={"input": 1, "tools": [], member: "…"})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == member


async def test_an_agents_status_tells_what_it_declares(client: httpx.AsyncClient) -> None:
    await client.post("/agent/able/invoke", json={"input": "x"})
    status = (await client.get("/agent/able")).json()
    assert {key: status[key] for key in ("input", "output", "modes", "tools", "asks")} == {
        "input": None,
        "output": None,
        "modes": [],
        "tools": True,
        "asks": True,
    }


# Hostile agents


WRONG = [
    {"type": "usage", "input_tokens": -1},
    {"type": "thought"},
    {"text": "no type"},
    {"type": "tool_call", "call": "c1", "name": "a"},
]


@pytest.mark.parametrize("event", WRONG, ids=[str(event)[:40] for event in WRONG])
async def test_a_wrong_event_before_the_answer_is_a_502(
    client: httpx.AsyncClient, event: dict[str, Any]
) -> None:
    answer = await client.post(INVOKE, json=body(INVOKE, [["event", event], ["end"]], events=True))
    assert answer.status_code == 502
    assert answer.json()["error"]["violation"] == "wrong_shape"


async def test_a_wrong_event_in_mid_stream_is_an_error_event_and_no_done(shared: Shared) -> None:
    script = [["event", THOUGHT], ["say", "a"], ["event", WRONG[0]], ["say", "b"], ["end"]]
    stream = await stream_of(shared, INVOKE, script, events=True)
    thought, text, error, rest = stream.split(b"\n\n")
    assert thought.startswith(b"event: agent\n")
    assert text == b'data: {"chunk":"a"}'
    assert error.startswith(b'event: error\ndata: {"error":{"type":"invalid_agent_response"')
    assert rest == b""


async def test_a_wrong_outcome_is_never_a_whole_answer(shared: Shared) -> None:
    script = [["say", "a"], ["end", {"finish": "input_required"}]]
    stream = await stream_of(shared, INVOKE, script, events=True)
    assert b"event: error" in stream
    assert b"[DONE]" not in stream


async def test_events_after_the_end_harm_nobody(client: httpx.AsyncClient) -> None:
    script = [["say", "a"], ["end"], ["event", THOUGHT]]
    for _ in range(3):
        answer = await client.post(INVOKE, json=body(INVOKE, script, events=True))
        assert (answer.status_code, answer.json()["output"]) == (200, "a")


async def test_a_line_that_would_end_an_event_early_does_not(shared: Shared) -> None:
    wild = '{"method":"event","params":{"id":<id>,"event":{"type":\r"x-a",\r"t":"\u2028"}}}'
    stream = await stream_of(shared, INVOKE, [["raw", wild], ["end"]], events=True)
    assert stream == (b'event: agent\ndata: {"type": "x-a", "t":"\\u2028"}\n\ndata: [DONE]\n\n')
