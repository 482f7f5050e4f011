"""Recordings: what was said between the gateway and a worker about each request, one file each.

# Theory of operation

A worker's connection has a `Tape`. What is written to the worker and read from it is put on the
tape as it is, with its time; a thread takes it from there, finds out which request each line is
for, and appends it to that request's file. So the event loop pays for a copy of a request and an
entry in a queue, and never waits for a disk.

    Tape.asked, told, said, close ─> queue, bounded in bytes ─> the thread ─> one file per request

When the thread cannot keep up, the queue is full and what comes is dropped: the recordings that are
open on that tape end with a line that says so, and what the worker says is recorded again from its
next whole line on. A recording stops growing at `MAX_RECORDING` bytes. The folder is bounded, too
(`folder`). A disk that cannot be written to
ends all recording, with one record in the log.

Recordings hold whatever was asked and answered. So the folder belongs to the gateway's user alone
(0700, and refused if others can read it), and so does each file (0600). A file is open only while
it is appended to: however many requests there are, they take no descriptors.

A file is called TIME-NUMBER-AGENT-REQUEST.jsonl. Its first line is the header, `Header`; the others
are `{"at": SECONDS, KIND: …}`, where SECONDS count from the request and KIND is `to` or `from` (the
worker) with a line of the wire, `text` with a line from the worker that is not JSON, or `end` with
how the request ended. A file without an `end` is of a gateway that was killed.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.observe import logs
from gateway.observe.recording.folder import RecordingFolder
from gateway.observe.recording.lines import Lines, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.config import ServerSettings

log = logging.getLogger("gateway.recording")

MAX_RECORDING = 32 * 1024 * 1024
"""Bytes of one recording: the largest request, its largest answer, and a long stream beside."""

MAX_QUEUED = 64 * 1024 * 1024
"""Bytes that wait to be written: some of the largest requests, or seconds of a busy gateway."""

MAX_UNWRITTEN = 64 * 1024
"""Bytes of one recording that wait for others to be written with them. A line that names no request
goes to every recording that is open on a tape, which may be hundreds."""

ENTRY_BYTES = 512
"""What an entry of the queue counts for besides its bytes."""

FLUSH_SECONDS = 2.0
"""How long the end of the gateway waits for what is queued to be written."""

_NOT_IN_NAMES = re.compile(r"[^\w.-]", re.ASCII)

End = Literal["answered", "worker ended", "gateway too slow", "too large"]


class Header(Struct, kw_only=True):
    """The first line of a recording."""

    recording: int = 1
    """The version of the format."""
    gateway: str
    """The gateway's version."""
    agent: str
    command: Sequence[str]
    request_id: str
    started: str
    """When the request was given to the worker, as RFC 3339 has it, in UTC."""
    ready: Raw | UnsetType = UNSET
    """What the worker had declared before the request."""


class _Entry(NamedTuple):
    tape: Tape
    kind: Literal["asked", "told", "said", "lost", "close"]
    at: float
    """Of `time.monotonic()`."""
    data: bytes
    wire_id: int = 0
    request_id: str = ""


class _Recording:
    """One file. `size` is what it holds."""

    def __init__(self, name: str, began: float, tape: Tape, wire_id: int) -> None:
        self.name = name
        self.began = began
        self.tape = tape
        self.wire_id = wire_id
        self.size = 0
        self.unwritten = bytearray()

    def write(self, folder: RecordingFolder) -> None:
        """Append what is new to the file."""
        data, self.unwritten = self.unwritten, bytearray()
        folder.append(self.name, data, new=not self.size)
        self.size += len(data)

    def add(self, at: float, kind: str, value: object) -> None:
        # Rounded to what clocks are good for: 0.1 µs tells nothing and takes ten digits.
        line = {"at": round(at - self.began, 6), kind: value}
        self.unwritten += msgspec.json.encode(line) + b"\n"


class Tape:
    """What is said on one worker's connection. Its methods return at once, on any thread."""

    def __init__(self, recorder: Recorder, agent: str, command: Sequence[str]) -> None:
        self.agent = agent
        self.command = command
        self._recorder = recorder
        self.losing = False
        """Whether what is said is being dropped; kept by the recorder."""
        # Of the thread's alone:
        self.open: dict[int, _Recording] = {}
        self.ready: Raw | UnsetType = UNSET
        self.lines = Lines()

    def asked(self, wire_id: int, request_id: str, line: bytes) -> None:
        """The worker was given a request."""
        self._put("asked", line, wire_id, request_id)

    def told(self, wire_id: int, line: bytes) -> None:
        """The worker was told something else about a request."""
        self._put("told", line, wire_id)

    def said(self, data: bytes) -> None:
        """Bytes came from the worker, in any split."""
        self._put("said", data)

    def close(self) -> None:
        """Nothing more will be said."""
        self._put("close", b"")

    def _put(
        self,
        kind: Literal["asked", "told", "said", "close"],
        data: bytes,
        wire_id: int = 0,
        request_id: str = "",
    ) -> None:
        self._recorder.put(_Entry(self, kind, time.monotonic(), data, wire_id, request_id))


