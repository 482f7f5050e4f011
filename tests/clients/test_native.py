"""The same events, as the gateway's own API has them when they are asked for."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.clients.clients import AUTHORIZATION
from tests.clients.runners import TOOL
from tests.clients.scenarios import USAGE
from tests.harness import GatewayInThread, parse_events

SPENT = dict(zip(("input_tokens", "output_tokens"), USAGE, strict=True))


def ask(gateway: GatewayInThread, task: str, **body: Any) -> str:
    """The text of the response to one user's message."""
    messages = [{"role": "user", "content": task}]
    with httpx.Client(
        base_url=gateway.url, headers=AUTHORIZATION, timeout=30, verify=False
    ) as client:
        response = client.post("/agent/told/chat", json={"messages": messages, **body})
    assert response.status_code == 200, response.text
    return response.text


def stream(gateway: GatewayInThread, task: str, **body: Any) -> list[Any]:
    """The stream's items in order: chunks as strings, events as objects."""
    *items, done = parse_events(ask(gateway, task, stream=True, **body))
    assert done == "[DONE]"
    return [
        json.loads(item.removeprefix("agent "))
        if item.startswith("agent ")
        else json.loads(item)["chunk"]
        for item in items
    ]


CALL = {"type": "tool_call", "call": "s1", "name": "search", "arguments": {"query": "cats"}}
RESULT = {"type": "tool_result", "call": "s1", "content": "3 pages"}


def test_events_stand_between_the_chunks_in_the_order_in_which_they_were_said(
    gateway: GatewayInThread,
) -> None:
    assert stream(gateway, "search", events=True)[:5] == [
        {"type": "status", "text": "Searching"},
        "Let me see. ",
        CALL,
        RESULT,
        "Found 3 pages.",
    ]


def test_a_stream_without_events_is_as_it_always_was(gateway: GatewayInThread) -> None:
    assert stream(gateway, "search") == ["Let me see. ", "Found 3 pages."]
    assert stream(gateway, "ask") == ["One thing. "]


def test_one_answer_has_them_beside_its_message(gateway: GatewayInThread) -> None:
    answer = json.loads(ask(gateway, "search", events=True))
    assert answer["message"] == {"role": "assistant", "content": "Let me see. Found 3 pages."}
    assert answer["finish"] == "stop"
    assert answer["usage"] == SPENT
    assert [each for each in answer["events"] if each["type"].startswith("tool")] == [CALL, RESULT]
    assert json.loads(ask(gateway, "search")).keys() == {"message"}


def test_a_question_ends_the_turn_and_is_told(gateway: GatewayInThread) -> None:
    answer = json.loads(ask(gateway, "ask", events=True))
    assert answer["finish"] == "input_required"
    [question] = answer["asks"]
    assert (question["id"], question["message"]) == ("a1", "Which day?")


def test_a_tool_of_the_clients_is_called_through_the_native_api(gateway: GatewayInThread) -> None:
    answer = json.loads(ask(gateway, "weather", events=True, tools=[TOOL]))
    assert answer["finish"] == "tool_calls"
    [call] = [each for each in answer["events"] if each["type"] == "tool_call"]
    assert (call["name"], call["arguments"]) == ("weather", {"city": "Oslo"})
