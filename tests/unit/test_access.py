"""Access lines: the same whichever way they go, and in batches."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.errors import AgentFailed
from gateway.observe import logs
from gateway.observe.access import log_access
from gateway.observe.access_line import AccessLine
from gateway.observe.batch import MOST, SECONDS, Batch
from gateway.observe.formats import json_formatter
from gateway.observe.observation import Observation
from tests.unit.pipes import Pipe

ROOT = logging.getLogger()
LOGGER = logging.getLogger("gateway.access")


ACTING = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""Categories of characters that do more than print."""


class Kept(logging.Handler):
    """A handler besides the one that writes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logging_to(descriptor: int) -> Iterator[logs.QueueingHandler]:
    """The only handler, which writes JSON; pytest has others while a test runs."""
    handler = logs.QueueingHandler(descriptor, "json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOT, "handlers", [handler])
        LOGGER.setLevel(logging.INFO)
        yield handler
        LOGGER.setLevel(logging.NOTSET)
    assert handler.writer.flush(20)


def written(pipe: Pipe) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(pipe.read_until(rb"\n"))
    del line["timestamp"]
    return line


def ended(**values: Any) -> Observation:
    seen = Observation(**values)
    seen.end(values.get("ended", 1.5))
    return seen


SEEN = [
    ended(began=1.0, request_id="r-1", method="GET", status=404),
    ended(kind="run", began=1.0, ended=9.0, request_id="r-2", run="run_1", agent="a"),
    ended(
        began=1.0,
        ended=1.25,
        request_id='quote"\\',
        method="POST",
        route="/agent/{name}/chat",
        dialect="native",
        handler="chat",
        agent="a",
        key="alice",
        stream=True,
        status=200,
        error=AgentFailed("it broke"),
        bytes_in=3,
        bytes_out=5,
        body_began=1.125,
        client_left=True,
    ),
]


class KeptLines(logs.LineKeeper):
    """A handler that needs no records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[AccessLine] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def keep_lines(self, lines: Sequence[AccessLine]) -> None:
        self.lines += lines


@pytest.mark.parametrize("seen", SEEN, ids=["refused", "run", "call"])
def test_whoever_keeps_lines_gets_what_is_written_without_a_record(
    seen: Observation, pipe: Pipe
) -> None:
    keeper = KeptLines()
    with logging_to(pipe.writer) as handler:
        with logs.kept_by(keeper):
            assert logs.json_writer(LOGGER) is handler.writer
            log_access([seen])
            with_line = written(pipe)
            handler.use("text")  # there must be a record now, and nobody gets the line twice
            log_access([seen])
            pipe.read_until(rb"\n")
            handler.use("json")
        log_access([seen])  # nobody keeps it
        assert written(pipe) == with_line
    ((line,), (record,)) = keeper.lines, keeper.records
    assert line.as_record().__dict__["fields"] == record.__dict__["fields"]
    made = json.loads(json_formatter().format(line.as_record()))
    del made["timestamp"]
    assert list(made.items()) == list(with_line.items())


@pytest.mark.parametrize("seen", SEEN, ids=["refused", "run", "call"])
def test_a_line_is_the_same_with_a_record_and_without(seen: Observation, pipe: Pipe) -> None:
    other = Kept()
    with logging_to(pipe.writer) as handler:
        assert logs.json_writer(LOGGER) is handler.writer
        log_access([seen])
        without = written(pipe)
        ROOT.addHandler(other)
        assert logs.json_writer(LOGGER) is None
        log_access([seen])
    assert list(written(pipe).items()) == list(without.items())
    (record,) = other.records
    assert json.loads(json_formatter().format(record))["event"] == without["event"]


def test_what_is_below_the_level_is_not_written(pipe: Pipe) -> None:
    with logging_to(pipe.writer):
        log_access([ended(began=0, request_id="probe", route="/live")])
        log_access([ended(began=0, request_id="other", route="/agents")])
    assert written(pipe)["request"] == "other"


def test_text_is_written_by_way_of_a_record(pipe: Pipe) -> None:
    with logging_to(pipe.writer) as handler:
        handler.use("text")
        log_access([SEEN[0]])
    assert b" INFO request ended request=r-1 method=GET status=404" in pipe.read_until(rb"\n")


@given(st.text(max_size=40))
def test_no_text_can_end_a_line_or_act(request_id: str) -> None:
    reader, descriptor = os.pipe()
    with logging_to(descriptor):
        log_access([ended(began=0, request_id=request_id, method="GET")])
    os.close(descriptor)
    with open(reader, encoding="utf-8") as stream:
        line = stream.read()
    assert line.endswith("\n")
    assert not [each for each in line[:-1] if unicodedata.category(each) in ACTING]
    assert json.loads(line).get("request", "") == request_id


# Batches


def observation(number: int) -> Observation:
    return Observation(began=number)


async def test_what_has_ended_waits_for_others_but_not_for_long(autojump_clock: MockClock) -> None:
    told: list[float] = []
    batch = Batch([lambda ended: told.extend(seen.began for seen in ended)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batch.run)
        for number in range(3):
            batch.tell(observation(number))
            assert told == []
        await trio.sleep(SECONDS)
        await wait_all_tasks_blocked()
        assert told == [0, 1, 2]
        await trio.sleep(60)
        batch.tell(observation(3))
        await trio.sleep(SECONDS)
        await wait_all_tasks_blocked()
        assert told == [0, 1, 2, 3]
        nursery.cancel_scope.cancel()


def test_a_full_batch_waits_for_nothing() -> None:
    told: list[float] = []
    batch = Batch([lambda ended: told.extend(seen.began for seen in ended)])
    for number in range(MOST + 1):
        batch.tell(observation(number))
    assert told == list(range(MOST))
    batch.catch_up()
    assert told == list(range(MOST + 1))


def test_an_observer_that_fails_keeps_no_other_from_being_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[float] = []

    def fails(ended: Sequence[Observation]) -> None:
        raise RuntimeError(len(ended))

    batch = Batch([fails, lambda ended: told.extend(seen.began for seen in ended)])
    for number in range(2):
        batch.tell(Observation(began=number, request_id=f"r-{number}"))
    batch.catch_up()
    assert told == [0, 1]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == "requests could not be observed"
    assert record.__dict__["fields"] == {"request": "r-0,r-1"}
