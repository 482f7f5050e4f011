"""What the console keeps and tells, without HTTP: bounds, rights and what has changed."""

from __future__ import annotations

import gc
import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from werkzeug.datastructures import Headers

from gateway import clock
from gateway.call import Call
from gateway.config import AgentSettings, CallerKeys, Clocks, ServerSettings, Settings
from gateway.config.keys import KeySettings, hash_key
from gateway.errors import ClockRanOut, Forbidden, Overloaded, UnsupportedMediaType, WorkerCrashed
from gateway.exchange import Exchange
from gateway.front.auth import ANONYMOUS, Caller
from gateway.front.console.agents import Glances, SeenAgents
from gateway.front.console.console import Console
from gateway.front.console.journal import FIRST, LAST, Noted, NotedWithText
from gateway.front.console.lines import (
    LINES_OF_A_STEP,
    MOST_TEXT,
    LastLines,
    Line,
    LineFilter,
)
from gateway.front.console.live import (
    MOST_NEW_LINES,
    MOST_REQUESTS,
    AgentsTopic,
    LiveBody,
    LogTopic,
    RequestsTopic,
)
from gateway.front.console.origin import check_change, check_origin
from gateway.front.console.requests import MOST_KEPT, LastRequests, id_of, view_running
from gateway.front.console.rights import Rights
from gateway.front.console.rings import Rings
from gateway.front.console.series import BUCKET, BUCKETS, Series
from gateway.front.console.slices import Slices
from gateway.front.console.watch import MOST_READERS, MOST_READERS_OF_KEY, Watch
from gateway.front.console.workers import MOST_WORKERS, SeenWorkers, WorkerGlances
from gateway.front.sockets import has_console
from gateway.observe.access_line import AccessLine
from gateway.observe.observation import Observation
from gateway.workers.events import Reason
from tests.unit.test_supervisor import running
from tests.unit.workers import AgentScene

SOME_AGENTS = {"a": AgentSettings(command="echo")}
KEYS = CallerKeys({"ada": KeySettings(hash=hash_key(b"agw_" + b"k" * 43))}, on=True)
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e\u2028\n"


def call(name: str = "r-1", *, owner: str = "", stream: bool = True) -> Call:
    return Call(
        agent="a", method="chat", payload=b"{}", stream=stream, owner=owner, request_id=name
    )


def observed(name: str = "r-1", *, key: str = "", **more: Any) -> Observation:
    facts: dict[str, Any] = {
        "began": 10.0,
        "request_id": name,
        "handler": "chat",
        "dialect": "native",
        "agent": "a",
        "key": key,
        "status": 200,
    }
    ended = more.pop("ended", 12.5)
    seen = Observation(**{**facts, **more})
    seen.end(ended)
    return seen


# Requests


def test_a_key_cannot_push_out_what_another_asked() -> None:
    requests = LastRequests(most=3)
    requests.observe([observed("hers", key="ada")])
    for number in range(10):
        requests.observe([observed(f"his-{number}", key="bob")])
    assert [each.view.request_id for each in requests.of("ada")] == ["hers"]
    assert [each.view.request_id for each in requests.of("bob")] == ["his-7", "his-8", "his-9"]
    assert requests.of("nobody") == []
    everybodys = [each.view.request_id for each in requests.of(None)]
    assert everybodys == ["hers", "his-7", "his-8", "his-9"]


def test_what_is_kept_is_bounded_in_bytes_of_each_key_and_of_all() -> None:
    long = WorkerCrashed("x" * 4000)
    requests = LastRequests(most_bytes=50_000, most_in_all=120_000)
    for key in ("ada", "bob", "eve"):
        for number in range(100):
            requests.observe([observed(f"{key}-{number}", key=key, error=long)])
    kept = {key: len(requests.of(key)) for key in ("ada", "bob", "eve")}
    assert sum(each.cost for key in kept for each in requests.of(key)) <= 120_000
    assert all(1 <= count < 10 for count in kept.values())
    requests.keep({"ada"}, {"a"})
    assert requests.of("bob") == []
    assert len(requests.of("ada")) == kept["ada"]
    requests.keep(None, set())
    assert "0 things" in repr(requests)


