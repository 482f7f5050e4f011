"""The last lines of the log, for whoever follows it in the console.

A handler of `logging` beside the one that writes. It keeps records as they are, and makes lines of
them for whoever looks; but nothing of a traceback's frames or of a request lives on in them. Of the
access log, which has a line for each request, it keeps the Structs from which that is written.
Records come from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from msgspec import Struct

from gateway.front.console.rings import Rings
from gateway.observe.access_line import AccessLine
from gateway.observe.harmless import printable, shortened
from gateway.observe.logs import LineKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

AGENTS_WORDS = "gateway.agent"
"""The logger of what agents write, which may repeat what any caller has said."""

LINES_OF_A_STEP = 500
"""That are looked at before others have their turn."""

MOST_LINES = 1000
"""About one agent and one key: ten seconds of a worker that writes as much as may be logged."""

MOST_CHARACTERS = 2 * 1024 * 1024
"""Of these lines together, with `_COST` for each."""

MOST_CHARACTERS_IN_ALL = 8 * 1024 * 1024

_COST = 1500
"""Of a line beside its text: what a record takes."""

_ACCESS_COST = 700
"""Of a line of the access log beside its ids. Its other texts are not its own."""

MOST_TEXT = 2000
"""Characters of a message or a field."""

_NONE: Mapping[str, Any] = MappingProxyType({})

_OWN_MEMBERS = frozenset({"agent", "pid", "request"})
"""Fields that are members of a line themselves."""

_PLAIN = frozenset({bool, float, int})


class Line:
    """One line, as far as it is looked at."""

    __slots__ = ("_fields", "n", "record")

    def __init__(self, n: int, record: logging.LogRecord) -> None:
        self.n = n
        self.record = record
        self._fields: Mapping[str, Any] = getattr(record, "fields", _NONE)

    @property
    def level(self) -> int:
        return self.record.levelno

    @property
    def logger(self) -> str:
        return self.record.name

    @property
    def agent(self) -> str | None:
        return _text(self._fields.get("agent"))

    @property
    def request(self) -> str | None:
        """As it was logged: the ids of several requests may stand in it, with commas."""
        return _text(self._fields.get("request"))

    @property
    def key(self) -> str | None:
        """The name of the key that these requests were made with."""
        return _text(self._fields.get("key"))

    @property
    def at(self) -> float:
        """In Unix seconds."""
        return self.record.created

    @property
    def pid(self) -> int | None:
        pid = self._fields.get("pid")
        return pid if type(pid) is int else None

    @property
    def stderr(self) -> bool:
        """Whether a worker has written it."""
        return self.logger == AGENTS_WORDS and self.pid is not None

    def is_about(self, request_id: str) -> bool:
        request = self.request
        return request is not None and request_id in request.split(",")

    def show(self, *, keys: bool) -> dict[str, Any]:
        """As JSON. Where there are keys, without an end's last lines of stderr, which need not be
        this request's."""
        left_out = _OWN_MEMBERS | ({"stderr"} if keys else set())
        return {
            "n": self.n,
            "at": self.at,
            "level": self.record.levelname.lower(),
            "logger": self.logger,
            "message": _harmless(self.record.getMessage()),
            "agent": self.agent,
            "request": None if self.request is None else _harmless(self.request),
            "pid": self.pid,
            "stderr": self.stderr,
            "fields": {
                name: value if type(value) in _PLAIN else _harmless(str(value))
                for name, value in self._fields.items()
                if value is not None and name not in left_out
            },
        }


class EndLine(Line):
    """A line of the access log, of which there is a record only once it is shown."""

    __slots__ = ("_line",)

    def __init__(self, n: int, line: AccessLine) -> None:
        self.n = n
        self._line = line

    @property
    def level(self) -> int:
        return logging.DEBUG if self._line.level == "debug" else logging.INFO

    @property
    def logger(self) -> str:
        return self._line.logger

    @property
    def agent(self) -> str | None:
        return self._line.agent or None

    @property
    def request(self) -> str | None:
        return self._line.request or None

    @property
    def key(self) -> str | None:
        return self._line.key or None

    @property
    def at(self) -> float:
        return self._line.timestamp.timestamp()

    @property
    def pid(self) -> int | None:
        return self._line.pid

    def show(self, *, keys: bool) -> dict[str, Any]:
        return Line(self.n, self._line.as_record()).show(keys=keys)


