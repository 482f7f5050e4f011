"""A2A's messages: how they reach the agent, and the task or stream that answers each."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio

from gateway.call import Call
from gateway.errors import AgentFailed, InvalidRequest
from gateway.exchange import Exchange
from gateway.front.a2a import task
from gateway.front.a2a.sending import TOOLS
from protocol import Outcome
from tests.unit.a2a import (
    TOOL,
    a2a,
    begin,
    event,
    message,
    results,
    rpc,
    send,
    states,
    talk,
    text_of,
)
from tests.unit.runs import say


async def test_a_message_is_answered_with_its_task_once_that_is_done(
    autojump_clock: object,
) -> None:
    async with a2a(talk) as it:
        told = await send(it, "hi", contextId="c1")
        assert told["status"]["state"] == task.COMPLETED
        assert (told["contextId"], told["metadata"]["usage"]["input_tokens"]) == ("c1", 7)
        [artifact] = told["artifacts"]
        assert artifact["parts"] == [{"text": "Hello, there"}]
        [said] = told["history"]
        assert (said["taskId"], said["parts"]) == (told["id"], [{"text": "hi"}])


async def test_a_message_need_not_wait_for_its_task(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        began = await begin(it, "hi")
        assert began["status"]["state"] == task.WORKING
        await trio.sleep(0.5)
        now = (await rpc(it, "GetTask", {"id": began["id"]})).json["result"]
        assert text_of(now["artifacts"]) == "Hello, "
        await trio.sleep(1)
        then = (await rpc(it, "GetTask", {"id": began["id"], "history_length": 0})).json["result"]
        assert (text_of(then["artifacts"]), "history" in then) == ("Hello, there", False)
        preferred = await rpc(it, "SendMessage", {"message": message("hi")}, prefer="respond-async")
        assert preferred.json["result"]["task"]["status"]["state"] == task.WORKING


async def test_a_stream_has_the_task_and_then_what_changes(autojump_clock: object) -> None:
    async def work(exchange: Exchange) -> None:
        event(exchange, type="status", text="Searching")
        event(exchange, type="reasoning", text="Hm.")
        event(exchange, type="tool_call", call="s1", name="search", arguments={"q": "x"})
        event(exchange, type="tool_result", call="s1", content="3 pages")
        say(exchange, "Found ", "it.")
        data = base64.b64encode(b"hello").decode()
        event(exchange, type="file", name="a.txt", mime="text/plain", data=data)
        event(exchange, type="usage", input_tokens=1)
        exchange.end()

    async with a2a(work) as it:
        client = await rpc(it, "SendStreamingMessage", {"message": message("hi")})
        told = results(client)
        assert states(told) == ["WORKING"] * 6 + ["COMPLETED"]
        ids = {told[0]["task"]["id"], *(each["statusUpdate"]["taskId"] for each in told[1:6])}
        assert len(ids) == 1
        shown = [each["statusUpdate"]["status"]["message"]["parts"] for each in told[2:6]]
        assert shown[0][0] == {"text": "Searching"}
        assert [parts[-1]["data"]["type"] for parts in shown] == [
            "status",
            "reasoning",
            "tool_call",
            "tool_result",
        ]
        updates = [each["artifactUpdate"] for each in told if "artifactUpdate" in each]
        assert [each["append"] for each in updates] == [False, True, False]
        assert text_of([each["artifact"] for each in updates]) == "Found it."
        [part] = updates[2]["artifact"]["parts"]
        assert part == {"raw": "aGVsbG8=", "filename": "a.txt", "mediaType": "text/plain"}
        kept = (await rpc(it, "GetTask", {"id": ids.pop()})).json["result"]
        assert [each["name"] for each in kept["artifacts"]] == ["answer", "a.txt"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(AgentFailed("no luck"), task.FAILED), (InvalidRequest("no such city"), task.REJECTED)],
)
async def test_a_failure_is_a_state_of_the_task(error: Any, state: str) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.fail(error)

    async with a2a(fail) as it:
        told = (await send(it, "hi"))["status"]
        assert told["state"] == state
        parts = told["message"]["parts"]
        assert parts[0] == {"text": error.message}
        assert parts[1]["data"]["error"]["type"] == error.type
        client = await rpc(it, "SendStreamingMessage", {"message": message("hi")})
        assert states(results(client))[-1] == state.removeprefix("TASK_STATE_")


@pytest.mark.parametrize(
    ("outcome", "state", "finish"),
    [
        (Outcome("length"), task.COMPLETED, "length"),
        (Outcome("refused"), task.REJECTED, None),
        (Outcome("tool_calls"), task.COMPLETED, None),
    ],
)
async def test_how_an_answer_ended_is_told(outcome: Outcome, state: str, finish: Any) -> None:
    async def end(exchange: Exchange) -> None:
        exchange.end(outcome=outcome)

    async with a2a(end) as it:
        told = await send(it, "hi")
        assert (told["status"]["state"], told.get("metadata", {}).get("finish")) == (state, finish)


async def test_data_alone_is_the_input_of_an_invoke() -> None:
    async def echo(exchange: Exchange) -> None:
        assert exchange.call.method == "invoke"
        exchange.end(b'{"got":%b}' % bytes(exchange.call.payload))

    async with a2a(echo) as it:
        [artifact] = (await send(it, {"data": {"x": 1}}))["artifacts"]
        assert artifact["parts"][0]["data"] == {"got": {"x": 1}}


async def test_other_messages_reach_the_agent_as_a_chat() -> None:
    seen: list[Call] = []

    async def note(exchange: Exchange) -> None:
        seen.append(exchange.call)
        exchange.end(b'{"role":"assistant","content":{"k":1}}')

    async with a2a(note) as it:
        told = await send(it, "Hello")
        assert told["artifacts"][0]["parts"][0]["data"] == {"k": 1}
        await send(
            it,
            "See",
            {"data": [1]},
            {"raw": "iVBORw", "mediaType": "image/png"},
            {"url": "https://x.example/i", "mediaType": "image/png"},
            {"raw": "aGk=", "mediaType": "audio/wav"},
            {"raw": "aGk=", "mediaType": "application/pdf", "filename": "a.pdf"},
            metadata={"who": "me", TOOLS: [TOOL]},
        )
    plain, rich = seen
    assert json.loads(bytes(plain.payload)) == [{"role": "user", "content": "Hello"}]
    assert (plain.stream, plain.continues, plain.needs) == (True, True, frozenset())
    assert rich.needs == {"image", "audio", "file", "tools"}
    [said] = json.loads(bytes(rich.payload))
    types = ["text", "text", "image_url", "image_url", "input_audio", "file"]
    assert [part["type"] for part in said["content"]] == types
    assert said["content"][2]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    context = json.loads(rich.context)
    assert context["custom"] == {"who": "me"}
    assert context["parameters"]["message_id"] == "m1"
    assert context["conversation_id"].startswith("context_")
