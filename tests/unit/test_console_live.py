"""The console's streams: who may have one, what each is told, and when nothing is looked at."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway import clock
from gateway.config import AgentSettings, CallerKeys, Clocks, Settings
from gateway.config.keys import KeySettings, hash_key
from gateway.errors import Overloaded
from gateway.exchange import Exchange
from gateway.front.auth import ANONYMOUS
from gateway.front.console.journal import Noted
from gateway.front.console.lines import (
    LineFilter,
)
from gateway.front.console.live import (
    MOST_REQUESTS,
    AgentsTopic,
    LiveBody,
    LogTopic,
    RequestsTopic,
)
from gateway.front.console.requests import MOST_KEPT
from gateway.front.console.rights import Rights
from gateway.front.console.watch import MOST_READERS, MOST_READERS_OF_KEY, Watch
from gateway.front.slices import Slices
from gateway.observe.access_line import AccessLine
from tests.unit.console import ADA, KEYS, Agents, call, console_of, observed

SOME_AGENTS = {"a": AgentSettings(command="echo")}


async def test_nothing_is_looked_at_while_nobody_looks(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    agents = Agents()
    watch = Watch(agents)  # type: ignore[arg-type]
    nursery.start_soon(watch.run)
    await trio.sleep(1000)
    assert agents.looks == 0
    with watch.reader("ada"):
        await watch.next_look()
        assert agents.new_exchange is not Exchange
        before = agents.looks
        await trio.sleep(10)
        assert 0 < agents.looks - before <= 22
        assert isinstance(agents.new_exchange(call(), Clocks(), 0.0), Noted)
    await trio.sleep(2)
    before = agents.looks
    await trio.sleep(1000)
    assert agents.looks == before
    assert agents.new_exchange is Exchange
    with watch.reader("ada"):
        await watch.next_look()
    assert agents.looks > before
    nursery.cancel_scope.cancel()


async def test_long_work_lets_others_run_where_a_slice_is_over(nursery: trio.Nursery) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    slices = Slices()
    slices._ends = math.inf
    for _ in range(100):
        await slices.pause()
    assert turns == 0
    with trio.fail_after(60):
        while turns < 3:
            slices._ends = 0
            await slices.pause()
    nursery.cancel_scope.cancel()


async def test_a_defect_of_the_console_ends_no_gateway(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    console = console_of(Agents())

    class Broken(Agents):
        @property
        def agents(self) -> dict[str, Any]:
            raise RuntimeError("a defect")

    nursery.start_soon(console.run)
    await trio.lowlevel.checkpoint()
    with console.watch.reader(""):
        console.watch._dispatcher = Broken()  # type: ignore[assignment]
        await console.watch.next_look()
        await trio.sleep(5)
    assert console.watch.closed
    assert "the console has failed" in caplog.text
    nursery.cancel_scope.cancel()


# Streams


async def test_streams_are_bounded_for_each_key() -> None:
    watch = Watch(Agents())  # type: ignore[arg-type]
    readers = [watch.reader("ada") for _ in range(MOST_READERS_OF_KEY)]
    for reader in readers:
        reader.__enter__()
    with pytest.raises(Overloaded, match="with this key"):
        watch.check_room("ada")
    watch.check_room("bob")
    readers[0].__exit__(None, None, None)
    watch.check_room("ada")
    for reader in readers[1:]:
        reader.__exit__(None, None, None)


async def test_where_all_streams_are_taken_a_key_with_fewer_takes_one_of_a_key_with_more() -> None:
    watch = Watch(Agents())  # type: ignore[arg-type]
    full = ["ada", "bob", "cy", "dan"] * MOST_READERS_OF_KEY
    assert len(full) == MOST_READERS
    with ExitStack() as opened:
        readers = [opened.enter_context(watch.reader(owner)) for owner in full]
        with pytest.raises(Overloaded, match="with this key"):
            watch.check_room("ada")
        watch.check_room("eve")
        eves = opened.enter_context(watch.reader("eve"))
        assert [reader.displaced for reader in readers] == [True, *[False] * (MOST_READERS - 1)]
        # Whose stream was ended for it does not end another's in turn, nor does its next one.
        with pytest.raises(Overloaded, match="32 streams"):
            watch.check_room("ada")
        for number in range(20):
            watch.check_room(f"key-{number}")
            opened.enter_context(watch.reader(f"key-{number}"))
        assert not eves.displaced
        left = Counter(reader.owner for reader in readers if not reader.displaced)
        assert len(left) == 4
        assert max(left.values()) - min(left.values()) <= 1
    watch.check_room("ada")


async def test_a_slow_reader_is_told_later_and_in_one_step(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    agents = Agents()
    console = console_of(agents)
    nursery.start_soon(console.watch.run)
    rights = Rights(ANONYMOUS, keys=False)
    body = LiveBody(console, rights, [RequestsTopic(console, rights, None)])
    async with body as entered:
        steps = entered.__aiter__()
        assert b'"reset":true' in await steps.__anext__()
        for number in range(2 * MOST_KEPT):
            console.observe([observed(f"r-{number}")])
            if number % 100 == 0:
                await trio.sleep(5)  # what the reader does not do
        told = []
        while (step := await steps.__anext__()) != b": keep-alive\n\n":
            piece = json.loads(step.partition(b"data: ")[2])["requests"]
            assert 0 < len(piece) <= MOST_REQUESTS
            told += piece
        assert len(told) == MOST_KEPT
        assert told[-1]["request_id"] == f"r-{2 * MOST_KEPT - 1}"
        console.watch.close()
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()
        await steps.aclose()  # type: ignore[attr-defined]
    nursery.cancel_scope.cancel()


async def test_a_stream_ends_that_is_being_sent_when_the_gateway_ends(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    agents = Agents()
    console = console_of(agents)
    nursery.start_soon(console.watch.run)
    rights = Rights(ANONYMOUS, keys=False)
    topics = [RequestsTopic(console, rights, None), LogTopic(console, rights, LineFilter())]
    async with LiveBody(console, rights, topics) as body:
        steps = body.__aiter__()
        assert b"event: requests" in await steps.__anext__()
        agents.until_stop.stop()
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert [step.partition(b"\n")[0] async for step in steps] == [b"event: log"]
        await steps.aclose()  # type: ignore[attr-defined]
    nursery.cancel_scope.cancel()


async def test_a_stream_that_begins_as_the_gateway_ends_is_empty(
    autojump_clock: MockClock,
) -> None:
    console = console_of(Agents())
    rights = Rights(ANONYMOUS, keys=False)
    async with LiveBody(console, rights, [RequestsTopic(console, rights, None)]) as body:
        console.watch.close()
        with trio.fail_after(5):
            assert [step async for step in body] == []


async def test_a_stream_ends_with_the_key_that_it_was_opened_with(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    console = console_of(Agents(), KEYS)
    nursery.start_soon(console.watch.run)
    rights = console.rights_of(ADA)
    async with LiveBody(console, rights, [LogTopic(console, rights, LineFilter())]) as body:
        steps = body.__aiter__()
        await steps.__anext__()
        console.change(Settings(), KEYS)  # nothing of the keys has changed
        assert await steps.__anext__() == b": keep-alive\n\n"
        console.change(Settings(), CallerKeys())
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()
        await steps.aclose()  # type: ignore[attr-defined]
    nursery.cancel_scope.cancel()


# What they tell


def test_topics_begin_with_everything_also_if_that_is_nothing() -> None:
    console = console_of(Agents())
    rights = Rights(ANONYMOUS, keys=False)
    topics = (
        AgentsTopic(console, rights, None),
        RequestsTopic(console, rights, None),
        LogTopic(console, rights, LineFilter()),
    )
    told = [(name, data["reset"]) for topic in topics for name, data in topic.news()]
    assert told == [("agents", True), ("series", True), ("requests", True), ("log", True)]
    assert [event for topic in topics for event in topic.news()] == []


async def test_running_requests_are_told_when_they_have_moved() -> None:
    agents = Agents()
    console = console_of(agents, KEYS)
    hers, his = (
        Exchange(call(name, owner=owner), Clocks(), trio.current_time())
        for name, owner in (("r-1", "ada"), ("r-2", "bob"))
    )
    agents.open = {hers: None, his: None}
    topic = RequestsTopic(console, console.rights_of(ADA), None)

    def news() -> dict[str, Any] | None:
        events = [data for _, data in topic.news()]
        return events[0] if events else None

    first = news()
    assert first is not None
    assert [each.request_id for each in first["requests"]] == ["r-1"]
    assert first["running"] == 1
    assert news() is None
    hers.add_words([b'"x"'], trio.current_time())
    his.add_words([b'"x"'], trio.current_time())
    moved = news()
    assert moved is not None
    assert [(each.state, each.words) for each in moved["requests"]] == [("speaking", 1)]
    console.observe([observed("r-1", key="ada", exchange=hers)])
    del agents.open[hers]
    ended = news()
    assert ended is not None
    assert [each.state for each in ended["requests"]] == ["completed"]
    assert (ended["gone"], ended["running"]) == ([], 0)
    for number in range(MOST_KEPT):
        console.observe([observed(f"more-{number}", key="ada")])
    last = news()
    assert last is not None
    assert last["gone"] == [ended["requests"][0].id]


async def test_whoever_gets_a_key_of_an_earlier_name_sees_nothing_of_its_holder() -> None:
    agents = Agents()
    console = console_of(agents, KEYS)
    running = Exchange(call("r-1", owner="ada"), Clocks(), clock.now() - 10)
    console.observe([observed("r-2", key="ada", began=clock.now() - 5, ended=clock.now())])
    said = AccessLine(
        datetime.now(UTC) - timedelta(seconds=5), "info", "gateway.access", "x", "r-2", key="ada"
    )
    console.lines.keep_lines([said])
    agents.open = {running: None}

    def shown() -> list[int]:
        rights = console.rights_of(ADA)
        requests = RequestsTopic(console, rights, None)
        log = LogTopic(console, rights, LineFilter())
        events = [event for topic in (requests, log) for event in topic.news()]
        return [len(data.get("requests", data.get("lines", []))) for _, data in events if data]

    assert shown() == [2, 1]
    first, second = (f"agw_{letter * 43}".encode() for letter in "mn")
    both = KeySettings(hash=(*KEYS.by_name["ada"].hashes, hash_key(first)))
    rotated = KeySettings(hash=hash_key(first))
    for key in (both, rotated):  # the same holder gets another key, step by step
        console.change(Settings(agents=SOME_AGENTS), CallerKeys({"ada": key}, on=True))
        assert shown() == [2, 1]
    console.change(
        Settings(agents=SOME_AGENTS),
        CallerKeys({"ada": KeySettings(hash=hash_key(second))}, on=True),
    )
    assert shown() == [0, 0]
    # What the earlier holder has asked for ends later, and is another's still.
    console.observe([observed("r-1", key="ada", began=running.admitted_at, ended=clock.now())])
    assert shown() == [0, 0]
    console.observe([observed("r-3", key="ada", began=clock.now(), ended=clock.now())])
    assert shown() == [1, 0]
