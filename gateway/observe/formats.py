"""How a record is written: as text for people, or as one JSON object for programs.

    2026-01-31 12:00:00.000 INFO worker started agent=echo pid=71
    {"timestamp":"2026-01-31T11:00:00.000000Z","level":"info","logger":"gateway.worker",
     "event":"worker started","agent":"echo","pid":71}                         (on one line)

Much of the logged text comes from workers, agents and clients. A formatter is the one place that
makes it harmless (`observe.harmless`), in messages, fields and tracebacks alike. In text, a message
may still look like fields; the record's own fields come last, and what has the form of a field
before them is the message's. In JSON there is no such doubt.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.observe.harmless import MAX_TEXT, MAX_TRACEBACK, escaped, printable, quoted, shortened

if TYPE_CHECKING:
    from structlog.typing import EventDict

_NUMBERS = frozenset({bool, float, int})


class TextFormatter(logging.Formatter):
    """Appends a record's fields as `key=value`; a value that is not one plain word is quoted.

    A traceback follows on lines of its own, which are indented: only a record starts in column 1.
    """

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields: dict[str, Any] = getattr(record, "fields", {})
        shown = "".join(
            f" {key}={quoted(shortened(str(value)))}"
            for key, value in fields.items()
            if value is not None
        )
        record.message = printable(shortened(record.message))
        return super().formatMessage(record) + shown

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    # Not `splitlines`: a line ends where a reader of the log has it end.
    lines = shortened(text, MAX_TRACEBACK).split("\n")
    return "\n".join(f"  {printable(line)}" for line in lines)


def json_formatter() -> logging.Formatter:
    """A formatter that writes each record, ours and any library's, as one JSON object.

    Its members have structlog's names: `timestamp` (RFC 3339, UTC), `level`, `logger`, `event` (the
    message), then the record's fields, and `exception` for a traceback.
    """
    # Not imported where text is written.
    from structlog.processors import (  # noqa: PLC0415
        JSONRenderer,
        StackInfoRenderer,
        TimeStamper,
        format_exc_info,
    )
    from structlog.stdlib import (  # noqa: PLC0415
        ProcessorFormatter,
        add_log_level,
        add_logger_name,
    )

    class JSONFormatter(ProcessorFormatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.exc_info or record.stack_info or type(record.msg) is not str:
                return super().format(record)
            # As the processors below do, at a third of their cost: there is a record per request.
            event: EventDict = {
                "timestamp": datetime.fromtimestamp(record.created, UTC),
                "level": record.levelname.lower(),
                "logger": record.name,
            }
            return _encode(_add_fields(event, record.getMessage(), record))

    return JSONFormatter(
        foreign_pre_chain=[TimeStamper(fmt="iso", utc=True), add_log_level, add_logger_name],
        processors=[
            _take_fields,
            StackInfoRenderer(),
            format_exc_info,
            _shorten_traceback,
            JSONRenderer(serializer=_encode),
        ],
    )


def _take_fields(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The record's fields in place of the record, after what every record has."""
    message, record = event.pop("event"), event.pop("_record")
    del event["_from_structlog"]
    return _add_fields(event, message, record)


def _add_fields(event: EventDict, message: str, record: logging.LogRecord) -> EventDict:
    event["event"] = shortened(message)
    for key, value in getattr(record, "fields", {}).items():
        if type(value) is str:
            event[key] = value if len(value) <= MAX_TEXT else shortened(value)
        elif value is not None:
            event[key] = value if type(value) in _NUMBERS else shortened(str(value))
    return event


def _shorten_traceback(_logger: object, _method: str, event: EventDict) -> EventDict:
    for key in ("exception", "stack"):
        if key in event:
            event[key] = shortened(event[key], MAX_TRACEBACK)
    return event


def _encode(event: EventDict, **_options: object) -> str:
    try:
        data = msgspec.json.encode(event)
    except UnicodeEncodeError:  # a lone surrogate, which no JSON text may hold (RFC 8259, 8.2)
        data = msgspec.json.encode(
            {key: _without_surrogates(value) for key, value in event.items()}
        )
    return escaped(data.decode())


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