def test_a_busy_agent_pushes_out_nothing_of_another() -> None:
    requests = LastRequests(most=3)
    requests.observe([observed("rare", agent="b")])
    for number in range(10):
        requests.observe([observed(f"r-{number}")])
    names = [each.view.request_id for each in requests.of("")]
    assert names == ["rare", "r-7", "r-8", "r-9"]
    assert [each.view.request_id for each in requests.of("", "b")] == ["rare"]


def test_nothing_of_a_request_lives_on_but_what_is_shown() -> None:
    async def ask() -> None:
        exchange = Exchange(asked, Clocks(), 10.0)
        try:
            raise WorkerCrashed("it crashed", setting="sandbox.memory")
        except WorkerCrashed as error:
            seen = observed(exchange=exchange, error=error)
        requests.observe([seen])

    asked = call()
    requests = LastRequests()
    trio.run(ask)
    gc.collect()
    [kept] = requests.of("")
    left = [each for each in gc.get_objects() if isinstance(each, Exchange)]
    assert not any(each.call is asked for each in left)
    assert kept.view.error is not None
    assert (kept.view.error.message, kept.view.error.setting) == ("it crashed", "sandbox.memory")
    assert (kept.seen.error, kept.seen.exchange) == (None, None)


async def test_where_the_time_went_and_how_it_ended(autojump_clock: MockClock) -> None:
    requests = LastRequests()
    exchange = Exchange(call(), Clocks(), 10.5)
    exchange.given_at, exchange.spoke_at, exchange.word_count = 11.0, 12.0, 7
    requests.observe([observed(exchange=exchange, stream=True)])
    requests.observe([observed("r-2", exchange=exchange, error=ClockRanOut("first", 3, 3))])
    requests.observe([observed("r-3", status=429, error=Overloaded("no room"))])
    requests.observe([observed("r-4", status=0, client_left=True)])
    requests.observe([observed("r-5", run="run_x")])  # which is told as a run
    requests.observe([observed("r-6", run="run_x", kind="run", status=0, exchange=exchange)])
    requests.observe([observed("r-7", handler="", agent="a")])  # which calls no agent
    views = [each.view for each in requests.of("")]
    assert [(each.request_id, each.state) for each in views] == [
        ("r-1", "completed"),
        ("r-2", "failed"),
        ("r-3", "refused"),
        ("r-4", "cancelled"),
        ("r-6", "completed"),
    ]
    first = views[0]
    assert (first.queue, first.first, first.total, first.words) == (1.0, 2.0, 2.5, 7)
    assert views[1].error is not None
    assert views[1].error.setting == "clocks.first"
    assert (views[4].run, views[4].status, views[4].bytes_in) == ("run_x", None, None)
    shown = requests.of("")[0].show()
    assert [(each["kind"], each["t"]) for each in shown["events"]] == [
        ("admitted", 0.5),
        ("given", 1.0),
        ("completed", 2.5),
    ]
    assert shown["recorded"] is False


async def test_a_request_has_one_id_while_it_runs_and_when_it_has_ended() -> None:
    requests = LastRequests()
    exchange = Exchange(call(owner="ada"), Clocks(), trio.current_time())
    view = view_running(exchange)
    assert (view.id, view.state, view.key) == (id_of(exchange), "queued", "ada")
    requests.observe([observed(key="ada", exchange=exchange)])
    assert requests.find(view.id, "ada") is not None
    assert requests.find(view.id, None) is not None
    assert requests.find(view.id, "bob") is None


# Journals


async def test_the_first_and_the_last_words_are_noted_and_never_their_text() -> None:
    exchange = Noted(call(), Clocks(), 10.0)
    for number in range(1000):
        exchange.add_words([b'"a secret"', b'{"type":"status","text":"a secret"}'], float(number))
        exchange.take()
    exchange.end()
    exchange.add_words([b'"late"'], 2000.0)
    entries = exchange.journal.entries
    assert len(entries) == FIRST + LAST
    assert exchange.journal.left_out == 2000 - FIRST - LAST
    assert [each.kind for each in entries[:2]] == ["chunk", "status"]
    assert entries[-1].at == 999.0
    assert not any(each.text for each in entries)
    assert "secret" not in repr(entries)