class Recorder:
    """Writes recordings to a folder, on a thread of its own, until `close`."""

    def __init__(self, folder: str, *, size: int) -> None:
        """`size`: bytes that the folder may hold. Raises ConfigError if the folder cannot be used,
        or can be read by others."""
        self._folder = RecordingFolder(folder, size=size)
        self._gateway = version("agent-gateway")
        self._number = 0
        self._stopped = False
        self._queue: deque[_Entry] = deque()
        self._queued = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Recorder {self._folder.path!r}, {self._queued} bytes queued>"

    def tape(self, agent: str, command: Sequence[str]) -> Tape:
        """A tape for one worker."""
        # A command line is bytes, and need not be UTF-8.
        words = [word.encode(errors="backslashreplace").decode() for word in command]
        return Tape(self, agent, words)

    def put(self, entry: _Entry) -> None:
        """Queue what was said, without blocking. What does not fit is dropped: then the recordings
        that are open on its tape end."""
        with self._changed:
            if self._queued > MAX_QUEUED and entry.kind != "close":
                if entry.tape.losing:
                    return
                entry = _Entry(entry.tape, "lost", entry.at, b"")
            entry.tape.losing = entry.kind == "lost"
            self._queue.append(entry)
            self._queued += len(entry.data) + ENTRY_BYTES
            self._changed.notify_all()

    def close(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Write what is queued, within `seconds`; whether all of it was written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                entries, self._queue = self._queue, deque()
            if not entries:
                return
            if not self._stopped:
                self._record(entries)
            with self._changed:
                self._queued -= sum(len(each.data) + ENTRY_BYTES for each in entries)
                self._changed.notify_all()

    def _record(self, entries: deque[_Entry]) -> None:
        """Take entries to the files that they belong to. Empties nothing but `unwritten`."""
        touched: dict[_Recording, None] = {}
        try:
            for entry in entries:
                for recording in self._place(entry):
                    touched[recording] = None
                    if len(recording.unwritten) > MAX_UNWRITTEN:
                        recording.write(self._folder)
            for recording in touched:
                recording.write(self._folder)
        except OSError as error:
            self._stopped = True
            message = (
                f"recording has stopped: {error.filename or self._folder.path}: {error.strerror}"
            )
            logs.event(log, logging.ERROR, message)

    def _place(self, entry: _Entry) -> Iterator[_Recording]:
        """The recordings that an entry belongs to, with what it adds to each."""
        tape = entry.tape
        if entry.kind == "asked":
            recording = tape.open[entry.wire_id] = self._begin(entry)
            yield _added(recording, entry.at, "to", Raw(entry.data))
        elif entry.kind == "told":
            if (found := tape.open.get(entry.wire_id)) is not None:
                yield _added(found, entry.at, "to", Raw(entry.data))
        elif entry.kind == "said":
            for line in tape.lines.feed(entry.data):
                yield from self._place_line(tape, entry.at, line)
        elif entry.kind == "lost":
            tape.lines.lose()
            yield from _end_all(tape, entry.at, "gateway too slow")
        else:
            if rest := tape.lines.rest():
                yield from self._place_line(tape, entry.at, rest)
            yield from _end_all(tape, entry.at, "worker ended")

    def _begin(self, entry: _Entry) -> _Recording:
        self._number += 1
        began = datetime.fromtimestamp(entry.at + time.time() - time.monotonic(), UTC)
        name = _NOT_IN_NAMES.sub("_", entry.request_id)[:64]
        stamp = began.strftime("%Y%m%dT%H%M%S.%fZ")
        file = f"{stamp}-{self._number}-{entry.tape.agent}-{name}.jsonl"
        recording = _Recording(file, entry.at, entry.tape, entry.wire_id)
        header = Header(
            gateway=self._gateway,
            agent=entry.tape.agent,
            command=entry.tape.command,
            request_id=entry.request_id,
            started=began.isoformat().replace("+00:00", "Z"),
            ready=entry.tape.ready,
        )
        recording.unwritten += msgspec.json.encode(header) + b"\n"
        return recording

    def _place_line(self, tape: Tape, at: float, line: bytes) -> Iterator[_Recording]:
        kind, value, method, wire_id = read(line)
        if method == "ready" and tape.ready is UNSET:
            tape.ready = Raw(line)
        if wire_id is None:
            # The handshake, or what breaks the connection: all of its requests are concerned.
            for recording in list(tape.open.values()):
                yield _added(recording, at, kind, value)
            return
        found = tape.open.get(wire_id)
        if found is None:
            return  # a second answer
        yield _added(found, at, kind, value)
        if method is None and tape.open.pop(wire_id, None) is not None:
            found.add(at, "end", "answered")


@contextmanager
def recording(settings: ServerSettings) -> Iterator[Recorder | None]:
    """A recorder for the block, or None where none is wanted. Raises ConfigError."""
    if not settings.record:
        yield None
        return
    recorder = Recorder(settings.record_folder, size=settings.record_bytes)
    message = (
        "RECORDING every request, with all that is asked and answered, to "
        f"{settings.record_folder}: switch server.record (--record) off when it is not needed"
    )
    logs.event(log, logging.WARNING, message)
    try:
        yield recorder
    finally:
        if not recorder.close():
            logs.event(log, logging.WARNING, "recording: the last of it could not be written")


def _added(recording: _Recording, at: float, kind: str, value: object) -> _Recording:
    """The recording with a line more, which is the last but one if that makes it too large."""
    recording.add(at, kind, value)
    if recording.size + len(recording.unwritten) > MAX_RECORDING:
        recording.add(at, "end", "too large")
        del recording.tape.open[recording.wire_id]
    return recording


def _end_all(tape: Tape, at: float, how: End) -> Iterator[_Recording]:
    for found in tape.open.values():
        found.add(at, "end", how)
        yield found
    tape.open.clear()
