"""The gateway's end of one connection to a worker: what it may send, and what it makes of a line.

# Theory of operation

Each request that the gateway sends has an id, counted up from 1, and ends once: by a result, by the
end of its chunks, or by an error. `_in_flight` holds the ids that have not ended; an id that was
given out and is not in it has ended, so nothing needs to be remembered of the past.

A worker speaks or does not speak the handshake. Its first line decides that for good:

    SILENT ── `ready` ──────────────> READY      `cancel` may be sent
       └───── anything else legal ──> BARE       one request at a time, no `cancel`
    any ───── a line that cannot be placed ──> BROKEN     nothing it sends is looked at any more

A line can be wrong in itself (not JSON, a result of the wrong shape) or out of order (a second
result). When it names the request that it belongs to, only that request is lost: `Malformed`
carries its id, and the request has thereby ended. When it does not, the stream of lines is lost
with all that were in flight on it. A line for a request that has already ended can harm nobody; it
is still reported, with no id, but does not break the connection: `Malformed.error.request_id` names
the id.

Nothing here does I/O, waits, or knows the time.
"""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .framing import MAX_LINE_BYTES, LineBuffer
from .messages import (
    JSON,
    PROTOCOL_VERSION,
    ROLES,
    Chunk,
    End,
    Failure,
    FromWorker,
    Malformed,
    Ready,
    Result,
)


class WorkerState(Enum):
    """What is known of the peer; see the module's docstring for the transitions."""

    SILENT = "silent"
    READY = "ready"
    BARE = "bare"
    BROKEN = "broken"


class _Params(Struct, gc=False):
    id: int | UnsetType = UNSET
    chunk: Raw | UnsetType = UNSET
    protocol: int | UnsetType = UNSET
    handlers: tuple[str, ...] | UnsetType = UNSET
    concurrency: int | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    metadata: Raw | UnsetType = UNSET


class _Answer(Struct, gc=False):
    output: Raw | UnsetType = UNSET
    message: Raw | UnsetType = UNSET


class _Error(Struct, gc=False):
    code: int
    message: str = ""


class _Line(Struct, gc=False):
    jsonrpc: str | UnsetType = UNSET
    id: int | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: _Params | UnsetType = UNSET
    result: _Answer | UnsetType = UNSET
    error: _Error | UnsetType = UNSET


class _LooseParams(Struct, gc=False):
    id: Raw = Raw(b"null")


class _LooseLine(Struct, gc=False):
    """As much of a wrong line as is needed to say whose it is."""

    id: Raw = Raw(b"null")
    params: Raw = Raw(b"null")


class _ChatMessage(Struct, gc=False):
    role: str
    content: Raw


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_loose_line = msgspec.json.Decoder(_LooseLine).decode
_decode_loose_params = msgspec.json.Decoder(_LooseParams).decode
_decode_id = msgspec.json.Decoder(int).decode
_decode_chat_message = msgspec.json.Decoder(_ChatMessage).decode
_encode_string = msgspec.json.encode


class _InFlight:
    __slots__ = ("chunked", "method")

    def __init__(self, method: str) -> None:
        self.method = method
        self.chunked = False


