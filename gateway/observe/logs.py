"""Log records with fields: `2026-01-31 12:00:00.000 INFO worker started agent=echo pid=71`.

A record about a request carries the request's id as `request`; a record about a worker carries its
agent and pid. Records go to stderr: stdout is for the one line that says where the gateway listens.

Much of the logged text comes from workers, agents and clients. `FieldFormatter` is the one place
that makes them harmless, in messages, fields and tracebacks alike: nothing in them ends the line,
moves a terminal's cursor or changes the direction of text, and each has a length that it cannot
exceed. A message may still look like fields; the record's own fields come last, and what has the
form of a field before them is the message's.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import unicodedata
from typing import Any

from gateway.observe.log_writer import LogWriter

MAX_TEXT = 8192
"""Longest message or field, in characters: the last lines of a worker's stderr fit."""

MAX_TRACEBACK = 32 * 1024
"""Longest traceback, in characters: a hundred frames fit."""

FLUSH_SECONDS = 1.0
"""How long the process waits at its end for queued records to be written: a reader that still reads
takes them within milliseconds."""

_PLAIN = re.compile(r"[\w./:@+-]+\Z")

_BREAKS = {"Zl", "Zp"}
"""Unicode categories of line separators. All other characters that must not be written are in the
categories C*: control characters, bidirectional formatting, lone surrogates."""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """The text, or its beginning and end if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters cut) … {text[-half:]}"


def printable(text: str) -> str:
    """The text with every character escaped that does more than print; the tab stays."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if _acts(char) and char != "\t" else char
        for char in text
    )


def _acts(char: str) -> bool:
    """Whether a character does more than print."""
    if char.isprintable():
        return False
    category = unicodedata.category(char)
    return category[0] == "C" or category in _BREAKS


class FieldFormatter(logging.Formatter):
    """Appends a record's fields as `key=value`; a value that is not one plain word is quoted.

    A traceback follows on lines of its own, which are indented: only a record starts in column 1.
    """

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields: dict[str, Any] = getattr(record, "fields", {})
        shown = "".join(
            f" {key}={_quoted(value)}" for key, value in fields.items() if value is not None
        )
        record.message = printable(shortened(record.message))
        return super().formatMessage(record) + shown

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatStack(stack_info))


def _quoted(value: object) -> str:
    text = shortened(str(value))
    if _PLAIN.match(text):
        return text
    return "".join(
        json.dumps(char)[1:-1] if _acts(char) else char
        for char in json.dumps(text, ensure_ascii=False)
    )


def _indented(text: str) -> str:
    # Not `splitlines`: a line ends where a reader of the log has it end.
    lines = shortened(text, MAX_TRACEBACK).split("\n")
    return "\n".join(f"  {printable(line)}" for line in lines)


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log `message` with fields. A field that is None is left out."""
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={"fields": fields})


class _QueueingHandler(logging.Handler):
    """Formats records and leaves writing them to the thread of a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer
        self.setFormatter(FieldFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a boundary: a defect of one record is no other's
            line = f"a log record could not be formatted: {printable(shortened(repr(error)))}"
        self.writer.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Also called by `logging.shutdown` at the end of the process."""
        self.writer.flush(FLUSH_SECONDS)


def setup(level: str, *, descriptor: int = 2) -> None:
    """Send the gateway's own records from `level` on, and the libraries' warnings, to stderr.

    From then on no caller that logs ever waits for stderr, whether anybody reads it or not.
    """
    root = logging.getLogger()
    root.handlers[:] = [_QueueingHandler(LogWriter(descriptor))]
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # Python would write these to stderr itself, on the thread that it happens on.
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_exception


def flush() -> bool:
    """Wait until all records are written, at most `FLUSH_SECONDS`; returns whether they are."""
    return all(writer.flush(FLUSH_SECONDS) for writer in _writers())


def dropped() -> int:
    """How many lines were ever lost, because stderr did not take them."""
    return sum(writer.dropped_in_all for writer in _writers())


def _writers() -> list[LogWriter]:
    handlers = logging.getLogger().handlers
    return [each.writer for each in handlers if isinstance(each, _QueueingHandler)]


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    logging.getLogger("gateway").error(
        "%s %r", unraisable.err_msg or "exception ignored in", unraisable.object, exc_info=error
    )


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("gateway").error("a thread has failed", exc_info=args.exc_value)
