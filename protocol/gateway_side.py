"""The gateway's end of one connection to a worker: what the gateway may send, and what a line
means.

# Theory of operation

Each request that the gateway sends has an id, larger than all before it, and ends once: by a
result, by the end of its chunks, or by an error. `_in_flight` holds the ids that have not ended.
Nothing needs to be remembered of the past: any other id between the first and the last one counts
as ended. (The ids leave gaps, so that a caller cannot guess them, and a worker that answers an id
within a gap harms nobody.)

A worker either speaks the handshake or not. Its first line decides that for good:

    SILENT ── `ready` ──────────────> READY      `concurrency` requests at a time, and `cancel`
       └───── any other message ────> BARE       one request at a time, no `cancel`
    any ───── a line without a request ──────> BROKEN     nothing more is read

A request goes through three states. Whatever ends it also removes it from `_in_flight`:

    state        chunk      event      result with a value    end      error    malformed, its id
    UNANSWERED   CHUNKED    UNANSWERED ended                  ended    ended    ended
    CHUNKED      CHUNKED    CHUNKED    RESULT_AFTER_CHUNKS    ended    ended    ended
    ended        CHUNK_ or EVENT_AFTER_END        SECOND_RESULT, whatever the answer

Events, and what a result or an end says beside its value (the `Outcome`), are for a request that
asked for them. For any other they are dropped unread: the text of the answer is whole without them.

A line can be invalid in itself (not JSON, a result of the wrong shape) or out of order (a second
result). When the line names its request, only that request is lost: `Malformed` carries its id, and
the request has thereby ended. When the line does not, the connection is lost with all requests in
flight on it. A line for a request that has already ended harms nobody: it is reported without an id
and does not break the connection, and `Malformed.error.request_id` tells which request it named.

Nothing here does I/O, waits, or knows the time. Payloads to be sent must be JSON texts that pass
`checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec
from msgspec import UNSET

from .decoding import QUOTE, Line, read_burst, read_line, read_ready
from .errors import LocalProtocolError, RemoteProtocolError, Violation, wrong_shape
from .events import EventError, RequestEvents
from .framing import (
    MAX_LINE_BYTES,
    MAX_RELAYED_LINE_BYTES,
    LineBuffer,
    on_one_line,
    split_lines,
    split_pieces,
)
from .ids import unguessable_ids
from .messages import (
    JSON,
    Burst,
    Chunk,
    End,
    Event,
    Failure,
    FromWorker,
    Malformed,
    Method,
    Payload,
    Ready,
    Result,
)
from .payloads import as_bytes, kind
from .results import InFlight, read_result

_ANY_NUMBER = 2**62
"""Of requests at a time."""

_BURST_NEWLINES = 3
"""Newlines in a text that make it worth searching for a run of chunks of one stream."""

_PIECE_BYTES = 32 * 1024
"""Bytes that are searched for a run at once: a search goes through the whole text."""

_RUN_SHARE = 8
"""A search pays off when it finds a run of at least this fraction (one eighth) of its text."""

_LOOKS_IN_VAIN = 2
"""Searches in a row that may fail before the rest of a text is decoded line by line. One failure is
normal between two runs: the end of a stream."""


class WorkerState(Enum):
    """What is known about the worker; the module's docstring has the transitions."""

    SILENT = "silent"
    READY = "ready"
    BARE = "bare"
    BROKEN = "broken"


_SILENT = WorkerState.SILENT