class LineFilter(Struct, frozen=True):
    """What a reader wants to see."""

    agent: str | None = None
    request: str | None = None
    level: int = logging.INFO

    def takes(self, line: Line) -> bool:
        return (
            line.level >= self.level
            and (self.agent is None or line.agent == self.agent)
            and (self.request is None or line.is_about(self.request))
        )


class _Concern(NamedTuple):
    """Whom a line concerns: those of each are kept by themselves, so that no agent and no caller
    can push out what others have to see."""

    agent: str
    key: str
    """Empty where there are no keys, or where it is about requests with several of them."""
    request: bool
    """Whether it is about a request, and not about the agent or the gateway."""


class Found(NamedTuple):
    """What was found of the lines."""

    lines: list[Line]
    """The oldest first."""
    passed_over: int
    """How many were not: wanted ones beyond the most, and any that are not kept any more."""
    next: int
    """The number of the next line, which was not there when they were looked at."""


class LastLines(LineKeeper):
    """The handler, for the root logger."""

    def __init__(self, most_lines: int = MOST_LINES, most_text: int = MOST_CHARACTERS) -> None:
        super().__init__()
        self._kept: Rings[_Concern, logging.LogRecord | AccessLine] = Rings(
            most=most_lines, most_cost=most_text, most_cost_in_all=MOST_CHARACTERS_IN_ALL
        )
        self._changing = threading.Lock()

    def __repr__(self) -> str:
        return f"<LastLines {self._kept!r}>"

    @property
    def next(self) -> int:
        """The number of the next line."""
        return self._kept.next

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record. There is no filter to ask here, and no stream to lock."""
        if record.args or record.exc_info:
            record = _without_objects(record)
        fields = record.__dict__.get("fields", _NONE)
        key, request = fields.get("key") or "", fields.get("request") is not None
        concern = _Concern(fields.get("agent") or "", key, request)
        cost = _COST + _size(record)
        with self._changing:
            self._kept.add(concern, record, cost)
        return True

    def keep_lines(self, lines: Sequence[AccessLine]) -> None:
        with self._changing:
            for line in lines:
                cost = _ACCESS_COST + len(line.request) + len(line.run)
                self._kept.add(_Concern(line.agent, line.key, request=True), line, cost)

    def keep(self, keys: Collection[str] | None, agents: Collection[str]) -> None:
        """Forget the lines about any other agents, and about requests with any other keys, which
        were revoked. Without `keys` there are none any more: then everybody sees everything."""
        with self._changing:
            self._kept.keep(
                lambda of: (
                    (not of.agent or of.agent in agents)
                    and (not of.key or keys is None or of.key in keys)
                )
            )

    def after(
        self, n: int, wanted: Callable[[Line], bool], most: int
    ) -> Generator[None, None, Found]:
        """The last lines from the number `n` on that are wanted, at most `most`, as they are at
        the first step. Looked for in steps, each of a millisecond at most."""
        with self._changing:
            kept, end = self._kept.since(n, _any), self._kept.next
        found: deque[Line] = deque(maxlen=most)
        count = 0
        for place, (at, said) in enumerate(kept, 1):
            if wanted(line := _line(at, said)):
                found.append(line)
                count += 1
            if place % LINES_OF_A_STEP == 0:
                yield
        lost = end - n - len(kept)
        return Found(list(found), count - len(found) + lost, end)

    async def find(self, wanted: Callable[[Line], bool], most: int) -> list[Line]:
        """The last lines that are wanted, the oldest first."""
        steps = self.after(0, wanted, most)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Found = end.value
                return found.lines
            await trio.lowlevel.checkpoint()


def _line(n: int, said: logging.LogRecord | AccessLine) -> Line:
    return EndLine(n, said) if isinstance(said, AccessLine) else Line(n, said)


def _without_objects(record: logging.LogRecord) -> logging.LogRecord:
    """The same line, without what its arguments and the frames of a traceback refer to."""
    line = logging.LogRecord(
        record.name, record.levelno, "", 0, record.getMessage()[:MOST_CHARACTERS], None, None
    )
    line.created = record.created
    fields = dict(getattr(record, "fields", _NONE))
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["exception"] = shortened(f"{type(error).__name__}: {error}", MOST_TEXT)
    line.__dict__["fields"] = fields
    return line


def _size(record: logging.LogRecord) -> int:
    """In characters."""
    size = len(record.msg)
    for value in record.__dict__.get("fields", _NONE).values():
        if type(value) is str:
            size += len(value)
    return size


def _any(concern: _Concern) -> bool:
    del concern
    return True


def _harmless(text: str) -> str:
    return printable(shortened(text, MOST_TEXT))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
