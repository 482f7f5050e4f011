"""Runs in protocols that have objects of their own for them; in virtual time."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.errors import AgentFailed
from gateway.exchange import Exchange
from tests.unit.runs import (
    ASYNC,
    after,
    answer,
    counting,
    keyed,
    response,
    say,
    scene,
    supervised_scene,
)
from tests.unit.workers import AgentScene


def sequence(body: bytes) -> list[int]:
    """The numbers of the events of Responses, which are their ids as well."""
    ids = [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")]
    datas = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert ids == [json.loads(data)["sequence_number"] for data in datas]
    return ids


async def reply(exchange: Exchange) -> None:
    if exchange.call.stream:
        await answer(exchange)
    else:
        exchange.end(b'{"role":"assistant","content":"Hello there"}')


async def test_a_response_in_the_background_is_told_as_it_is_at_the_time() -> None:
    go = trio.Event()
    async with scene(after(go, reply)) as it:
        begun = await it.ask("/v1/responses", response())
        assert begun.status == 200
        assert begun.json["status"] == "in_progress"
        assert begun.json["output"] == []
        path = f"/v1/responses/{begun.json['id']}"
        assert (await it.ask(path, method="GET")).json == begun.json
        go.set()
        await wait_all_tasks_blocked()
        done = await it.ask(path, method="GET")
        assert done.status == 200
        assert done.json["status"] == "completed"
        assert done.json["output"][0]["content"][0]["text"] == "Hello there"
        assert done.json["id"] == begun.json["id"]
        assert done.headers[b"x-run-id"] == begun.headers[b"x-run-id"]
        assert (await it.get(begun.run)).json["answer"]["body"] == done.json
        refused = await it.ask(path, method="GET", query="stream=true")
        assert refused.status == 400
        assert refused.json["error"]["type"] == "invalid_request_error"


async def test_a_stream_of_a_response_is_gone_on_with_after_a_sequence_number() -> None:
    async with scene(reply) as it:
        first = await it.ask("/v1/responses", response(stream=True))
        numbers = sequence(first.body)
        assert numbers == list(range(len(numbers)))
        whole = json.loads(first.body.rpartition(b"data: ")[2])["response"]
        path = f"/v1/responses/{whole['id']}"
        assert (await it.ask(path, method="GET", query="stream=true")).body == first.body
        for after_number in numbers[:-1]:
            query = f"stream=true&starting_after={after_number}"
            rest = await it.ask(path, method="GET", query=query)
            assert first.body.endswith(rest.body)
            assert sequence(rest.body) == numbers[after_number + 1 :]
        assert (await it.ask(path, method="GET")).json == whole


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("stream=yes", "expected true or false"),
        ("starting_after=1", "stream=true"),
        ("stream=true&starting_after=-1", "sequence number"),
        ("stream=true&starting_after=9000", "events so far"),
    ],
)
async def test_a_query_for_what_is_not_there_is_refused(query: str, says: str) -> None:
    async with scene(reply) as it:
        begun = await it.ask("/v1/responses", response(stream=True))
        (run,) = it.runs._registry
        refused = await it.ask(f"/v1/responses/resp_{run.token}", method="GET", query=query)
        assert begun.status == 200
        assert refused.status == 400
        assert says in refused.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_failed_is_told_as_one_that_failed(stream: bool) -> None:
    async def fail(exchange: Exchange) -> None:
        if stream:
            say(exchange, "word")
            await trio.lowlevel.checkpoint()
        exchange.fail(AgentFailed("no"))

    async with scene(fail) as it:
        await it.ask("/v1/responses", response(stream=stream))
        await wait_all_tasks_blocked()
        (run,) = it.runs._registry
        told = await it.ask(f"/v1/responses/resp_{run.token}", method="GET")
        assert told.status == 200
        assert told.json["status"] == "failed"
        assert told.json["error"]["message"] == "no"


async def test_an_answer_that_its_protocol_cannot_tell_has_failed() -> None:
    async def say_too_much(exchange: Exchange) -> None:
        for _ in range(3):
            say(exchange, "x" * 800_000)
            await exchange.wait_for_room()
        exchange.end()

    async with scene(say_too_much) as it:
        stream = await it.ask("/v1/responses", response(stream=True))
        assert b"event: response.failed" in stream.body
        assert (await it.get(stream.run)).json["state"] == "failed"
        (run,) = it.runs._registry
        told = await it.ask(f"/v1/responses/resp_{run.token}", method="GET")
        assert told.json["status"] == "failed"


async def test_a_response_is_cancelled_on_its_own_path() -> None:
    async with supervised_scene(AgentScene(workers={"max": 1}, concurrency=1)) as it:
        for stream in (False, True):
            asked = response(stream=stream, input="hold")
            it.begin("/v1/responses", asked)
            await wait_all_tasks_blocked()
        for run in list(it.runs._registry):
            path = f"/v1/responses/resp_{run.token}/cancel"
            for _ in range(2):
                cancelled = await it.ask(path)
                assert cancelled.status == 200
                assert cancelled.json["status"] == "cancelled"
                await wait_all_tasks_blocked()
            assert (await it.ask(path[:-7], method="GET")).json["status"] == "cancelled"


async def test_what_is_no_response_is_not_told_as_one() -> None:
    async with scene(answer) as it:
        run = (await it.post(**ASYNC)).run
        for path in (run.replace("run_", "resp_"), run, "resp_1"):
            refused = await it.ask(f"/v1/responses/{path}", method="GET")
            assert refused.status == 404
            assert refused.json["error"]["type"] == "invalid_request_error"
        refused = await it.ask("/v1/responses/resp_1", method="DELETE")
        assert refused.status == 405
        earlier = f"/v1/responses/resp_{'0' * 56}"
        assert (await it.ask(earlier, method="GET")).status == 410


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_key_is_honoured_in_every_protocol(path: str) -> None:
    count: list[Exchange] = []
    body = {"model": "a", "stream": True}
    body |= {"messages": [{"role": "user", "content": "1"}]} if "chat" in path else {"input": "1"}
    async with scene(counting(count, reply)) as it:
        first, again = [await it.ask(path, body, headers=keyed("k")) for _ in range(2)]
        assert first.status == 200
        assert again.body == first.body
        assert len(count) == 1
        rest = await it.ask(path, body, headers=keyed("k", last_event_id="0"))
        assert first.body.endswith(rest.body)