class GatewayConnection:
    """The state of one connection. See the module's docstring.

    `send_*` return the bytes to write and raise LocalProtocolError for what may not be sent now.
    `receive_data` takes what was read, in any split, and returns what it means.
    """

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.worker_state = WorkerState.SILENT
        self._buffer = LineBuffer(max_line_bytes)
        self._last_id = 0
        self._in_flight: dict[int, _InFlight] = {}

    def __repr__(self) -> str:
        return (
            f"<GatewayConnection {self.worker_state.value}, {len(self._in_flight)} in flight, "
            f"last id {self._last_id}>"
        )

    @property
    def broken(self) -> bool:
        """Whether the worker sent a line that cannot be placed."""
        return self.worker_state is WorkerState.BROKEN

    @property
    def in_flight(self) -> frozenset[int]:
        """The ids that have not ended."""
        return frozenset(self._in_flight)

    @property
    def partial_bytes(self) -> int:
        """How many bytes of an unfinished line have come in."""
        return self._buffer.partial_bytes

    def send_invoke(
        self, value: JSON, *, stream: bool, context: JSON = b"{}", request_id: str
    ) -> tuple[int, bytes]:
        """Ask for `value` (any JSON text) to be processed; returns the id and the line."""
        return self._send_request(
            "invoke", b"input", value, stream=stream, context=context, request_id=request_id
        )

    def send_chat(
        self, messages: JSON, *, stream: bool, context: JSON = b"{}", request_id: str
    ) -> tuple[int, bytes]:
        """Ask for an answer to `messages` (a JSON array); returns the id and the line."""
        return self._send_request(
            "chat", b"messages", messages, stream=stream, context=context, request_id=request_id
        )

    def send_cancel(self, request_id: int) -> bytes:
        """Say that nobody waits for `request_id` any more. It stays in flight until it ends."""
        if self.worker_state is not WorkerState.READY:
            raise LocalProtocolError(
                f"cancel may be sent only to a worker that sent ready, and this one is "
                f"{self.worker_state.value}"
            )
        if request_id not in self._in_flight:
            raise LocalProtocolError(f"cancel of request {request_id}, which is not in flight")
        return b'{"jsonrpc":"2.0","method":"cancel","params":{"id":%d}}\n' % request_id

    def _send_request(
        self, method: str, key: bytes, value: JSON, *, stream: bool, context: JSON, request_id: str
    ) -> tuple[int, bytes]:
        if self.worker_state is WorkerState.BROKEN:
            raise LocalProtocolError(f"{method} to a worker that broke the protocol")
        if self._in_flight and self.worker_state is not WorkerState.READY:
            raise LocalProtocolError(
                f"a second request in flight to a worker that has not sent ready "
                f"({self.worker_state.value})"
            )
        self._last_id += 1
        line = b"".join(
            (
                b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":{"%s":'
                % (self._last_id, method.encode(), key),
                _on_one_line(value),
                b',"stream":true,"context":' if stream else b',"stream":false,"context":',
                _on_one_line(context),
                b',"request_id":',
                _encode_string(request_id),
                b"}}\n",
            )
        )
        if len(line) > self._buffer.max_line_bytes:
            raise LocalProtocolError(
                f"{method} makes a line of {len(line)} bytes, and the most is "
                f"{self._buffer.max_line_bytes}"
            )
        self._in_flight[self._last_id] = _InFlight(method)
        return self._last_id, line

    def receive_data(self, data: bytes) -> list[FromWorker]:
        """What the bytes just read mean, in order. Never raises for what the worker did."""
        if self.broken:
            return []
        events: list[FromWorker] = []
        for line in self._buffer.feed(data):
            try:
                events.append(self._receive_line(line))
            except RemoteProtocolError as error:
                events.append(self._malformed(error))
                if self.broken:
                    return events
        if self._buffer.overflowed:
            events.append(self._broken(self._buffer.too_long()))
        return events

    def _receive_line(self, line: bytes) -> FromWorker:
        try:
            if not line.isascii():
                # msgspec takes the bytes of a Raw value as they are; clients would be handed them.
                line.decode()
            message = _decode_line(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _explain(line, error) from None
        if message.jsonrpc is not UNSET and message.jsonrpc != "2.0":
            raise _wrong(_place(line), f'jsonrpc is {message.jsonrpc!r}, expected "2.0"')
        first = self.worker_state is WorkerState.SILENT
        if message.method is UNSET:
            event: FromWorker = self._receive_answer(message)
        elif message.id is not UNSET:
            raise _wrong(
                None, f"a request of the worker's own, {message.method!r}; it may send none"
            )
        elif message.method == "chunk":
            event = self._receive_chunk(message.params)
        elif message.method == "ready":
            event = self._receive_ready(message.params)
        else:
            raise _wrong(
                None, f"method {message.method!r}, expected 'ready', 'chunk', or an answer"
            )
        if first and self.worker_state is WorkerState.SILENT:
            self.worker_state = WorkerState.BARE
        return event

    def _receive_chunk(self, params: _Params | UnsetType) -> Chunk:
        if params is UNSET or params.id is UNSET:
            raise _wrong(None, "a chunk without params.id")
        request = self._in_flight.get(params.id)
        if request is None:
            raise self._not_in_flight(params.id, Violation.CHUNK_AFTER_END, "a chunk")
        if params.chunk is UNSET:
            raise _wrong(params.id, "a chunk without params.chunk")
        text = bytes(params.chunk)
        if text[0] != 0x22:
            raise _wrong(params.id, f"params.chunk is {_kind(text)}, expected a string")
        request.chunked = True
        return Chunk(params.id, text)

    def _receive_ready(self, params: _Params | UnsetType) -> Ready:
        if self.worker_state is WorkerState.READY:
            raise RemoteProtocolError(Violation.READY_TWICE, "a second ready")
        if self.worker_state is not WorkerState.SILENT:
            raise RemoteProtocolError(Violation.READY_NOT_FIRST, "ready after another line")
        if params is UNSET or params.protocol is UNSET:
            raise _wrong(None, "ready without params.protocol")
        if params.protocol != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                Violation.UNSUPPORTED_VERSION,
                f"ready declares protocol {params.protocol}, expected {PROTOCOL_VERSION}",
            )
        if params.handlers is UNSET:
            raise _wrong(None, "ready without params.handlers")
        concurrency = 1 if params.concurrency is UNSET else params.concurrency
        if concurrency < 1:
            raise _wrong(None, f"ready declares concurrency {concurrency}, expected 1 or more")
        metadata = b"{}" if params.metadata is UNSET else bytes(params.metadata)
        if metadata[0] != 0x7B:
            raise _wrong(None, f"ready's metadata is {_kind(metadata)}, expected an object")
        self.worker_state = WorkerState.READY
        return Ready(
            protocol=params.protocol,
            handlers=params.handlers,
            concurrency=concurrency,
            description=None if params.description is UNSET else params.description,
            metadata=metadata,
        )

    def _receive_answer(self, message: _Line) -> Result | End | Failure:
        if message.id is UNSET:
            raise _wrong(None, "a message with neither method nor id")
        if message.id is None:
            detail = "" if message.error is UNSET else f": {message.error.message}"
            raise _wrong(None, f"an answer whose id is null{detail}")
        request = self._in_flight.get(message.id)
        if request is None:
            raise self._not_in_flight(message.id, Violation.SECOND_RESULT, "an answer")
        if message.error is not UNSET:
            if message.result is not UNSET:
                raise _wrong(message.id, "an answer with both result and error")
            answer: Result | End | Failure = Failure(
                message.id, message.error.code, message.error.message
            )
        elif message.result is UNSET:
            raise _wrong(message.id, "an answer with neither result nor error")
        else:
            answer = _read_result(message.id, message.result, request)
        del self._in_flight[message.id]
        return answer

    def _not_in_flight(
        self, request_id: int, after_end: Violation, what: str
    ) -> RemoteProtocolError:
        if 1 <= request_id <= self._last_id:
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
        if self.worker_state is WorkerState.SILENT:
            self.worker_state = WorkerState.BARE
        if request_id is None or not 1 <= request_id <= self._last_id:
            return self._broken(error)
        ended_before = self._in_flight.pop(request_id, None) is None
        return Malformed(None if ended_before else request_id, error)

    def _broken(self, error: RemoteProtocolError) -> Malformed:
        self.worker_state = WorkerState.BROKEN
        self._in_flight.clear()
        return Malformed(None, error)


