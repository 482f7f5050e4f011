"""How runs are read: from anywhere, by many, slowly or not at all; in virtual time."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Clocks
from gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from gateway.front.answers import KEEP_ALIVE_SECONDS
from gateway.front.native.sse import KEEP_ALIVE
from gateway.front.runs.reading import PORTION
from gateway.front.runs.run import MAX_READERS, WINDOW
from gateway.front.runs.service import EVENTS_AT_ONCE
from tests.unit.runs import (
    ASYNC,
    BIG,
    EVENTS,
    STREAM,
    after,
    answer,
    counting,
    events,
    keyed,
    response,
    say,
    scene,
)

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
