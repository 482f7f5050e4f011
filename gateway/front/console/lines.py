"""The last lines of the log, for whoever follows it in the console.

A handler of `logging` beside the one that writes: what a record says is kept as plain values, so
that nothing of a traceback's frames or of a request lives on in it. Records come from any thread.
"""

from __future__ import annotations

import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway.observe.harmless import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

AGENTS_WORDS = "gateway.agent"
"""The logger of what agents write, which may repeat what any caller has said."""

MOST_LINES = 5000
MOST_BYTES = 4 * 1024 * 1024
"""Of the lines together, estimated. An agent that writes as fast as it may fills them in seconds,
and its own lines are the ones that are lost first: there are so many of them."""

MOST_TEXT = 2000
"""Characters of a message or a field."""

_LINE_COST = 600
"""Bytes of a line beside its text."""

_PLAIN = frozenset({bool, float, int})


class Kept(Struct, frozen=True, kw_only=True):
    """One line."""

    n: int
    at: float
    level_number: int
    logger: str
    message: str
    agent: str | None
    request: str | None
    """As it was logged: the ids of several requests may stand in it, with commas."""
    key: str | None
    """The name of the key that these requests were made with."""
    pid: int | None
    fields: dict[str, Any]
    cost: int

    @property
    def stderr(self) -> bool:
        """Whether a worker has written it."""
        return self.logger == AGENTS_WORDS and self.pid is not None

    def is_about(self, request_id: str) -> bool:
        return self.request is not None and request_id in self.request.split(",")

    def show(self, *, keys: bool) -> dict[str, Any]:
        """As JSON. Where there are keys, without an end's last lines of stderr, which need not be
        this request's."""
        fields = {
            name: printable(value) if type(value) is str else value
            for name, value in self.fields.items()
            if not (keys and name == "stderr")
        }
        return {
            "n": self.n,
            "at": self.at,
            "level": logging.getLevelName(self.level_number).lower(),
            "logger": self.logger,
            "message": printable(self.message),
            "agent": self.agent,
            "request": None if self.request is None else printable(self.request),
            "pid": self.pid,
            "stderr": self.stderr,
            "fields": fields,
        }


class LineFilter(Struct, frozen=True):
    """What a reader wants to see."""

    agent: str | None = None
    request: str | None = None
    level: int = logging.INFO

    def takes(self, line: Kept) -> bool:
        return (
            line.level_number >= self.level
            and (self.agent is None or line.agent == self.agent)
            and (self.request is None or line.is_about(self.request))
        )


class LastLines(logging.Handler):
    """The handler. Add it to the root logger, and `close` it."""

    def __init__(self, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self._lines: deque[Kept] = deque()
        self._bytes = 0
        self.next = 0
        """The number of the next line."""

    def __repr__(self) -> str:
        return f"<LastLines {len(self._lines)} lines, {self._bytes} bytes>"

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        line = _keep(record, self.next)
        self.next += 1
        self._lines.append(line)
        self._bytes += line.cost
        while len(self._lines) > self._most_lines or self._bytes > self._most_bytes:
            self._bytes -= self._lines.popleft().cost

    def after(self, n: int, may_read: Callable[[Kept], bool], most: int) -> tuple[list[Kept], int]:
        """The last lines from the number `n` on that may be read, at most `most`, the oldest first;
        and how many lines were passed over that may have been some."""
        assert self.lock is not None
        with self.lock:
            lines = list(islice(self._lines, max(0, len(self._lines) - (self.next - n)), None))
        lost = (lines[0].n if lines else self.next) - n
        found = [line for line in lines if may_read(line)]
        left_out = max(0, len(found) - most)
        return found[left_out:], left_out + max(0, lost)

    def find(self, wanted: Callable[[Kept], bool], most: int) -> list[Kept]:
        """The last lines that are wanted, the oldest first."""
        return self.after(0, wanted, most)[0]


def _keep(record: logging.LogRecord, n: int) -> Kept:
    fields = {name: value for name, value in _fields(record) if value is not None}
    message = shortened(record.getMessage(), MOST_TEXT)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["exception"] = shortened(f"{type(error).__name__}: {error}", MOST_TEXT)
    cost = _LINE_COST + _size(message) + sum(_size(v) for v in fields.values() if type(v) is str)
    pid = fields.pop("pid", None)
    return Kept(
        n=n,
        at=record.created,
        level_number=record.levelno,
        logger=record.name,
        message=message,
        agent=_text(fields.pop("agent", None)),
        request=_text(fields.pop("request", None)),
        key=_text(fields.get("key")),
        pid=pid if type(pid) is int else None,
        fields=fields,
        cost=cost,
    )


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    for name, value in fields.items():
        plain = value is None or type(value) in _PLAIN
        yield name, value if plain else shortened(str(value), MOST_TEXT)


def _size(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