def _read_result(request_id: int, result: _Answer, request: _InFlight) -> Result | End:
    key, value, other = (
        ("output", result.output, result.message)
        if request.method == "invoke"
        else ("message", result.message, result.output)
    )
    if value is UNSET:
        if other is not UNSET:
            wrong_key = "message" if key == "output" else "output"
            raise _wrong(
                request_id, f"the result of {request.method} has {wrong_key!r}, expected {key!r}"
            )
        return End(request_id)
    if request.chunked:
        raise RemoteProtocolError(
            Violation.RESULT_AFTER_CHUNKS,
            f"a result with {key!r} after chunks, expected {{}} to end them",
            request_id=request_id,
        )
    text = bytes(value)
    if request.method == "chat":
        _check_chat_message(request_id, text)
    return Result(request_id, text)


def _check_chat_message(request_id: int, text: JSON) -> None:
    try:
        message = _decode_chat_message(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _wrong(request_id, f"the message of a chat result: {error}") from None
    if message.role not in ROLES:
        raise _wrong(
            request_id,
            f"the role of a chat result is {message.role!r}, expected one of {', '.join(ROLES)}",
        )
    if bytes(message.content)[:1] not in b'"[{n':
        raise _wrong(
            request_id,
            f"the content of a chat result is {_kind(bytes(message.content))}, "
            "expected a string, a list, an object or null",
        )


def _on_one_line(text: JSON) -> JSON:
    # A newline in a JSON text can only stand between tokens: inside a string it is escaped.
    return text.replace(b"\n", b" ") if b"\n" in text else text


def _kind(text: JSON) -> str:
    names = {"{": "an object", "[": "an array", '"': "a string", "t": "true", "f": "false"}
    first = chr(text[0])
    return "null" if first == "n" else names.get(first, "a number")


def _wrong(request_id: int | None, message: str) -> RemoteProtocolError:
    return RemoteProtocolError(Violation.WRONG_SHAPE, message, request_id=request_id)


def _explain(line: bytes, error: Exception) -> RemoteProtocolError:
    """Why a line could not be decoded, and whose it is."""
    start = line[:80].decode("utf-8", "backslashreplace")
    excerpt = f"{start}…" if len(line) > 80 else start
    if isinstance(error, RecursionError):
        return RemoteProtocolError(
            Violation.NESTED_TOO_DEEPLY, f"a line is nested too deeply: {excerpt}"
        )
    if isinstance(error, UnicodeDecodeError):
        return RemoteProtocolError(Violation.NOT_UTF8, f"a line is not UTF-8: {excerpt}")
    if not isinstance(error, msgspec.ValidationError):
        reason = "starts with a byte-order mark" if line[:3] == b"\xef\xbb\xbf" else str(error)
        return RemoteProtocolError(Violation.NOT_JSON, f"a line is not JSON ({reason}): {excerpt}")
    if line.lstrip()[:1] != b"{":
        return RemoteProtocolError(Violation.NOT_A_MESSAGE, f"a line is not an object: {excerpt}")
    return _wrong(_place(line), f"{error}: {excerpt}")


def _place(line: bytes) -> int | None:
    """The id of the request that a wrong line belongs to, if it can be told."""
    try:
        loose = _decode_loose_line(line)
        if bytes(loose.id) != b"null":
            return _decode_id(bytes(loose.id))
        return _decode_id(bytes(_decode_loose_params(bytes(loose.params)).id))
    except (msgspec.MsgspecError, RecursionError):
        return None
