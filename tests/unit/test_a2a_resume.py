"""Tasks of A2A that wait for their client, and the messages that they go on with."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from gateway.call import Call
from gateway.exchange import Exchange
from gateway.front.a2a import task
from gateway.front.a2a.dialect import A2ADialect
from gateway.front.a2a.sending import TOOLS
from protocol import Outcome
from tests.unit.a2a import (
    ASKS,
    TOOL,
    VERSION,
    a2a,
    begin,
    body_of,
    event,
    message,
    rpc,
    send,
    talk,
    text_of,
)
from tests.unit.asgi import DIALECTS
from tests.unit.runs import keyed, say, scene


async def test_a_question_is_answered_under_the_same_id(autojump_clock: object) -> None:
    seen: list[Call] = []

    async def ask(exchange: Exchange) -> None:
        seen.append(exchange.call)
        if exchange.call.resume is None:
            say(exchange, "One thing. ")
            exchange.end(outcome=Outcome("input_required", asks=ASKS))
        else:
            say(exchange, "Then Tuesday.")
            exchange.end()

    async with a2a(ask) as it:
        asked = await send(it, "Plan", contextId="c1")
        assert asked["status"]["state"] == task.INPUT_REQUIRED
        parts = asked["status"]["message"]["parts"]
        assert parts[0] == {"text": "Which day?"}
        assert parts[1]["data"]["asks"][0]["id"] == "a1"
        done = await send(it, "Tuesday", taskId=asked["id"])
        assert (done["id"], done["contextId"]) == (asked["id"], "c1")
        assert done["status"]["state"] == task.COMPLETED
        assert [text_of([each]) for each in done["artifacts"]] == ["One thing. ", "Then Tuesday."]
        assert [each["role"] for each in done["history"]] == [
            "ROLE_USER",
            "ROLE_AGENT",
            "ROLE_USER",
        ]
    first, second = seen
    assert json.loads(second.resume or b"") == [
        {"id": "a1", "status": "resolved", "payload": "Tuesday"}
    ]
    assert bytes(second.payload) == b'[{"role":"user","content":"Plan"}]'
    assert second.needs == {"asks"}
    assert second.conversation == first.conversation == "c1"


@pytest.mark.parametrize(
    ("part", "resume"),
    [
        ({"data": True}, [{"id": "a1", "status": "resolved", "payload": True}]),
        (
            {"data": {"resume": [{"id": "a1", "status": "cancelled"}]}},
            [{"id": "a1", "status": "cancelled"}],
        ),
    ],
)
async def test_a_question_can_be_answered_with_data(part: Any, resume: Any) -> None:
    seen: list[Any] = []

    async def ask(exchange: Exchange) -> None:
        if exchange.call.resume is not None:
            seen.append(json.loads(exchange.call.resume))
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    async with a2a(ask) as it:
        asked = await send(it, "Plan")
        again = await send(it, part, taskId=asked["id"])
        assert again["status"]["state"] == task.INPUT_REQUIRED
    assert seen == [resume]


async def test_the_clients_tools_are_called_and_their_results_go_back() -> None:
    seen: list[Any] = []

    async def call(exchange: Exchange) -> None:
        messages = json.loads(bytes(exchange.call.payload))
        seen.append(messages)
        if messages[-1]["role"] == "tool":
            say(exchange, messages[-1]["content"])
            exchange.end()
            return
        say(exchange, "Let me see.")
        event(exchange, type="tool_call", call="o1", name="own", arguments={})
        for number in (1, 2):
            event(exchange, type="tool_call", call=f"c{number}", name="weather", arguments={"n": 1})
        exchange.end(outcome=Outcome("tool_calls"))

    async with a2a(call) as it:
        asked = await send(it, "Oslo?", metadata={TOOLS: [TOOL]})
        assert asked["status"]["state"] == task.INPUT_REQUIRED
        [part] = asked["status"]["message"]["parts"]
        assert [(each["id"], each["arguments"]) for each in part["data"]["toolCalls"]] == [
            ("c1", {"n": 1}),
            ("c2", {"n": 1}),
        ]
        given = [{"call": "c1", "content": "12 °C"}, {"call": "c2", "content": {"c": 13}}]
        short = await rpc(
            it,
            "SendMessage",
            {"message": message({"data": {"toolResults": given[:1]}}, taskId=asked["id"])},
        )
        assert (short.json["error"]["code"], "c2" in short.json["error"]["message"]) == (
            -32602,
            True,
        )
        done = await send(it, {"data": {"toolResults": given}}, taskId=asked["id"])
        assert text_of(done["artifacts"][1:]) == '{"c": 13}'
    user, assistant, *tools = seen[1]
    assert user["content"] == "Oslo?"
    assert (assistant["content"], len(assistant["tool_calls"])) == ("Let me see.", 2)
    assert [each["tool_call_id"] for each in tools] == ["c1", "c2"]


async def test_a_task_that_does_not_wait_takes_no_message(autojump_clock: object) -> None:
    async with a2a(talk) as it:
        began = await begin(it, "hi")
        more = {"message": message("more", taskId=began["id"])}
        assert (await rpc(it, "SendMessage", more)).json["error"]["code"] == -32004
        await trio.sleep(5)
        for method in ("SendMessage", "SendStreamingMessage"):
            assert (await rpc(it, method, more)).json["error"]["code"] == -32004
        other = {"message": message("more", taskId=began["id"], contextId="another")}
        assert (await rpc(it, "SendMessage", other)).json["error"]["code"] == -32602


async def test_what_was_too_long_to_be_kept_cannot_be_gone_on_from() -> None:
    async def ask(exchange: Exchange) -> None:
        exchange.end(outcome=Outcome("input_required", asks=ASKS))

    text = "x" * (task.MAX_HISTORY + 1)
    async with scene(ask, dialects=(A2ADialect(), *DIALECTS)) as it:
        it.routes.calling.max_body = 1_000_000
        asked = await send(it, text)
        assert "history" not in asked
        more = {"message": message("Tuesday", taskId=asked["id"])}
        error = (await rpc(it, "SendMessage", more)).json["error"]
        assert (error["code"], "too long" in error["message"]) == (-32004, True)


async def test_a_task_that_waits_is_gone_on_from_though_its_reader_is_slow(
    autojump_clock: object,
) -> None:
    async def ask(exchange: Exchange) -> None:
        if exchange.call.resume is None:
            for size in (50_000, 150_000):
                say(exchange, "x" * size)
                await trio.sleep(0.1)
            asks = json.dumps([{"id": "a1", "reason": "input_required", "message": "?" * 90_000}])
            exchange.end(outcome=Outcome("input_required", asks=asks.encode()))
        else:
            await trio.sleep(100)
            exchange.end()

    reads = trio.Event()
    async with a2a(ask, ttl=50) as it:
        body = body_of("SendStreamingMessage", {"message": message("Plan")})
        slow = it.begin("/a2a/a", body, headers=VERSION, reads=reads)
        await trio.sleep(5)
        id_ = "task_" + slow.run.removeprefix("run_")
        told = (await rpc(it, "GetTask", {"id": id_, "historyLength": 0})).json["result"]
        params = {
            "message": message("Tuesday", taskId=id_),
            "configuration": {"returnImmediately": True},
        }
        assert told["status"]["state"] == task.INPUT_REQUIRED
        await rpc(it, "SendMessage", params)
        reads.set()
        await slow.answered.wait()
        await trio.sleep(70)  # the time for which the first run would be kept
        now = (await rpc(it, "GetTask", {"id": id_})).json
        assert now["result"]["status"]["state"] == task.WORKING
        await trio.sleep(40)
        then = (await rpc(it, "GetTask", {"id": id_})).json["result"]
        assert then["status"]["state"] == task.COMPLETED


async def test_going_on_is_repeated_by_its_idempotency_key(autojump_clock: object) -> None:
    seen: list[Call] = []

    async def ask(exchange: Exchange) -> None:
        seen.append(exchange.call)
        if exchange.call.resume is None:
            exchange.end(outcome=Outcome("input_required", asks=ASKS))
        else:
            await trio.sleep(1)
            exchange.end()

    async with a2a(ask) as it:
        first = {"message": message("Plan")}
        began = await rpc(it, "SendMessage", first, **keyed("k1"))
        asked = began.json["result"]["task"]
        params = {"message": message("Tuesday", taskId=asked["id"])}
        done = await rpc(it, "SendMessage", params, **keyed("k2"))
        assert done.json["result"]["task"]["status"]["state"] == task.COMPLETED
        again = await rpc(it, "SendMessage", params, **keyed("k2"))
        assert again.json == done.json
        other = await rpc(
            it, "SendMessage", {"message": message("No", taskId=asked["id"])}, **keyed("k2")
        )
        assert other.json["error"]["data"][0]["reason"] == "IDEMPOTENCY_KEY_REUSED"
        late = await rpc(it, "SendMessage", first, **keyed("k1"))
        assert late.json["result"]["task"]["id"] == asked["id"]
    assert len(seen) == 2