async def test_words_of_one_kind_that_come_together_are_one_entry() -> None:
    exchange = NotedWithText(call(), Clocks(), 10.0)
    words = [b'"ab"', b'"cd"', b'{"text":"x","type":"reasoning"}', b'{"type":"x-own"}', b'"e"']
    exchange.add_words(words, 11.0)
    shown = [entry.show(10.0) for entry in exchange.journal.entries]
    assert [(each["kind"], each["count"], each["size"]) for each in shown] == [
        ("chunk", 2, 8),
        ("reasoning", 1, 31),
        ("event", 1, 16),
        ("chunk", 1, 3),
    ]
    assert shown[0]["text"] == "abcd"
    assert {each["t"] for each in shown} == {1.0}
    assert exchange.take() == words


# Lines


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, LastLines]]:
    lines = LastLines(most_lines=50, most_text=120_000)
    logger = logging.getLogger("gateway.agent")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(lines)
    yield logger, lines
    logger.removeHandler(lines)
    logger.setLevel(level)


def say(logger: logging.Logger, text: str, level: int = logging.INFO, **fields: Any) -> None:
    logger.log(level, text, extra={"fields": fields})


def everything(line: Line) -> bool:
    del line
    return True


def after(lines: LastLines, n: int, wanted: Any, most: int) -> tuple[list[Line], int]:
    """What is found from the line with that number on, in as many steps as it takes."""
    steps = lines.after(n, wanted, most)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: tuple[list[Line], int] = end.value
            return found


def find(lines: LastLines, wanted: Any, most: int) -> list[Line]:
    return after(lines, 0, wanted, most)[0]


def test_the_last_lines_are_kept_within_bounds(log: tuple[logging.Logger, LastLines]) -> None:
    logger, lines = log
    for number in range(80):
        say(logger, f"line {number}")
    found, passed = after(lines, 0, everything, 1000)
    assert [line.n for line in found] == list(range(30, 80))
    assert passed == 30
    assert [line.n for line in after(lines, 70, everything, 4)[0]] == [76, 77, 78, 79]
    assert after(lines, 70, everything, 4)[1] == 6
    assert after(lines, 80, everything, 4) == ([], 0)
    for _ in range(20):
        say(logger, "x" * 30_000, more="y" * 1000)
    assert len(find(lines, everything, 1000)) == 3
    assert "3 things" in repr(lines)


def test_an_agent_that_logs_without_end_pushes_out_nothing_of_another(
    log: tuple[logging.Logger, LastLines],
) -> None:
    logger, lines = log
    say(logger, "of the gateway")
    say(logger, "rare", agent="b")
    for number in range(200):
        say(logger, f"{number}", agent="a")
    found, passed = after(lines, 0, everything, 1000)
    assert [line.record.msg for line in found[:3]] == ["of the gateway", "rare", "150"]
    assert passed == 150
    lines.keep(None, {"b"})
    assert [line.record.msg for line in find(lines, everything, 9)] == ["of the gateway", "rare"]


def test_a_caller_that_asks_without_end_pushes_out_no_line_of_another_one_of_its_agent(
    log: tuple[logging.Logger, LastLines],
) -> None:
    logger, lines = log
    say(logger, "worker started", agent="a")
    say(logger, "hers", agent="a", key="ada", request="r")
    for number in range(200):
        say(logger, f"his-{number}", agent="a", key="bob", request="r")
        say(logger, f"both-{number}", agent="a", request="r,s")
        ended = {"request": f"r-{number}", "agent": "a", "key": "bob"}
        now = datetime.now(UTC)
        lines.keep_lines([AccessLine(now, "info", "gateway.access", "request ended", **ended)])
    kept = [line.record.msg for line in find(lines, everything, 9999) if type(line) is Line]
    assert kept[:2] == ["worker started", "hers"]
    assert len(find(lines, lambda line: line.key == "bob", 9999)) == 50
    lines.keep({"bob"}, {"a"})
    assert find(lines, lambda line: line.key == "ada", 9) == []
    assert len(find(lines, lambda line: line.key == "bob", 9999)) == 50


