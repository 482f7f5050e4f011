"""Log records with fields: `2026-01-31 12:00:00.000 INFO worker started agent=echo pid=71`.

A record about a request carries the request's id as `request`; a record about a worker carries its
agent and pid. Records go to stderr, in one of two formats (`observe.formats`): stdout is for the
one line that says where the gateway listens. They are those of `logging`, so that what libraries
log goes the same way.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from gateway.observe.formats import TextFormatter, json_formatter
from gateway.observe.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.observe.access_line import AccessLine

FLUSH_SECONDS = 1.0
"""How long the process waits at its end for queued records to be written: a reader that still reads
takes them within milliseconds."""

_ROOT = logging.getLogger()
_GATEWAY = logging.getLogger("gateway")

LogFormat: TypeAlias = Literal["auto", "json", "text"]
"""`auto`: text on a terminal, JSON anywhere else."""


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log `message` with fields. A field that is None is left out."""
    if logger.isEnabledFor(level):
        # As `Logger.log` does, without looking for the line of code that calls: nobody is told.
        logger.handle(_record(logger.name, level, message, fields))


def _record(name: str, level: int, message: str, fields: dict[str, object]) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "", 0, message, None, None)
    record.__dict__["fields"] = fields
    return record


class LineKeeper(logging.Handler):
    """A handler that also takes lines of the access log of which no record is made."""

    def keep_lines(self, lines: Sequence[AccessLine]) -> None:
        """Keep such lines."""
        raise NotImplementedError


keepers: list[LineKeeper] = []
"""Those that `kept_by` has added to the root logger."""


class QueueingHandler(logging.Handler):
    """Formats records and leaves writing them to the thread of a `LogWriter`."""

    def __init__(self, descriptor: int, form: LogFormat) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.use(form)
        self.writer = LogWriter(descriptor, self.notice)

    def use(self, form: LogFormat) -> None:
        """Write records in this format from now on."""
        as_text = os.isatty(self._descriptor) if form == "auto" else form == "text"
        self.as_json = not as_text
        self.setFormatter(TextFormatter() if as_text else json_formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.write(self._line(record), urgent=record.levelno >= logging.WARNING)

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a boundary: a defect of one record is no other's
            message = f"a log record could not be formatted: {error!r}"
            line = self.format(_record("gateway", logging.ERROR, message, {}))
        return f"{line}\n".encode("utf-8", "backslashreplace")

    def notice(self, count: int) -> bytes:
        """The line that says how many records were dropped."""
        message = "log records were dropped, because stderr did not take them"
        return self._line(_record("gateway", logging.WARNING, message, {"count": count}))

    def flush(self) -> None:
        """Also called by `logging.shutdown` at the end of the process."""
        self.writer.flush(FLUSH_SECONDS)


def setup(level: str, form: LogFormat = "auto", *, descriptor: int = 2) -> None:
    """Send the gateway's own records from `level` on, and the libraries' warnings, to stderr.

    From then on no caller that logs ever waits for stderr, whether anybody reads it or not.
    """
    root = logging.getLogger()
    root.handlers[:] = [QueueingHandler(descriptor, form)]
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # Collected for each record otherwise, and written in no format.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Python would write these to stderr itself, on the thread that it happens on.
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_exception


def json_writer(logger: logging.Logger) -> LogWriter | None:
    """What writes the records of one of the gateway's loggers, if they are written as JSON and no
    other handler gets them but the `keepers`: then it, and each of these, may be handed a line for
    which no record was made. None: there must be a record."""
    handlers = _ROOT.handlers
    if len(handlers) != 1 + len(keepers) or logger.handlers or _GATEWAY.handlers:
        return None
    handler = handlers[0]
    if type(handler) is not QueueingHandler or not handler.as_json:
        return None
    return handler.writer


@contextmanager
def kept_by(keeper: LineKeeper) -> Iterator[None]:
    """Have all that is logged meanwhile kept by this handler as well."""
    _ROOT.addHandler(keeper)
    keepers.append(keeper)
    try:
        yield
    finally:
        keepers.remove(keeper)
        _ROOT.removeHandler(keeper)


def change(level: str, form: LogFormat) -> None:
    """Log from this level on, and in this format, from now on."""
    logging.getLogger("gateway").setLevel(level.upper())
    for handler in _handlers():
        handler.use(form)


def flush() -> bool:
    """Wait until all records are written, at most `FLUSH_SECONDS`; returns whether they are."""
    return all(handler.writer.flush(FLUSH_SECONDS) for handler in _handlers())


def dropped() -> int:
    """How many lines were ever lost, because stderr did not take them."""
    return sum(handler.writer.dropped_in_all for handler in _handlers())


def _handlers() -> list[QueueingHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, QueueingHandler)]


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    logging.getLogger("gateway").error(
        "%s %r", unraisable.err_msg or "exception ignored in", unraisable.object, exc_info=error
    )


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("gateway").error("a thread has failed", exc_info=args.exc_value)
