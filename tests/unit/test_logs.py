"""Records with fields: readable, one line each, and not to be forged by what is in a field."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from gateway.observe import logs

logger = logging.getLogger("gateway.test_logs")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged from here on, as it would stand on stderr."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.FieldFormatter())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    yield stream
    logger.setLevel(logging.NOTSET)


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
    assert len(text.getvalue()) < 2 * logs.MAX_TRACEBACK


def test_a_message_and_a_field_of_megabytes_keep_their_beginnings_and_ends(
    text: io.StringIO,
) -> None:
    large = "<" + "\n" * 7_000_000 + ">"
    logs.event(logger, logging.INFO, large, field=large, agent="a")
    (line,) = text.getvalue().splitlines()
    assert len(line) < 10 * logs.MAX_TEXT
    assert line.count("characters cut") == 2
    assert " INFO <" in line
    assert '> field="<' in line
    assert line.endswith('>" agent=a')