async def test_lines_are_looked_for_in_steps(nursery: trio.Nursery) -> None:
    lines = LastLines()
    now = datetime.now(UTC)
    for agent in "abc":
        for _ in range(1000):
            said = AccessLine(now, "info", "gateway.access", "request ended", "r", agent=agent)
            lines.keep_lines([said])
    assert len(list(lines.after(0, everything, 5))) == 3000 // LINES_OF_A_STEP
    assert [line.n for line in await lines.find(everything, 2)] == [2998, 2999]
    console = console_of(Agents())
    console.lines = lines
    topic = LogTopic(console, Rights(ANONYMOUS, keys=False), LineFilter())
    told = [each for each in topic.news() if each is not None]
    assert sum(len(data["lines"]) for _, data in told) == MOST_NEW_LINES
    assert list(topic.news()) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=60),
    st.integers(0, 60),
)
def test_rings_keep_the_last_of_each_in_order_and_within_all_bounds(
    things: list[tuple[str, int]], since: int
) -> None:
    rings: Rings[str, int] = Rings(most=5, most_cost=20, most_cost_in_all=35)
    for number, (key, cost) in enumerate(things):
        rings.add(key, number, cost)
        kept = rings.since(0, lambda _: True)
        assert sum(things[number][1] for _, number in kept) == rings.cost <= 35
        assert [n for n, _ in kept] == sorted(n for n, _ in kept)
    for key in "abc":
        own = [n for n, _ in rings.since(0, lambda each, key=key: each == key)]  # type: ignore[misc]
        every = [n for n, (each, _) in enumerate(things) if each == key]
        assert own == every[len(every) - len(own) :]
        assert len(own) <= 5
        assert sum(things[n][1] for n in own) <= 20
    every_thing = [thing for _, thing in rings.since(0, lambda _: True)]
    assert rings.last(4, lambda _: True) == every_thing[-4:]
    found = rings.since(since, lambda _: True)
    assert found == [each for each in rings.since(0, lambda _: True) if each[0] >= since]
    assert rings.next == len(things)


def test_a_line_is_harmless_and_short_whatever_was_logged(
    log: tuple[logging.Logger, LastLines],
) -> None:
    logger, lines = log
    say(logger, HOSTILE + "z" * 9000, agent="a", request=HOSTILE, odd=object, none=None, n=3)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("failed %s", HOSTILE)
    first, second = find(lines, everything, 10)
    shown = first.show(keys=False)
    assert shown["message"].isprintable()
    assert len(shown["message"]) < MOST_TEXT + 200
    assert shown["request"].isprintable()
    assert shown["fields"] == {"odd": "<class 'object'>", "n": 3}
    assert json.loads(msgspec.json.encode(shown)) == shown
    assert second.record.exc_info is None
    assert second.show(keys=False)["fields"]["exception"].startswith("ValueError: <img")


