"""The lines of the log that the console keeps: within which bounds, and who may read them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.front.auth import ANONYMOUS
from gateway.front.console.lines import (
    LINES_OF_A_STEP,
    MOST_TEXT,
    Found,
    LastLines,
    Line,
    LineFilter,
)
from gateway.front.console.live import (
    MOST_NEW_LINES,
    LogTopic,
)
from gateway.front.console.rights import Rights
from gateway.front.console.rings import Rings
from gateway.observe.access_line import AccessLine
from tests.unit.console import ADA, BOB, HOSTILE, Agents, console_of


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
            found: Found = end.value
            return found.lines, found.passed_over


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


def test_lines_that_come_while_others_are_looked_for_are_told_next() -> None:
    console = console_of(Agents())
    topic = LogTopic(console, Rights(ANONYMOUS, keys=False), LineFilter())
    now = datetime.now(UTC)

    def log(request: str, many: int) -> None:
        said = AccessLine(now, "info", "gateway.access", "request ended", request)
        console.lines.keep_lines([said] * many)

    log("early", LINES_OF_A_STEP)
    steps = topic.news()
    assert next(steps) is None
    log("late", 2)
    told = [data for each in steps if each is not None for data in [each[1]]]
    assert {line["request"] for data in told for line in data["lines"]} == {"early"}
    assert sum(len(data["lines"]) for data in told) == LINES_OF_A_STEP
    [(_, data)] = [each for each in topic.news() if each is not None]
    assert [line["request"] for line in data["lines"]] == ["late", "late"]
    assert data["skipped"] == 0


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


# Whose they are


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
