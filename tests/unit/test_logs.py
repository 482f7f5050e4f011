"""Records with fields: readable, one line each, and not to be forged by what is in a field."""

from __future__ import annotations

import io
import logging

import pytest

from gateway.observe import logs

logger = logging.getLogger("gateway.test_logs")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is logged from here on, as it would stand on stderr."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.FieldFormatter())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    return stream


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
    assert second == "Traceback (most recent call last):"


def test_what_is_below_the_level_is_not_written(text: io.StringIO) -> None:
    logs.event(logger, logging.DEBUG, "detail")
    assert text.getvalue() == ""
