"""A worker's stderr: always drained, so that a full pipe never blocks a worker, and logged within
bounds.

Agents are not trusted to write little: long lines are cut, the rate of lines is limited by a token
bucket, and lines left out are counted. The last lines are kept for the log entry of a crash.

A line that begins with `@` and the id of a request, as only the worker knows it, is logged as that
request's alone: the agent says whose it is, and no caller whose words it repeats can.

# Theory of operation

A line ends with a line feed or with a carriage return. The latter makes it an *update*, which a
terminal shows until the next one overwrites it. Programs draw progress bars with updates, hundreds
a second that differ in a number, and write what matters between two of them. So an update is logged
if it is unlike the one before; of updates that are alike, the first is logged at once, one more
every `UPDATE_SECONDS`, and the last one when something else follows. Updates are alike if they have
the same letters in the same order: numbers, bars and spinners do not count.

Of a flood, only the lines that may be logged and the last ones are decoded. The others are counted,
which costs a fraction of decoding them.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from gateway.observe import logs
from gateway.observe.harmless import printable
from gateway.readiness import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.exchange import Exchange

log = logging.getLogger("gateway.agent")

MAX_LINE_BYTES = 4096
"""Length of one line in the log. A traceback's lines are far shorter; of a dump of data, the
beginning and the end are kept."""

LINES_PER_SECOND = 100
"""Sustained log rate per worker: enough to follow an agent, too little to fill a disk quickly."""

BURST_LINES = 1000
"""Capacity of the token bucket: lines that may be logged at once, such as a few long tracebacks."""

TAIL_LINES = 20
"""Lines kept for the log entry of a crash: the end of a traceback, which has the reason."""

UPDATE_SECONDS = 10.0
"""Time between two logged updates that are alike: enough to see that a long task goes on."""

UPDATE_COST = 0.1
"""Tokens that an update takes if it is not logged; a logged line takes 1. Comparing costs less than
logging, but not nothing."""

_READ_BYTES = 64 * 1024

_MAX_READS_OF_REST = 4
"""One read empties a pipe of 64 KiB; a few more take what a writer blocked on a full pipe adds."""

MOST_NAMED = 8
"""Requests that a line about their worker names."""

_HALF = MAX_LINE_BYTES // 2 - 32
"""Bytes kept at each end of a line that is cut; between them stands how much was cut."""

_MARK = re.compile(rb"@([1-9][0-9]{0,15})(?: |\Z)")
"""The id of a request on the wire, at the beginning of a line."""

_NOT_LETTERS = re.compile(rb"[^A-Za-z]+")


class Named(NamedTuple):
    """A request as the log names it."""

    request: str
    key: str | None
    """The name of the key that it was made with, if there is one."""

    @classmethod
    def of(cls, exchange: Exchange) -> Named:
        return cls(exchange.call.request_id, exchange.call.owner or None)


class Requests(Protocol):
    """Knows the requests of a worker by name."""

    def name_of(self, wire_id: int) -> Named | None:
        """The request of an id on the wire, if it is one."""

    def just_answered(self) -> Named | None:
        """The request that was answered a moment ago, if one was."""


def fields_of(agent: str, pid: int | None, exchanges: Sequence[Exchange]) -> dict[str, object]:
    """What a line about a worker with these requests says of it. Its key is the one that all of
    them were made with."""
    keys = {exchange.call.owner for exchange in exchanges}
    return {
        "agent": agent,
        "pid": pid,
        "request": ",".join(each.call.request_id for each in exchanges[:MOST_NAMED]) or None,
        "key": (keys.pop() or None) if len(keys) == 1 else None,
    }


class StderrRelay:
    """Reads one stderr and logs its lines with the fields that `describe` returns.

    `descriptor` must not block. A line is a request's alone if the worker says so, and all theirs
    that `describe` names otherwise; if that names none, it is the last one's that was answered, a
    moment ago.
    """

    def __init__(
        self,
        descriptor: int,
        describe: Callable[[], dict[str, object]],
        requests: Requests | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._describe = describe
        self._requests = requests
        self._partial = _Partial()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._letters: bytes | None = None
        """The letters of the last update; updates with the same letters are alike."""
        self._updated_at = -math.inf
        """When an update like the last one was logged."""
        self._pending = b""
        """The last update, if it was not logged."""
        self._allowance = float(BURST_LINES)
        self._filled_at = trio.current_time()
        self._left_out = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, logged or not, oldest first, as text that is safe to log."""
        pending = [_printable(self._pending)] if self._pending else []
        return (*self._tail, *pending)[-TAIL_LINES:]

    async def run(self) -> None:
        """Read and log until the end of stderr."""
        while True:
            await readable(self._descriptor)
            data = self._read()
            if data == b"":
                break
            if data:
                self._take_in(data)
        self._finish()

    def read_rest(self) -> None:
        """Read and log what is in the pipe now, without waiting for its end."""
        # Bounded, because a process that the worker left behind may write faster than this reads.
        for _ in range(_MAX_READS_OF_REST):
            data = self._read()
            if not data:
                break
            self._take_in(data)
        self._finish()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return None

    def _take_in(self, data: bytes) -> None:
        if b"\r" in data:  # normalize: from here on, an update ends with both
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\r\n")
        lines, newline, partial = data.rpartition(b"\n")
        if newline:
            first, *others = lines.split(b"\n", 1)
            self._partial.add(first)
            self._take_in_lines(b"\n".join([self._partial.take(), *others]))
        self._partial.add(partial)

    def _take_in_lines(self, text: bytes) -> None:
        """Decode the lines that may be logged and the tail; only count the rest of a flood."""
        self._earn()
        may = int(self._allowance)
        unseen = text.count(b"\n") + 1 - may - TAIL_LINES
        if unseen > 0:
            *lines, text = text.split(b"\n", may)
            for line in lines:
                self._line(line)
            self._left_out += unseen
            text = b"\n".join(text.rsplit(b"\n", TAIL_LINES)[1:])
        for line in text.split(b"\n"):
            self._line(line)

    def _finish(self) -> None:
        self._line(self._partial.take())
        self._log_pending()
        self._report_left_out()

    def _line(self, line: bytes) -> None:
        text = _shortened(line.rstrip())
        if line.endswith(b"\r"):
            self._update(text)
        else:
            if self._pending and _letters(text) != self._letters:
                self._log_pending()
            self._pending = b""
            self._log(text)

    def _update(self, text: bytes) -> None:
        letters = _letters(text)
        now = trio.current_time()
        if letters == self._letters and now < self._updated_at + UPDATE_SECONDS:
            self._pending = text
            self._allowance = max(0.0, self._allowance - UPDATE_COST)
            return
        if letters != self._letters:
            self._log_pending()
        self._pending = b""
        self._letters, self._updated_at = letters, now
        self._log(text)

    def _log_pending(self) -> None:
        pending, self._pending = self._pending, b""
        self._log(pending)

    def _log(self, line: bytes) -> None:
        mark = _MARK.match(line)
        request = None
        if mark is not None and self._requests is not None:
            request = self._requests.name_of(int(mark[1]))
            line = line if request is None else line[mark.end() :]
        if not line:
            return
        text = _printable(line)
        self._tail.append(text)
        if not self._may_log():
            self._left_out += 1
            return
        self._report_left_out()
        fields = self._describe()
        if request is None and fields.get("request") is None and self._requests is not None:
            request = self._requests.just_answered()
        if request is not None:
            fields = {**fields, **request._asdict()}
        logs.event(log, logging.INFO, text, **fields)

    def _earn(self) -> None:
        now = trio.current_time()
        earned = (now - self._filled_at) * LINES_PER_SECOND
        self._allowance = min(self._allowance + earned, BURST_LINES)
        self._filled_at = now

    def _may_log(self) -> bool:
        self._earn()
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _report_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            logs.event(log, logging.WARNING, f"{count} lines were left out", **self._describe())


class _Partial:
    """A line whose end has not come: all of it, or its beginning and its end if it is long."""

    def __init__(self) -> None:
        self._data = b""
        self._cut = 0

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        self._data += data
        too_many = len(self._data) - MAX_LINE_BYTES
        if too_many > 0:
            self._data = self._data[: -too_many - _HALF] + self._data[-_HALF:]
            self._cut += too_many

    def take(self) -> bytes:
        """Remove the line and return it, at most `MAX_LINE_BYTES` long."""
        data, cut = self._data, self._cut
        self._data, self._cut = b"", 0
        return _joined(data[:_HALF], cut + len(data) - 2 * _HALF, data[-_HALF:]) if cut else data


def _shortened(line: bytes) -> bytes:
    if len(line) <= MAX_LINE_BYTES:
        return line
    return _joined(line[:_HALF], len(line) - 2 * _HALF, line[-_HALF:])


def _joined(head: bytes, cut: int, tail: bytes) -> bytes:
    return b"".join((head, f" … ({cut} bytes cut) … ".encode(), tail))


def _letters(line: bytes) -> bytes:
    return _NOT_LETTERS.sub(b"", line)


def _printable(line: bytes) -> str:
    return printable(line.decode("utf-8", "backslashreplace"))
