"""Records with fields: readable, one line each, and not to be forged by what is in a field."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe import harmless, logs
from gateway.observe.formats import TextFormatter, json_formatter

logger = logging.getLogger("gateway.test_logs")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged from here on, as it would stand on stderr."""
    with captured(TextFormatter(), monkeypatch) as stream:
        yield stream


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """As `text`, in JSON."""
    with captured(json_formatter(), monkeypatch) as stream:
        yield stream


@contextmanager
def captured(
    formatter: logging.Formatter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    yield stream
    logger.setLevel(logging.NOTSET)


def read(stream: io.StringIO) -> dict[str, Any]:
    """The one record, which must be one line for every reader of lines."""
    (line,) = stream.getvalue().splitlines()
    assert stream.getvalue() == f"{line}\n"
    record = json.loads(line)
    assert msgspec.json.decode(line) == record  # a stricter reader
    return record


def test_fields_follow_the_message_and_one_that_is_none_is_left_out(text: io.StringIO) -> None:
    logs.event(logger, logging.INFO, "worker started", agent="echo", pid=71, request=None)
    assert text.getvalue().endswith(" INFO worker started agent=echo pid=71\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain-word_1.2/3:4@5+6", "plain-word_1.2/3:4@5+6"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("line\nother agent=forged", r'"line\nother agent=forged"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("next\x85line", r'"next\u0085line"'),
        ("right\u202eleft", r'"right\u202eleft"'),
        ("line\u2028line", r'"line\u2028line"'),
        ("half \udc80", r'"half \udc80"'),
        ("héllo", "héllo"),
    ],
)
def test_a_value_that_is_not_one_plain_word_is_quoted(text: io.StringIO, value, shown) -> None:
    logs.event(logger, logging.INFO, "m", field=value)
    assert text.getvalue().endswith(f" INFO m field={shown}\n")


def test_fields_stand_in_the_first_line_of_a_record_with_a_traceback(text: io.StringIO) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger.exception("internal error", extra={"fields": {"request": "r-1"}})
    first, second, *_ = text.getvalue().splitlines()
    assert first.endswith(" ERROR internal error request=r-1")
    assert second == "  Traceback (most recent call last):"


def test_what_is_below_the_level_is_not_written(text: io.StringIO) -> None:
    logs.event(logger, logging.DEBUG, "detail")
    assert text.getvalue() == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("protocol violation: x\n2026-01-31 12:00:00.000 INFO all is well", None),
        ("carriage\rreturn", r"carriage\rreturn"),
        ("\x1b[2Jclear \x9b2J", r"\x1b[2Jclear \x9b2J"),
        ("next\x85line \x0b \x0c", r"next\x85line \x0b \x0c"),
        ("line\u2028 paragraph\u2029", r"line\u2028 paragraph\u2029"),
        ("right\u202eleft \u2066", r"right\u202eleft \u2066"),
        ("\udc80 alone", r"\udc80 alone"),
        ("tab\tand\u00a0space 💡", "tab\tand\u00a0space 💡"),
    ],
)
def test_nothing_in_a_message_ends_its_line_or_moves_a_cursor(
    text: io.StringIO, said: str, shown: str | None
) -> None:
    logs.event(logger, logging.INFO, said, agent="a")
    logger.info("%s", said)
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (said,), None)
    assert logging.Formatter().format(record) == said  # the control: the library's own
    event, plain = text.getvalue().splitlines(keepends=True)
    assert event.endswith(" agent=a\n")
    shown = said.replace("\n", "\\n") if shown is None else shown
    assert event.endswith(f" INFO {shown} agent=a\n")
    assert plain.endswith(f" INFO {shown}\n")


def test_no_line_of_a_traceback_can_be_taken_for_a_record(text: io.StringIO) -> None:
    try:
        raise ValueError("x\n2026-01-31 12:00:00.000 INFO all is well\x1b[2J" + "y" * 100_000)
    except ValueError:
        logger.exception("internal error", extra={"fields": {"request": "r-1"}})
    first, *others = text.getvalue().splitlines()
    assert first.endswith(" ERROR internal error request=r-1")
    assert others
    assert all(line.startswith("  ") for line in others)
    assert "\x1b" not in text.getvalue()
    assert len(text.getvalue()) < 2 * harmless.MAX_TRACEBACK


def test_a_message_and_a_field_of_megabytes_keep_their_beginnings_and_ends(
    text: io.StringIO,
) -> None:
    large = "<" + "\n" * 7_000_000 + ">"
    logs.event(logger, logging.INFO, large, field=large, agent="a")
    (line,) = text.getvalue().splitlines()
    assert len(line) < 10 * harmless.MAX_TEXT
    assert line.count("characters cut") == 2
    assert " INFO <" in line
    assert '> field="<' in line
    assert line.endswith('>" agent=a')


# The same in JSON


def test_a_record_is_one_json_object(objects: io.StringIO) -> None:
    logs.event(
        logger, logging.INFO, "worker started", agent="echo", pid=71, ready=True, took=0.5, run=None
    )
    record = read(objects)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record.pop("timestamp"))
    assert list(record) == ["level", "logger", "event", "agent", "pid", "ready", "took"]
    assert record == {
        "level": "info",
        "logger": "gateway.test_logs",
        "event": "worker started",
        "agent": "echo",
        "pid": 71,
        "ready": True,
        "took": 0.5,
    }


