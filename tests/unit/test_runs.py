"""Requests that do not need their clients: how they begin, are read, and end; in virtual time."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Clocks
from gateway.errors import AgentFailed, Overloaded
from gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from gateway.front.answers import KEEP_ALIVE_SECONDS
from gateway.front.native.dialect import NativeCodec, NativeDialect
from gateway.front.native.sse import KEEP_ALIVE, EventStream
from gateway.front.runs.reading import PORTION
from gateway.front.runs.run import MAX_READERS, WINDOW
from gateway.front.runs.service import EVENTS_AT_ONCE
from tests.unit.asgi import FakeDispatcher, Story
from tests.unit.runs import ASYNC, EVENTS, Client, events, keyed, say, scene, supervised_scene
from tests.unit.workers import AgentScene

STREAM = {"input": 1, "stream": True}


async def answer(exchange: Exchange) -> None:
    if exchange.call.stream:
        say(exchange, "Hello ", "there")
        exchange.end()
    else:
        exchange.end(b"7")


def after(event: trio.Event, then: Story = answer) -> Story:
    async def wait(exchange: Exchange) -> None:
        await event.wait()
        await then(exchange)

    return wait


def counting(count: list[Exchange], then: Story = answer) -> Story:
    async def act(exchange: Exchange) -> None:
        count.append(exchange)
        await then(exchange)

    return act


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


# How one is read


@pytest.mark.parametrize("last", range(3))
async def test_a_reader_goes_on_after_its_last_event(last: int) -> None:
    async with scene(answer) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        resumed = await it.get(run, last_event_id=str(last), **EVENTS)
        if last == 2:
            assert resumed.status == 204, "so that it does not come back"
            assert resumed.body == b""
        else:
            assert (
                resumed.body
                == events("Hello ", "there")[len(events("Hello ", done=False)) :][
                    -len(resumed.body) :
                ]
            )
            assert resumed.body.startswith(b"id: %d\n" % (last + 1))


@pytest.mark.parametrize(
    ("last", "says"), [("3", "had 3 events"), ("x", "number"), ("-1", "number")]
)
async def test_a_last_event_that_was_none_is_refused(last: str, says: str) -> None:
    async with scene(answer) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        await wait_all_tasks_blocked()
        refused = await it.get(run, last_event_id=last, **EVENTS)
        assert refused.status == 400
        assert says in refused.json["error"]["message"]


async def test_readers_come_and_go_and_each_gets_every_event_once(
    autojump_clock: MockClock,
) -> None:
    async def talk(exchange: Exchange) -> None:
        for number in range(100):
            say(exchange, str(number))
            await trio.sleep(1)
        exchange.end()

    whole = events(*map(str, range(100)))
    async with scene(talk) as it:
        first = it.begin(body=STREAM, headers=keyed("k"))
        await trio.sleep(10.5)
        run = first.run
        first.leaves.set()
        readers = []
        for number in range(5):
            await trio.sleep(10)
            last = {"last-event-id": str(number)} if number else {}
            readers.append(it.begin(f"/runs/{run}", method="GET", headers={**EVENTS, **last}))
        for number, reader in enumerate(readers):
            await reader.answered.wait()
            skipped = number + 1 if number else 0
            assert reader.body == whole[len(events(*map(str, range(skipped)), done=False)) :]
        assert (await it.get(run)).json["state"] == "completed"


async def test_a_silence_is_filled_for_each_reader_and_not_kept(autojump_clock: MockClock) -> None:
    async def think(exchange: Exchange) -> None:
        await trio.sleep(3 * KEEP_ALIVE_SECONDS + 1)
        say(exchange, "at last")
        exchange.end()

    async with scene(think) as it:
        first = it.begin(body=STREAM, headers=keyed("k"))
        await first.answered.wait()
        assert first.body == KEEP_ALIVE * 3 + events("at last")
        assert (await it.get(first.run, **EVENTS)).body == events("at last")


async def test_a_reader_that_leaves_ends_nothing(autojump_clock: MockClock) -> None:
    go = trio.Event()
    for headers in (keyed("k"), keyed("k", **ASYNC)):
        async with scene(after(go)) as it:
            first = it.begin(body=STREAM, headers=headers)
            await wait_all_tasks_blocked()
            first.leaves.set()
            await trio.sleep(20)
            go.set()
            again = await it.ask(body=STREAM, headers=keyed("k"))
            assert again.body == events("Hello ", "there")


async def test_a_run_has_so_many_readers_and_no_more(autojump_clock: MockClock) -> None:
    go = trio.Event()
    async with scene(after(go)) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        readers = [
            it.begin(f"/runs/{run}", method="GET", headers=EVENTS) for _ in range(MAX_READERS)
        ]
        await wait_all_tasks_blocked()
        refused = await it.get(run, **EVENTS)
        assert refused.status == 503
        assert refused.error == "overloaded"
        assert (await it.get(run)).status == 200, "looking at it is not reading"
        readers[0].leaves.set()
        await wait_all_tasks_blocked()
        more = it.begin(f"/runs/{run}", method="GET", headers=EVENTS)
        go.set()
        await more.answered.wait()
        assert more.body == events("Hello ", "there")


async def test_an_answer_that_is_shown_to_many_is_held_once(autojump_clock: MockClock) -> None:
    large = b'"%b"' % (b"x" * 50_000)

    async def answer_much(exchange: Exchange) -> None:
        exchange.end(large)

    async with scene(answer_much) as it:
        run = (await it.post(**ASYNC, **keyed("k"))).run
        await wait_all_tasks_blocked()
        shown = [
            await it.get(run),
            await it.get(run),
            await it.cancel(run),
            await it.get(run, **EVENTS),
            await it.post(**ASYNC, **keyed("k")),
        ]
        for client in shown:
            text = client.body.rpartition(b"data: ")[2]
            assert json.loads(text)["answer"]["body"] == {"output": "x" * 50_000}
            if client.headers[b"content-type"] == b"application/json":
                assert client.headers[b"content-length"] == b"%d" % len(client.body)
        bodies = {id(part) for client in shown for _, part in client.parts if len(part) > 1000}
        assert len(bodies) == 1


@pytest.mark.parametrize("native", [True, False])
async def test_an_answer_is_shown_to_as_many_at_a_time_as_may_read_it(
    native: bool, autojump_clock: MockClock
) -> None:
    deaf = trio.Event()

    async def reply_much(exchange: Exchange) -> None:
        say(exchange, "x" * (PORTION + 1))
        exchange.end()

    async with scene(reply_much) as it:
        started = await it.ask("/v1/responses", response())
        path = f"/runs/{started.run}" if native else f"/v1/responses/{started.json['id']}"
        await wait_all_tasks_blocked()
        unread = [it.begin(path, method="GET", reads=deaf) for _ in range(MAX_READERS)]
        await wait_all_tasks_blocked()
        refused = await it.ask(path, method="GET")
        assert refused.status == 503
        assert "64 connections" in refused.json["error"]["message"]
        assert (await it.cancel(started.run)).status == 503, "it shows the same"
        deaf.set()
        for client in unread:
            await client.answered.wait()
        assert (await it.ask(path, method="GET")).status == 200


# Slow readers, and none


BIG = "x" * 100_000


async def flood(exchange: Exchange) -> None:
    """As a worker does that is held while its client has enough."""
    for number in range(400):
        say(exchange, f"{number} {BIG}")
        await exchange.wait_for_room()
        await trio.sleep(0.01)
    exchange.end()


async def test_a_reader_that_reads_slowly_holds_the_worker_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    exchanges: list[Exchange] = []
    reads = trio.Event()
    async with scene(counting(exchanges, flood), memory="16M") as it:
        client = it.begin(body=STREAM, headers=keyed("k"), reads=reads)
        await trio.sleep(20)
        (exchange,) = exchanges
        assert exchange.full
        assert exchange.buffered_bytes < MAX_BUFFERED_BYTES + 2 * len(BIG)
        shown = (await it.get(client.run)).json
        assert shown["events"]["next"] * len(BIG) < 2 * WINDOW
        reads.set()
        await client.answered.wait()
        assert client.body == events(*(f"{number} {BIG}" for number in range(400)))


async def test_a_worker_that_cannot_wait_is_not_held_until_a_reader_has_caught_up(
    autojump_clock: MockClock,
) -> None:
    exchanges: list[Exchange] = []
    reads = trio.Event()
    async with scene(counting(exchanges, flood)) as it:
        client = it.begin(body=STREAM, headers=keyed("k"), reads=reads)
        await trio.sleep(20)
        (exchange,) = exchanges
        assert exchange.full
        assert exchange.spill()
        await trio.sleep(1)
        assert not exchange.full
        reads.set()
        await client.answered.wait()
        assert client.body.endswith(b"[DONE]\n\n")
        assert client.body.count(b"\nid: ") == 400, "it was still kept"


async def test_the_fastest_reader_counts_and_a_slower_one_is_told_what_it_has_lost(
    autojump_clock: MockClock,
) -> None:
    reads = trio.Event()
    async with scene(flood, memory="16M") as it:
        run = (await it.post(stream=True, **ASYNC)).run
        slow = it.begin(f"/runs/{run}", method="GET", headers=EVENTS, reads=reads)
        fast = await it.get(run, **EVENTS)
        assert fast.body == events(*(f"{number} {BIG}" for number in range(400)))
        reads.set()
        await slow.answered.wait()
        *whole, last = slow.body.split(b"\n\n")[:-1]
        assert (
            b"\n\n".join(whole) + b"\n\n"
            == fast.body[: -len(last) - 2][: len(slow.body) - len(last) - 2]
        )
        assert last.startswith(b'event: error\ndata: {"error":{"type":"run_gone"')
        assert b"[DONE]" not in slow.body


async def test_a_reader_that_does_not_read_is_given_up_and_its_run_goes_on(
    autojump_clock: MockClock,
) -> None:
    deaf = trio.Event()
    async with scene(flood, clocks=Clocks(write=30)) as it:
        client = it.begin(body=STREAM, headers=keyed("k"), reads=deaf)
        await trio.sleep(29)
        assert (await it.get(client.run)).json["state"] == "running"
        await trio.sleep(10)
        assert (await it.get(client.run)).json["state"] == "completed"
        deaf.set()
        await client.answered.wait()
        assert b'"clock":"write"' in client.body.rpartition(b"event: error")[2]
        assert b"[DONE]" not in client.body


async def test_one_that_nobody_reads_keeps_its_newest_and_says_what_is_gone(
    autojump_clock: MockClock,
) -> None:
    async with scene(flood, memory="16M") as it:
        run = (await it.post(stream=True, **ASYNC)).run
        await trio.sleep(60)
        shown = (await it.get(run)).json
        assert shown["state"] == "completed"
        first = shown["events"]["first"]
        assert (401 - first) * len(BIG) < 4 << 20
        gone = await it.get(run, **EVENTS)
        assert gone.status == 410
        assert gone.error == "run_gone"
        assert gone.json["error"]["first_event"] == first
        rest = await it.get(run, last_event_id=str(first - 1), **EVENTS)
        assert rest.body == events(*(f"{n} {BIG}" for n in range(first, 400)), first=first)
        again = await it.ask(body=STREAM, headers=keyed("k"))
        assert again.status == 200


async def test_a_repetition_of_one_that_has_lost_its_head_is_told_so(
    autojump_clock: MockClock,
) -> None:
    count: list[Exchange] = []
    async with scene(counting(count, flood), memory="16M") as it:
        await it.ask(body=STREAM, headers=keyed("k", **ASYNC))
        await trio.sleep(60)
        gone = await it.ask(body=STREAM, headers=keyed("k"))
        assert gone.status == 410
        assert len(count) == 1


async def test_many_that_nobody_reads_keep_no_more_than_the_memory(
    autojump_clock: MockClock,
) -> None:
    async def flood_some(exchange: Exchange) -> None:
        for _ in range(50):
            say(exchange, BIG)
            await exchange.wait_for_room()
        exchange.end()

    async with scene(flood_some, memory="16M") as it:
        for _ in range(5):
            await it.post(stream=True, **ASYNC)
        await trio.sleep(60)
        assert it.runs._registry.size <= 16 << 20


async def saying(exchange: Exchange, said: list[Exchange]) -> None:
    said.append(exchange)
    say(exchange, "one")
    await trio.sleep_forever()


async def test_a_reader_that_keeps_up_loses_nothing_to_what_other_runs_keep() -> None:
    said: list[Exchange] = []
    async with scene(partial(saying, said=said)) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        await wait_all_tasks_blocked()
        reader = it.begin(f"/runs/{run}", method="GET", headers={**EVENTS, "last-event-id": "0"})
        await wait_all_tasks_blocked()
        it.runs._registry._most_bytes = 1
        say(said[0], "two", "three")
        await wait_all_tasks_blocked()
        assert reader.status == 200
        assert reader.body == events("two", "three", first=1, done=False)
        assert it.runs._registry.size < WINDOW


async def test_what_is_gone_before_its_reader_has_begun_is_said_to_be_gone() -> None:
    said: list[Exchange] = []
    async with scene(partial(saying, said=said)) as it:
        run = (await it.post(stream=True, **ASYNC)).run
        await wait_all_tasks_blocked()
        reader = it.begin(f"/runs/{run}", method="GET", headers={**EVENTS, "last-event-id": "0"})
        await wait_all_tasks_blocked()
        it.runs._registry._most_bytes = 1
        said[0].end()
        await reader.answered.wait()
        assert reader.status == 410
        assert reader.error == "run_gone"


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


async def test_a_flood_of_tiny_events_leaves_others_their_turns() -> None:
    async def burst(exchange: Exchange) -> None:
        say(exchange, *("" for _ in range(10 * EVENTS_AT_ONCE)))
        exchange.end()

    async with scene(burst) as it:
        it.begin(body=STREAM, headers=ASYNC)
        seen = []
        while len(it.runs._registry) == 0:
            await trio.lowlevel.checkpoint()
        (run,) = it.runs._registry
        while not run.ended:
            seen.append(run.ring.next)
            await trio.lowlevel.checkpoint()
        assert run.ring.next == 10 * EVENTS_AT_ONCE + 1
        # Tasks have their turns in any order: two turns of the pump may lie between two looks.
        assert max(later - sooner for sooner, later in pairwise(seen)) <= 2 * EVENTS_AT_ONCE


async def test_a_run_that_the_shutdown_ends_says_so_to_its_readers() -> None:
    async with supervised_scene(AgentScene()) as it:
        run = (await it.ask(body={"input": "hold", "stream": True}, headers=ASYNC)).run
        reader = it.begin(f"/runs/{run}", method="GET", headers=EVENTS)
        await wait_all_tasks_blocked()
        dispatcher: Any = it.runs._dispatcher
        await dispatcher.stop(1)
        await reader.answered.wait()
        assert b'event: error\ndata: {"error":{"type":"shutting_down"' in reader.body


# In a protocol that has objects of its own for them


def response(stream: bool = False, background: bool = True, **more: Any) -> dict[str, Any]:
    return {"model": "a", "input": "1", "stream": stream, "background": background, **more}


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