class GatewayConnection:
    """The state of one connection. See the module's docstring.

    `send_*` return the bytes to write. They raise LocalProtocolError for a message that is not
    legal now, and then change nothing. `receive_data` takes bytes in any split and returns the
    events that they complete. `ids` must increase.
    """

    def __init__(
        self, *, max_line_bytes: int = MAX_LINE_BYTES, ids: Iterator[int] | None = None
    ) -> None:
        self.worker_state = WorkerState.SILENT
        self._buffer = LineBuffer(max_line_bytes)
        self._concurrency = 1
        self._ids = unguessable_ids() if ids is None else ids
        self._next_id = 0
        """The id that was taken for a request that then could not be sent; 0 for none."""
        self._given_out = range(0)
        self._in_flight: dict[int, InFlight] = {}

    def __repr__(self) -> str:
        return (
            f"<GatewayConnection {self.worker_state.value}, {len(self._in_flight)} in flight, "
            f"last id {self._given_out.stop - 1}>"
        )

    @property
    def broken(self) -> bool:
        """Whether the worker sent an invalid line that names no request."""
        return self.worker_state is WorkerState.BROKEN

    @property
    def in_flight(self) -> frozenset[int]:
        """The ids that have not ended."""
        return frozenset(self._in_flight)

    @property
    def partial_bytes(self) -> int:
        """Bytes of an unfinished line that have arrived."""
        return self._buffer.partial_bytes

    # What may be sent

    def send_request(
        self,
        method: Method,
        payload: Payload,
        *,
        stream: bool,
        context: JSON = b"{}",
        request_id: str,
        events: bool = False,
        tools: JSON | None = None,
        resume: JSON | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> tuple[int, Sequence[Payload]]:
        """Ask for an answer to an invoke's input (a JSON text) or a chat's messages (a JSON array).

        `events` asks for events and for an outcome, too. `tools` and `resume` are JSON arrays that
        pass the checks of `tools`. Returns the id and the line, in parts. A view is not copied, and
        must be on one line already (`as_one_line`); any other text is put on one line here.
        """
        self._check_may_send(method)
        self._next_id = new_id = self._next_id or next(self._ids)
        key = b"input" if method == "invoke" else b"messages"
        before = b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":{"%b":' % (
            new_id,
            method.encode(),
            key,
        )
        extra = (
            _extra_params(events, tools, resume, traceparent, tracestate)
            if events or tools or resume or traceparent
            else b""
        )
        after = b"%b%b%b%b%b%b" % (
            b',"stream":true,"context":' if stream else b',"stream":false,"context":',
            on_one_line(context),
            b',"request_id":',
            on_one_line(msgspec.json.encode(request_id)),
            extra,
            b"}}\n",
        )
        parts: tuple[Payload, ...]
        if isinstance(payload, memoryview):
            parts = (before, payload, after)
        else:
            parts = (b"".join((before, on_one_line(payload), after)),)
        length = sum(map(len, parts))
        if length > self._buffer.max_line_bytes:
            raise LocalProtocolError(
                f"{method} makes a line of {length} bytes, and the most is "
                f"{self._buffer.max_line_bytes}"
            )
        self._next_id = 0
        self._given_out = range(self._given_out.start or new_id, new_id + 1)
        self._in_flight[new_id] = InFlight(method, RequestEvents() if events else None)
        return new_id, parts

    # What goes another way than as lines

    @classmethod
    def of_host(cls, *, ids: Iterator[int] | None = None) -> GatewayConnection:
        """A connection that reads the answers of many workers together, which somebody in between
        passes on. It is READY, with any number of requests at a time. None is sent as a line:
        `open_request` expects the answer of one that goes another way."""
        connection = cls(max_line_bytes=MAX_RELAYED_LINE_BYTES, ids=ids)
        connection.worker_state = WorkerState.READY
        connection._concurrency = _ANY_NUMBER
        return connection

    def open_request(self, method: Method, *, events: bool) -> int:
        """Expect an answer, as `send_request` does; returns the id."""
        self._check_may_send(method)
        new_id = next(self._ids)
        self._given_out = range(self._given_out.start or new_id, new_id + 1)
        self._in_flight[new_id] = InFlight(method, RequestEvents() if events else None)
        return new_id

    def close_request(self, request_id: int) -> None:
        """A request has ended another way: any line for it is one too many."""
        self._in_flight.pop(request_id, None)

    def send_cancel(self, request_id: int) -> bytes:
        """Tell the worker that nobody waits for `request_id` any more. The request stays in flight
        until it ends."""
        if self.worker_state is not WorkerState.READY:
            raise LocalProtocolError(
                f"cancel may be sent only to a worker that sent ready, and this one is "
                f"{self.worker_state.value}"
            )
        if request_id not in self._in_flight:
            raise LocalProtocolError(f"cancel of request {request_id}, which is not in flight")
        return b'{"jsonrpc":"2.0","method":"cancel","params":{"id":%d}}\n' % request_id

    def _check_may_send(self, method: Method) -> None:
        if self.worker_state is WorkerState.BROKEN:
            raise LocalProtocolError(f"{method} to a worker that broke the protocol")
        if len(self._in_flight) >= self._concurrency:
            raise LocalProtocolError(
                f"{method} with {len(self._in_flight)} in flight to a worker that is "
                f"{self.worker_state.value} and takes {self._concurrency} at a time"
            )

    # What comes back

    def receive_data(self, data: bytes) -> list[FromWorker]:
        """The events that these bytes complete, in order. Never raises for what the worker did."""
        events: list[FromWorker] = []
        for event in self.receive_batch(data):
            if isinstance(event, Burst):
                events += [Chunk(event.id, text) for text in event.texts]
            else:
                events.append(event)
        return events

    def receive_batch(self, data: bytes) -> list[FromWorker | Burst]:
        """As `receive_data`, but consecutive chunks of one stream may be returned as one
        `Burst`."""
        if self.broken:
            return []
        events: list[FromWorker | Burst] = []
        for text in split_pieces(self._buffer.feed_text(data), _PIECE_BYTES):
            rest = self._receive_runs(text, events)
            self._receive_lines(split_lines(rest), events)
            if self.broken:
                return events
        if self._buffer.overflowed:
            events.append(self._malformed(self._buffer.too_long()))
        return events

    def _receive_runs(self, text: bytes, events: list[FromWorker | Burst]) -> bytes:
        """Receive the runs of chunks that a text begins with, and single lines between two runs.

        Returns the rest of the text, which has to be decoded line by line.
        """
        in_vain = 0
        while in_vain < _LOOKS_IN_VAIN and _has_many_lines(text):
            size = len(text)
            burst = read_burst(text)
            if burst is not None and burst[0] in self._in_flight:
                request_id, texts, text = burst
                events.append(self._receive_burst(request_id, texts))
            else:
                line, _, text = text.partition(b"\n")
                self._receive_lines(split_lines(line), events)
            if self.broken:
                return b""
            in_vain = in_vain + 1 if (size - len(text)) * _RUN_SHARE < size else 0
        return text

    def _receive_burst(self, request_id: int, texts: list[JSON]) -> Burst:
        self._in_flight[request_id].chunked = True
        if self.worker_state is _SILENT:
            self.worker_state = WorkerState.BARE
        return Burst(request_id, texts)

    def _receive_lines(self, lines: list[bytes], events: list[FromWorker | Burst]) -> None:
        for text in lines:
            try:
                line = read_line(text)
                if line.method == "chunk":  # first: chunks are the most frequent by far
                    events.append(self._receive_chunk(line))
                elif line.method == "event":
                    event = self._receive_event(line)
                    if event is not None:
                        events.append(event)
                else:
                    events.append(self._receive(line, text))
                if self.worker_state is _SILENT:
                    self.worker_state = WorkerState.BARE
            except RemoteProtocolError as error:
                # Without its traceback, whose frames hold `events`: a cycle for each bad line.
                events.append(self._malformed(error.with_traceback(None)))
                if self.broken:
                    return

    def _receive_chunk(self, line: Line) -> Chunk:
        params = line.params
        if line.id is not UNSET:
            raise _own_request(line)
        if params is UNSET or params.id is UNSET:
            raise wrong_shape(None, "a chunk without params.id")
        request = self._in_flight.get(params.id)
        if request is None:
            raise self._not_in_flight(params.id, Violation.CHUNK_AFTER_END, "a chunk")
        if params.chunk is UNSET:
            raise wrong_shape(params.id, "a chunk without params.chunk")
        text = as_bytes(params.chunk)
        if text[0] != QUOTE:
            raise wrong_shape(params.id, f"params.chunk is {kind(text)}, expected a string")
        request.chunked = True
        return Chunk(params.id, text)

    def _receive_event(self, line: Line) -> Event | None:
        """None: the request did not ask for events."""
        params = line.params
        if line.id is not UNSET:
            raise _own_request(line)
        if params is UNSET or params.id is UNSET:
            raise wrong_shape(None, "an event without params.id")
        request = self._in_flight.get(params.id)
        if request is None:
            raise self._not_in_flight(params.id, Violation.EVENT_AFTER_END, "an event")
        if request.events is None:
            return None
        if params.event is UNSET:
            raise wrong_shape(params.id, "an event without params.event")
        try:
            # On one line: between tokens, JSON allows the ends of lines that are not `\n`.
            event = on_one_line(as_bytes(params.event))
            request.events.add(event)
        except EventError as error:
            raise wrong_shape(params.id, str(error)) from None
        return Event(params.id, event)

    def _receive(self, line: Line, text: bytes) -> Ready | Result | End | Failure:
        if line.method is UNSET:
            return self._receive_answer(line)
        if line.id is not UNSET:
            raise _own_request(line)
        return self._receive_ready(text)

    def _receive_ready(self, text: bytes) -> Ready:
        if self.worker_state is WorkerState.READY:
            raise RemoteProtocolError(Violation.READY_TWICE, "a second ready")
        if self.worker_state is not _SILENT:
            raise RemoteProtocolError(Violation.READY_NOT_FIRST, "ready after another line")
        ready = read_ready(text)
        self.worker_state = WorkerState.READY
        self._concurrency = ready.concurrency
        return ready

    def _receive_answer(self, line: Line) -> Result | End | Failure:
        if line.id is UNSET:
            raise wrong_shape(None, "a message with neither method nor id")
        if line.id is None:
            detail = "" if line.error is UNSET else f": {line.error.message}"
            raise wrong_shape(None, f"an answer whose id is null{detail}")
        request = self._in_flight.get(line.id)
        if request is None:
            raise self._not_in_flight(line.id, Violation.SECOND_RESULT, "an answer")
        if line.error is not UNSET:
            if line.result is not UNSET:
                raise wrong_shape(line.id, "an answer with both result and error")
            answer: Result | End | Failure = Failure(line.id, line.error.code, line.error.message)
        elif line.result is UNSET:
            raise wrong_shape(line.id, "an answer with neither result nor error")
        else:
            answer = read_result(line.id, line.result, request)
        del self._in_flight[line.id]
        return answer

    def _not_in_flight(
        self, request_id: int, after_end: Violation, what: str
    ) -> RemoteProtocolError:
        if self._was_given_out(request_id):
            return RemoteProtocolError(
                after_end,
                f"{what} for request {request_id}, which has ended",
                request_id=request_id,
            )
        return RemoteProtocolError(
            Violation.UNKNOWN_ID, f"{what} for request {request_id}, which was never sent"
        )

    def _malformed(self, error: RemoteProtocolError) -> Malformed:
        request_id = error.request_id
        if request_id is None or not self._was_given_out(request_id):
            self.worker_state = WorkerState.BROKEN
            self._in_flight.clear()
            return Malformed(None, error)
        if self.worker_state is _SILENT:
            self.worker_state = WorkerState.BARE
        ended_before = self._in_flight.pop(request_id, None) is None
        return Malformed(None if ended_before else request_id, error)

    def _was_given_out(self, request_id: int) -> bool:
        return request_id in self._given_out


def _has_many_lines(text: bytes) -> bool:
    # `in` is much faster than `count` in one long line.
    return b"\n" in text and text.count(b"\n") >= _BURST_NEWLINES


def _extra_params(
    events: bool,
    tools: JSON | None,
    resume: JSON | None,
    traceparent: str | None,
    tracestate: str | None,
) -> bytes:
    """The members of params that most requests do not have."""
    parts = [b',"events":true'] if events else []
    for key, value in ((b"tools", tools), (b"resume", resume)):
        if value is not None:
            parts += [b',"%b":' % key, on_one_line(value)]
    for key, text in ((b"traceparent", traceparent), (b"tracestate", tracestate)):
        if text is not None:
            parts += [b',"%b":' % key, on_one_line(msgspec.json.encode(text))]
    return b"".join(parts)


def _own_request(line: Line) -> RemoteProtocolError:
    return wrong_shape(None, f"a request of the worker's own, {line.method!r}; it may send none")