def test_what_a_library_logs_is_an_object_as_well(objects: io.StringIO) -> None:
    logger.warning("%s has failed %d times", "it", 3)
    record = read(objects)
    assert (record["level"], record["event"]) == ("warning", "it has failed 3 times")


def test_a_traceback_is_a_field_of_its_record(objects: io.StringIO) -> None:
    try:
        raise ValueError("x\n2026-01-31 12:00:00.000 INFO all is well\x1b[2J" + "y" * 100_000)
    except ValueError:
        logger.exception("internal error", extra={"fields": {"request": "r-1"}})
    record = read(objects)
    assert (record["event"], record["request"]) == ("internal error", "r-1")
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert "all is well\x1b[2J" in record["exception"]
    assert "\x1b" not in objects.getvalue()
    assert len(objects.getvalue()) < 2 * harmless.MAX_TRACEBACK


def test_a_record_has_the_same_members_with_and_without_a_traceback() -> None:
    shown = []
    for failure in (None, (KeyError, KeyError("x"), None)):
        record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("said",), failure)
        record.__dict__["fields"] = {"agent": "a", "pid": 7, "left_out": None}
        shown.append(json.loads(json_formatter().format(record)))
    plain, failed = shown
    assert "KeyError" in failed.pop("exception")
    assert list(plain) == list(failed)
    assert all(each.pop("timestamp").endswith("Z") for each in shown)
    assert plain == failed


def test_a_stack_is_a_field_of_its_record(objects: io.StringIO) -> None:
    logger.warning("where is this?", stack_info=True)
    assert "test_a_stack_is_a_field" in read(objects)["stack"]


@given(
    said=st.text(st.characters(exclude_categories=())),
    value=st.one_of(
        st.text(st.characters(exclude_categories=())), st.integers(), st.floats(), st.booleans()
    ),
)
def test_no_text_forges_a_line_or_moves_a_cursor_in_json(said: str, value: object) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (said,), None)
    record.__dict__["fields"] = {"agent": value}
    line = json_formatter().format(record)
    line.encode()
    assert len(line.splitlines()) == 1
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in line)
    read_back = json.loads(line)
    assert set(read_back) == {"timestamp", "level", "logger", "event", "agent"}
    assert read_back["event"] == said.encode("utf-8", "backslashreplace").decode()


def test_a_text_of_megabytes_is_cut_in_json(objects: io.StringIO) -> None:
    large = "<" + "\n" * 7_000_000 + ">"
    logs.event(logger, logging.INFO, large, field=large, agent="a", other=[large])
    record = read(objects)
    assert len(objects.getvalue()) < 10 * harmless.MAX_TEXT
    for name in ("event", "field", "other"):
        assert "characters cut" in record[name]
    assert record["event"].startswith("<\n")
    assert record["event"].endswith("\n>")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_record_that_cannot_be_formatted_is_told_of_in_the_same_format(
    form: logs.LogFormat,
) -> None:
    reader, writer = os.pipe()
    handler = logs.QueueingHandler(writer, form)
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (Unprintable(),), None)
    handler.emit(record)
    assert handler.writer.flush(20)
    (line,) = os.read(reader, 10_000).decode().splitlines()
    os.close(reader)
    os.close(writer)
    expected = "a log record could not be formatted: RuntimeError('no words')"
    if form == "json":
        assert json.loads(line)["event"] == expected
    else:
        assert line.endswith(f" ERROR {expected}")


# Set up


SAYS = """
import logging, os, sys
from gateway.observe import logs
logs.setup("info", sys.argv[1])
log = logging.getLogger("gateway.x")
logs.event(log, logging.DEBUG, "not yet")
logs.event(log, logging.INFO, "first")
logs.change("debug", sys.argv[2])
logs.event(log, logging.DEBUG, "second")
logging.getLogger("a.library").warning("third")
import warnings
warnings.warn("fourth")
"""


def says(*arguments: str) -> list[str]:
    """The lines on a stderr that is no terminal."""
    command = [sys.executable, "-c", SAYS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_level_and_format_change_while_the_log_is_written() -> None:
    first, second, third, *warning = says("json", "text")
    assert json.loads(first)["event"] == "first"
    assert second.endswith(" DEBUG second")
    assert third.endswith(" WARNING third")
    assert "fourth" in warning[0]


def test_everything_is_json_where_stderr_is_no_terminal() -> None:
    events = [json.loads(line)["event"] for line in says("auto", "auto")]
    assert events[:3] == ["first", "second", "third"]
    assert "fourth" in events[3]
    assert len(events) == 4


def test_everything_is_text_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SAYS, "auto", "auto"], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO first\r\n", said)


def test_structlog_is_not_imported_where_text_is_written() -> None:
    program = (
        "import sys; from gateway.observe import logs; logs.setup('info', 'text');"
        "print('structlog' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_was_dropped_is_told_of_in_the_same_format(form: logs.LogFormat) -> None:
    writer = os.open("/dev/null", os.O_WRONLY)
    line = logs.QueueingHandler(writer, form).notice(3).decode()
    expected = "log records were dropped, because stderr did not take them"
    if form == "json":
        record = json.loads(line)
        assert (record["event"], record["count"], record["level"]) == (expected, 3, "warning")
    else:
        assert line.endswith(f" WARNING {expected} count=3\n")
    os.close(writer)
