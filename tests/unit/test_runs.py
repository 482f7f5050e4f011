"""Requests that do not need their clients: how they begin and end, and who may see them; in virtual
time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Clocks
from gateway.errors import AgentFailed, Overloaded
from gateway.exchange import Exchange
from gateway.front.native.dialect import NativeCodec, NativeDialect
from gateway.front.native.sse import EventStream
from tests.unit.asgi import FakeDispatcher
from tests.unit.runs import (
    ASYNC,
    BIG,
    EVENTS,
    STREAM,
    Client,
    after,
    answer,
    counting,
    events,
    keyed,
    say,
    scene,
    supervised_scene,
)
from tests.unit.workers import AgentScene

# How one begins


async def test_a_request_that_asks_for_nothing_of_it_is_no_run() -> None:
    async with scene(answer) as it:
        for stream in (True, False):
            client = await it.post(stream=stream, prefer="wait=10")
            assert b"x-run-id" not in client.headers
            assert b"id: " not in client.body
        assert repr(it.runs) == "<Runs <Registry 0 runs, 0 ended, 0 bytes>>"


async def test_who_prefers_it_is_answered_at_once_and_told_where_the_run_is() -> None:
    go = trio.Event()
    async with scene(after(go)) as it:
        client = await it.post(**ASYNC)
        assert client.status == 202
        assert client.headers[b"preference-applied"] == b"respond-async"
        assert client.headers[b"location"] == f"/runs/{client.run}".encode()
        assert client.headers[b"retry-after"] == b"1"
        assert client.json == {
            "id": client.run,
            "state": "running",
            "agent": "a",
            "request_id": client.headers[b"x-request-id"].decode(),
        }
        assert (await it.get(client.run)).json == client.json
        go.set()
        await wait_all_tasks_blocked()
        shown = await it.get(client.run)
        assert shown.status == 200
        assert b"retry-after" not in shown.headers
        assert shown.headers[b"cache-control"] == b"no-store"
        assert shown.json == {
            **client.json,
            "state": "completed",
            "answer": {
                "status": 200,
                "headers": {"content-type": "application/json"},
                "body": {"output": 7},
            },
            "expires_in": 600,
        }


async def test_a_stream_is_one_that_can_be_attached_to() -> None:
    async with scene(answer) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        await wait_all_tasks_blocked()
        assert (await it.get(run)).json["events"] == {"first": 0, "next": 3}
        attached = await it.get(run, **EVENTS)
        assert attached.status == 200
        assert attached.headers[b"content-type"] == b"text/event-stream"
        assert attached.body == events("Hello ", "there")
        assert (await it.get(run, **EVENTS)).body == attached.body, "as often as one likes"


async def test_one_answer_can_be_waited_for_as_one_event() -> None:
    go = trio.Event()
    async with scene(after(go)) as it:
        run = (await it.post(**ASYNC)).run
        waiting = it.begin(f"/runs/{run}", method="GET", headers=EVENTS)
        await wait_all_tasks_blocked()
        assert waiting.status == 200
        assert waiting.body == b""
        go.set()
        await waiting.answered.wait()
        head, data = waiting.body.decode().split("data: ")
        assert head == "id: 0\nevent: run\n"
        assert json.loads(data)["answer"]["body"] == {"output": 7}
        nothing = await it.get(run, last_event_id="0", **EVENTS)
        assert nothing.status == 204
        assert b"content-length" not in nothing.headers


async def test_a_request_that_is_refused_is_no_run_and_its_key_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene(answer) as it:
        with monkeypatch.context() as patch:

            def refuse(self: FakeDispatcher, call: object) -> Exchange:
                raise Overloaded("full", retry_after=2)

            patch.setattr(FakeDispatcher, "submit", refuse)
            for headers in (keyed("k"), ASYNC):
                refused = await it.post(**headers)
                assert refused.status == 503
                assert refused.error == "overloaded"
        assert (await it.post(**keyed("k"))).status == 200


# Who may see one


async def test_a_run_is_there_for_nobody_else() -> None:
    async with scene(answer) as it:
        mine = {"authorization": "Bearer me"}
        run = (await it.post(**ASYNC, **mine)).run
        assert (await it.get(run, **mine)).status == 200
        nobody = await it.get("run_" + "0" * 8)
        for others in ({}, {"authorization": "Bearer you"}, {**mine, "x-api-key": "k"}):
            for seen in (await it.get(run, **others), await it.cancel(run, **others)):
                assert seen.status == 404
                assert seen.json["error"]["message"] == nobody.json["error"]["message"]
                assert run not in seen.body.decode()


@pytest.mark.parametrize("path", ["/runs/", "/runs", "/runs/run_1/cancel/now", "/runs/run_1/other"])
async def test_what_is_no_path_of_a_run_is_not_taken_for_one(path: str) -> None:
    passed_on: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed_on.append(scope["path"])

    async with scene(answer) as it:
        it.routes._inner = inner
        it.begin(path, method="GET")
        await wait_all_tasks_blocked()
    assert passed_on == [path]


async def test_the_ids_of_another_gateway_are_gone_and_garbage_never_was() -> None:
    async with scene(answer) as earlier:
        run = (await earlier.post(**ASYNC)).run
    async with scene(answer) as it:
        for path in (f"/runs/{run}", f"/runs/{run}/cancel"):
            gone = await it.ask(path, method="POST" if "cancel" in path else "GET")
            assert gone.status == 410
            assert gone.error == "run_gone"
            assert "before the gateway was" in gone.json["error"]["message"]
        for garbage in (run[:-1], run + "0", run[4:], "run_", "x", "run_" + "g" * 56):
            assert (await it.get(garbage)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "", "GET, HEAD, OPTIONS"),
        ("DELETE", "", "GET, HEAD, OPTIONS"),
        ("GET", "/cancel", "OPTIONS, POST"),
        ("HEAD", "/cancel", "OPTIONS, POST"),
    ],
)
async def test_a_method_is_refused_with_those_that_are_not(
    method: str, path: str, allow: str
) -> None:
    async with scene(answer) as it:
        refused = await it.ask(f"/runs/run_1{path}", method=method)
        assert refused.status == 405
        assert refused.headers[b"allow"] == allow.encode()
        options = await it.ask(f"/runs/run_1{path}", method="OPTIONS")
        assert (options.status, options.headers[b"allow"]) == (200, allow.encode())


async def test_a_head_attaches_to_nothing() -> None:
    async with scene(answer) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        head = await it.ask(f"/runs/{run}", method="HEAD", headers=EVENTS)
        assert head.status == 200
        assert head.headers[b"content-type"] == b"application/json"


# How one ends


async def test_one_that_fails_before_its_first_event_has_a_status_for_who_asked() -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.fail(AgentFailed("no"))

    count: list[Exchange] = []
    async with scene(counting(count, fail)) as it:
        for stream in (False, True):
            body = {"input": 1, "stream": stream}
            first = await it.ask(body=body, headers=keyed(f"k{stream}"))
            assert first.status == 500
            assert first.error == "agent_error"
            assert first.headers[b"x-should-retry"] == b"false"
            again = await it.ask(body=body, headers=keyed(f"k{stream}"))
            assert (again.status, again.body) == (500, first.body)
            shown = (await it.get(first.run)).json
            assert shown["state"] == "failed"
            assert shown["error"] == {"type": "agent_error", "message": "no"}
            assert shown["answer"]["status"] == 500
            assert shown["answer"]["body"] == first.json
        attached = await it.get(first.run, **EVENTS)
        assert attached.status == 200
        assert attached.body.startswith(
            b'id: 0\nevent: error\ndata: {"error":{"type":"agent_error"'
        )
        assert len(count) == 2


async def test_one_that_fails_in_mid_stream_never_looks_whole() -> None:
    async def fail(exchange: Exchange) -> None:
        say(exchange, "word")
        await trio.lowlevel.checkpoint()
        exchange.fail(AgentFailed("no"))

    async with scene(fail) as it:
        client = await it.post(stream=True, **keyed("k"))
        assert client.status == 200
        assert b"id: 1\nevent: error\n" in client.body
        assert b"[DONE]" not in client.body
        assert (await it.get(client.run, **EVENTS)).body == client.body
        assert (await it.get(client.run)).json["error"]["type"] == "agent_error"


async def test_a_defect_of_a_dialect_ends_its_run_alone_and_badly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class BrokenStream(EventStream):
        def end(self, result: Any) -> bytes:
            raise ZeroDivisionError

    class BrokenCodec(NativeCodec):
        def stream(self, exchange: Exchange) -> EventStream:
            return BrokenStream(exchange)

    class Broken(NativeDialect):
        def match(self, path: str) -> NativeCodec | None:
            return BrokenCodec("a", "invoke")

    async with scene(answer, dialects=(Broken(),)) as it:
        client = await it.post(stream=True, **keyed("k"))
        assert b'event: error\ndata: {"error":{"type":"internal_error"' in client.body
        assert b"[DONE]" not in client.body
        assert "ZeroDivisionError" in caplog.text
        assert (await it.post(**keyed("l"))).status == 200


async def test_a_run_is_kept_for_its_time_and_then_it_is_gone(autojump_clock: MockClock) -> None:
    count: list[Exchange] = []
    async with scene(counting(count), ttl=100) as it:
        client = await it.post(**keyed("k"))
        await trio.sleep(60)
        assert (await it.get(client.run)).json["expires_in"] == 40
        assert (await it.post(**keyed("k"))).body == client.body
        await trio.sleep(41)
        assert repr(it.runs) == "<Runs <Registry 0 runs, 0 ended, 0 bytes>>"
        gone = await it.get(client.run)
        assert gone.status == 410
        assert "not kept any more" in gone.json["error"]["message"]
        assert (await it.get(client.run, authorization="Bearer you")).status == 404
        assert len(count) == 1
        assert (await it.post(**keyed("k"))).status == 200
        assert len(count) == 2


async def test_there_is_room_for_so_many_and_it_is_said_where_to_get_more() -> None:
    async with scene(answer, max=3) as it:
        for _ in range(10):
            assert (await it.post(**ASYNC)).status == 202
            await wait_all_tasks_blocked()
        for number in range(3):
            assert (await it.post(**keyed(f"k{number}"))).status == 200
        refused = await it.post(**keyed("one more"))
        assert refused.status == 503
        assert "[server.runs] max" in refused.json["error"]["message"]
        assert 1 <= int(refused.headers[b"retry-after"]) <= 600
        assert (await it.post(**keyed("k0"))).status == 200


# Idempotency-Key


async def test_the_same_key_is_the_same_run_while_it_goes_on_and_afterwards() -> None:
    go = trio.Event()
    count: list[Exchange] = []
    for body, expected in ((STREAM, events("Hello ", "there")), ({"input": 1}, b'{"output":7}')):
        count.clear()
        async with scene(counting(count, after(go))) as it:
            clients = [it.begin(body=body, headers=keyed("k")) for _ in range(5)]
            await wait_all_tasks_blocked()
            accepted = await it.ask(body=body, headers=keyed("k", **ASYNC))
            assert accepted.status == 202
            go.set()
            for client in clients:
                await client.answered.wait()
            clients.append(await it.ask(body=body, headers=keyed("k")))
            assert {client.body for client in clients} == {expected}
            assert {client.run for client in [*clients, accepted]} == {accepted.run}
            assert len(count) == 1


async def test_a_key_is_for_one_request_of_one_caller_on_one_path() -> None:
    count: list[Exchange] = []
    async with scene(counting(count)) as it:
        await it.ask(body={"input": 1}, headers=keyed("k"))
        reused = await it.ask(body={"input": 2}, headers=keyed("k"))
        assert reused.status == 422
        assert reused.error == "idempotency_key_reused"
        others: list[Client] = [
            await it.ask(body={"input": 1}, headers=keyed("k", authorization="Bearer x")),
            await it.ask("/agents/a/invoke", {"input": 1}, headers=keyed("k")),
        ]
        assert [each.status for each in others] == [200, 200]
        assert len(count) == 3


async def test_a_key_whose_request_no_worker_has_read_may_be_used_again(
    autojump_clock: MockClock,
) -> None:
    count: list[Exchange] = []

    async def wait(exchange: Exchange) -> None:
        await trio.sleep_forever()

    async with scene(counting(count, wait), hands_over=False, clocks=Clocks(queue=5)) as it:
        for _ in range(2):
            client = await it.post(**keyed("k"))
            assert client.status == 504
            assert client.headers[b"retry-after"] == b"1"
        assert len(count) == 2


async def test_a_stream_is_gone_on_with_by_repeating_its_request() -> None:
    count: list[Exchange] = []
    async with scene(counting(count)) as it:
        await it.ask(body=STREAM, headers=keyed("k"))
        rest = await it.ask(body=STREAM, headers=keyed("k", last_event_id="0"))
        assert rest.body == events("there", first=1)
        assert (await it.ask(body=STREAM, headers=keyed("k", last_event_id="2"))).status == 204
        gone = await it.ask(body=STREAM, headers=keyed("unknown", last_event_id="0"))
        assert gone.status == 410, "a new run would not be the rest of that one"
        await it.ask(body={"input": 1}, headers=keyed("l"))
        whole = await it.ask(body={"input": 1}, headers=keyed("l", last_event_id="0"))
        assert whole.status == 400
        assert len(count) == 2


# With agents that are really supervised


async def test_a_run_is_queued_runs_and_can_be_cancelled_in_each_state_and_twice() -> None:
    agent = AgentScene(concurrency=1)
    async with supervised_scene(agent) as it:
        running = (await it.ask(body={"input": "hold", "stream": True}, headers=ASYNC)).run
        queued = (await it.ask(body={"input": "answer"}, headers=ASYNC)).run
        states = [(await it.get(run)).json["state"] for run in (running, queued)]
        assert states == ["running", "queued"]
        reader = it.begin(f"/runs/{running}", method="GET", headers=EVENTS)
        await wait_all_tasks_blocked()
        for _ in range(2):
            for run in (queued, running):
                cancelled = await it.cancel(run)
                assert cancelled.status == 200
                assert cancelled.json["state"] == "cancelled"
                await wait_all_tasks_blocked()
        assert len(agent.crew[1].cancelled) == 1
        await reader.answered.wait()
        assert b'event: error\ndata: {"error":{"type":"cancelled"' in reader.body
        done = (await it.ask(body={"input": "answer"}, headers=keyed("k"))).run
        for _ in range(2):
            assert (await it.cancel(done)).json["state"] == "completed", "too late"
        assert (await it.get(queued)).json["answer"]["status"] == 499


@pytest.mark.parametrize("answered", [False, True])
async def test_one_that_is_cancelled_does_not_wait_for_a_reader_that_is_stuck(
    answered: bool,
) -> None:
    agent = AgentScene()
    deaf = trio.Event()
    async with supervised_scene(agent) as it:
        run = (await it.ask(body={"input": "hold", "stream": True}, headers=ASYNC)).run
        it.begin(f"/runs/{run}", method="GET", headers=EVENTS, reads=deaf)
        await wait_all_tasks_blocked()
        (exchange,) = agent.agent.exchanges
        for number in range(8):
            say(exchange, f"{number} {BIG}")
            await wait_all_tasks_blocked()
        if answered:
            agent.crew[1].answers(exchange)
            await wait_all_tasks_blocked()
        assert "expires_in" not in (await it.get(run)).json
        await it.cancel(run)
        await wait_all_tasks_blocked()
        shown = (await it.get(run)).json
        assert shown["state"] == ("completed" if answered else "cancelled")
        assert "expires_in" in shown, "it has ended"


async def test_an_agent_that_continues_has_nothing_but_runs(autojump_clock: MockClock) -> None:
    agent = AgentScene(on_disconnect="continue")
    async with supervised_scene(agent) as it:
        client = it.begin(body={"input": "speak", "stream": True})
        await wait_all_tasks_blocked()
        assert client.body == events("word", done=False)
        client.leaves.set()
        await trio.sleep(1)
        assert agent.crew[1].cancelled == []
        dispatcher: Any = it.runs._dispatcher
        assert not await dispatcher.drain(1), "a drain waits for it"
        (exchange,) = agent.agent.exchanges
        agent.crew[1].answers(exchange)
        await wait_all_tasks_blocked()
        assert await dispatcher.drain(1)
        rest = await it.get(client.run, last_event_id="0", **EVENTS)
        assert rest.body == events("answer", first=1)


async def test_a_run_that_the_shutdown_ends_says_so_to_its_readers() -> None:
    async with supervised_scene(AgentScene()) as it:
        run = (await it.ask(body={"input": "hold", "stream": True}, headers=ASYNC)).run
        reader = it.begin(f"/runs/{run}", method="GET", headers=EVENTS)
        await wait_all_tasks_blocked()
        dispatcher: Any = it.runs._dispatcher
        await dispatcher.stop(1)
        await reader.answered.wait()
        assert b'event: error\ndata: {"error":{"type":"shutting_down"' in reader.body