def test_lines_of_threads_have_one_number_each(log: tuple[logging.Logger, LastLines]) -> None:
    logger, lines = log
    threads = [
        threading.Thread(target=lambda: [say(logger, "x") for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines.next == 800
    assert [line.n for line in find(lines, everything, 100)] == list(range(750, 800))


def test_lines_are_filtered(log: tuple[logging.Logger, LastLines]) -> None:
    logger, lines = log
    say(logger, "1", agent="a", request="r-1,r-2")
    say(logger, "2", logging.DEBUG, agent="a", request="r-2")
    say(logger, "3", logging.ERROR, agent="b", request="r-12")

    def found(**wanted: Any) -> list[str]:
        return [line.record.msg for line in find(lines, LineFilter(**wanted).takes, 10)]

    assert found() == ["1", "3"]
    assert found(agent="a") == ["1"]
    assert found(request="r-2", level=logging.DEBUG) == ["1", "2"]
    assert found(request="r-1") == ["1"]
    assert found(level=logging.ERROR) == ["3"]


@pytest.mark.parametrize(
    "facts",
    [
        {"agent": "a", "key": "ada", "pid": 3, "status": 200, "total": 0.25, "stream": True},
        {"run": "run_x", "bytes_in": None, "error": "worker_crashed"},
        {"level": "debug", "route": "/live", "status": 404},
    ],
)
def test_a_line_of_the_access_log_is_shown_as_its_record_would_be(facts: dict[str, Any]) -> None:
    said = AccessLine(
        **{
            "timestamp": datetime(2026, 1, 31, tzinfo=UTC),
            "level": "info",
            "logger": "gateway.access",
            "event": "request ended",
            "request": HOSTILE,
            **facts,
        }
    )
    lines = LastLines()
    lines.keep_lines([said])
    lines.handle(said.as_record())
    kept, recorded = find(lines, everything, 9)
    assert kept.show(keys=True) == recorded.show(keys=True) | {"n": kept.n}
    for name in ("level", "logger", "agent", "request", "key", "pid", "stderr"):
        assert getattr(kept, name) == getattr(recorded, name)
    assert kept.is_about(HOSTILE)


ADA = Caller("ada", None)
BOB = Caller("bob", None, frozenset({"a"}))


@pytest.mark.parametrize(
    ("fields", "logger", "level", "readers"),
    [
        ({}, "gateway", 20, "ada"),  # of the gateway: for whoever may call every agent
        ({"key": "bob"}, "gateway", 20, "bob"),
        ({"agent": "a"}, "gateway", 20, "ada bob"),
        ({"agent": "b"}, "gateway", 20, "ada"),
        ({"agent": "a", "pid": 1}, "gateway.worker", 20, "ada bob"),
        ({"agent": "a", "pid": 1}, "gateway.worker", 30, ""),  # may quote an answer
        ({"agent": "a", "pid": 1}, "gateway.agent", 20, ""),  # may quote anything
        ({"agent": "a", "request": "r"}, "gateway", 20, ""),  # whose it is, nobody has said
        ({"agent": "a", "request": "r", "key": "bob"}, "gateway.agent", 20, "bob"),
        ({"agent": "b", "request": "r", "key": "ada"}, "gateway.worker", 40, "ada"),
        ({"agents": "a,b"}, "gateway", 30, "ada"),
    ],
)
def test_who_may_read_a_line(fields: dict[str, Any], logger: str, level: int, readers: str) -> None:
    record = logging.LogRecord(logger, level, "", 0, "x", None, None)
    record.__dict__["fields"] = fields
    line = Line(1, record)
    found = [each.name for each in (ADA, BOB) if Rights(each, keys=True).may_read(line)]
    assert " ".join(found) == readers
    assert Rights(ANONYMOUS, keys=False).may_read(line)


def test_what_an_ended_worker_wrote_last_is_nobodys_in_particular() -> None:
    record = logging.LogRecord("gateway.worker", 30, "", 0, "worker ended", None, None)
    record.__dict__["fields"] = {"request": "r", "key": "ada", "stderr": "bob said that"}
    assert "stderr" not in Line(1, record).show(keys=True)["fields"]
    assert "stderr" in Line(1, record).show(keys=False)["fields"]


# Series


def test_requests_are_counted_in_the_bucket_in_which_they_end() -> None:
    now = [1000.0]
    series = Series(lambda: now[0])
    for seconds in (1, 2, 3, 4):
        series.observe([observed(ended=10.0 + seconds)])
    series.observe([observed(ended=11.0, error=WorkerCrashed("x"))])
    now[0] += 2 * BUCKET
    series.observe([observed(ended=10.5)])
    series.observe([observed(agent="", ended=10.5)])
    series.observe([observed(run="run_x", ended=10.5)])
    assert series.read("a") == [(1000, 5, 1, 2.0, 4.0), (1010, 1, 0, 0.5, 0.5)]
    assert series.read("a", since=1005) == [(1010, 1, 0, 0.5, 0.5)]
    assert series.read("b") == []
    now[0] += BUCKET * BUCKETS
    assert [point[0] for point in series.read("a")] == [1010]
    series.keep({"b"})
    assert series.read("a") == []


def test_a_flood_takes_no_more_than_a_trickle() -> None:
    now = [1000.0]
    series = Series(lambda: now[0])
    for number in range(BUCKETS * 3):
        now[0] += BUCKET
        for _ in range(3 if number < BUCKETS * 3 - 1 else 10_000):
            series.observe([observed(ended=10.1)])
    points = series.read("a")
    assert len(points) <= BUCKETS + 1
    assert points[-1][1:4] == (10_000, 0, 0.1)


# Agents


def plain(pieces: Iterable[Any]) -> list[Any]:
    """As JSON."""
    return [json.loads(msgspec.json.encode(piece)) for piece in pieces]


async def seen_news(seen: SeenAgents, glances: Glances, it: AgentScene) -> dict[str, Any] | None:
    pieces = plain(seen.news(await glances.look([it.agent])))
    assert len(pieces) <= 1
    return pieces[0] if pieces else None


async def test_only_what_has_changed_is_told_again() -> None:
    async with running(AgentScene(workers={"max": 2}, concurrency=1, description=HOSTILE)) as it:
        glances, seen = Glances(), SeenAgents(lambda _: True, keys=False)
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["state"] == "ready"
        assert agent["description"].isprintable()
        assert agent["cells"] == "r"
        assert await seen_news(seen, glances, it) is None
        first, second = it.ask("hold"), it.ask("hold")
        await trio.testing.wait_all_tasks_blocked()
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["cells"] == "bb"
        assert "description" not in agent
        assert (agent["in_flight"], agent["started"]) == (2, 2)
        it.crew[1].ends(Reason.EXITED, error=WorkerCrashed("it exited", setting="sandbox.memory"))
        assert (await glances.look([it.agent]))["a"].cells in {"fb", "b"}
        await trio.testing.wait_all_tasks_blocked()
        news = await seen_news(seen, glances, it)
        assert news is not None
        [agent] = news["agents"]
        assert agent["cells"] == "b"
        assert agent["failure"]["setting"] == "sandbox.memory"
        assert "revision" not in agent
        it.agent.leave(first)
        it.agent.leave(second)


async def test_workers_are_told_one_by_one_and_only_those_that_have_changed() -> None:
    async with running(AgentScene(workers={"max": 2}, concurrency=1)) as it:
        glances, seen = WorkerGlances(), SeenWorkers()

        async def news(**memory: int) -> dict[str, Any]:
            measured = {("a", int(key[1:])): used for key, used in memory.items()}
            views = await glances.look({"a": it.agent}, measured)
            told: dict[str, Any] = {}
            for piece in plain(seen.news(views["a"])):
                told |= piece
            return told

        def members(worker: list[Any]) -> tuple[Any, ...]:
            _, state, _, served, in_flight, capacity, memory = worker
            return state, served, in_flight, capacity, memory

        told = await news()
        assert members(told["1"]) == ("ready", 0, 0, 1, None)
        assert await news() == {}
        held = it.ask("hold")
        assert members((await news())["1"]) == ("busy", 0, 1, 1, None)
        assert members((await news(w1=77))["1"]) == ("busy", 0, 1, 1, 77)
        it.crew[1].ends(Reason.EXITED, error=WorkerCrashed("it exited"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await news(w1=77))["1"] is None
        assert await glances.look({"b": None}, {}) == {"b": {}}
        it.agent.leave(held)


async def test_a_reader_is_told_of_the_agents_that_its_key_may_call() -> None:
    async with running(AgentScene()) as it:
        glances = Glances()
        views = await glances.look([it.agent])
        assert list(SeenAgents(lambda name: name != "a", keys=True).news(views)) == []
        seen = SeenAgents(lambda _: True, keys=True)
        assert list(seen.news(views)) != []
        gone = seen.news(await glances.look([]))
        assert list(gone) == [{"agents": [], "removed": ["a"]}]


async def test_the_message_of_a_limit_is_not_told_where_it_may_be_anothers() -> None:
    async with running(AgentScene()) as it:
        exchange = it.ask("hold")
        it.crew[1].ends(
            Reason.EXITED,
            error=WorkerCrashed("quoting", limit="memory", setting="sandbox.memory"),
        )
        await trio.testing.wait_all_tasks_blocked()
        views = await Glances().look([it.agent])
        for keys, message in ((True, ""), (False, "quoting")):
            [news] = SeenAgents(lambda _: True, keys=keys).news(views)
            limit = news["agents"][0]["limit"]
            assert (limit.message, limit.setting) == (message, "sandbox.memory")
        it.agent.leave(exchange)


async def test_thousands_of_workers_are_told_in_pieces_and_at_rest_not_again() -> None:
    count = 2 * MOST_WORKERS + 1
    async with running(AgentScene(workers={"min": count, "max": count})) as it:
        await trio.testing.wait_all_tasks_blocked()
        glances, seen = WorkerGlances(), SeenWorkers()
        views = await glances.look({"a": it.agent}, {})
        assert [len(piece) for piece in seen.news(views["a"])] == [MOST_WORKERS, MOST_WORKERS, 1]
        held = it.ask("hold")
        views = await glances.look({"a": it.agent}, {})
        assert [len(piece) for piece in seen.news(views["a"])] == [1]
        it.agent.leave(held)


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


# Watching


class Agents:
    """A dispatcher whose agents are counted each time they are looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.reading: set[trio.CancelScope] = set()
        self.open: dict[Exchange, None] = {}
        self.new_exchange: Any = Exchange
        self.leaving = False

    @property
    def agents(self) -> dict[str, Any]:
        self.looks += 1
        return {}


def console_of(agents: Agents, keys: CallerKeys | None = None) -> Console:
    found: Any = agents
    return Console(found, Settings(), keys or CallerKeys(), ["127.0.0.1"])


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


# Pages of other origins, and strangers

SITES = [
    ({}, True),
    ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, True),
    ({"Host": "gateway.example", "Origin": "https://gateway.example"}, True),
    ({"Host": "gateway.example:443", "Origin": "https://Gateway.example"}, True),
    ({"Host": "gateway.example", "Origin": "https://gateway.example:443"}, True),
    ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, True),
    ({"Host": "inside:1", "Origin": "https://outside", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:3000"}, False),
    ({"Host": "127.0.0.1:8080", "Origin": "http://evil.example"}, False),
    ({"Host": "gateway.example", "Origin": "https://gateway.example.evil"}, False),
    ({"Host": "gateway.example", "Origin": "null"}, False),
    ({"Host": "", "Origin": "://"}, False),
    ({"Host": "a", "Origin": "http://a", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Host": "a", "Origin": "http://a", "Sec-Fetch-Site": "same-site"}, False),
    ({"Host": "a", "Sec-Fetch-Site": ""}, False),
]


@pytest.mark.parametrize(("fields", "own"), SITES)
def test_a_browser_says_whose_page_asks(fields: dict[str, str], own: bool) -> None:
    if own:
        check_origin(Headers(fields))
    else:
        with pytest.raises(Forbidden):
            check_origin(Headers(fields))


@given(st.text(max_size=40), st.text(max_size=40))
def test_an_origin_that_does_not_name_the_host_is_another(origin: str, host: str) -> None:
    def field(text: str) -> str:
        return text.replace("\r", "").replace("\n", "")

    if host.lower() not in origin.lower() or not host:
        with pytest.raises(Forbidden):
            check_origin(Headers({"Host": field(host) + "h", "Origin": field(origin)}))


def test_a_change_must_be_what_no_form_can_send() -> None:
    check_change(Headers({"Content-Type": "application/json; charset=utf-8"}))
    for kind in ("text/plain", "multipart/form-data; boundary=application/json", ""):
        with pytest.raises(UnsupportedMediaType):
            check_change(Headers({"Content-Type": kind}))
    with pytest.raises(Forbidden):
        check_change(Headers({"Content-Type": "application/json", "Origin": "http://x"}))


@pytest.mark.parametrize(
    ("setting", "keys", "address", "there"),
    [
        (None, False, "127.0.0.1", True),
        (None, False, "::1", True),
        (None, False, "0.0.0.0", False),
        (None, True, "0.0.0.0", True),
        (True, False, "0.0.0.0", True),
        (False, True, "127.0.0.1", False),
    ],
)
def test_it_is_there_by_default_where_no_stranger_sees_it(
    setting: bool | None, keys: bool, address: str, there: bool
) -> None:
    server = ServerSettings(console=setting)
    assert has_console(server, KEYS if keys else CallerKeys(), [address]) is there


@pytest.mark.parametrize(
    ("setting", "keys", "there"), [(None, False, False), (None, True, True), (True, False, True)]
)
def test_it_is_not_there_by_default_for_whom_a_proxy_on_this_machine_serves(
    setting: bool | None, keys: bool, there: bool
) -> None:
    server = ServerSettings(console=setting, hosts=["gateway.example"])
    assert has_console(server, KEYS if keys else CallerKeys(), ["127.0.0.1"]) is there
