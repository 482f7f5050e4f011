"""The worker's end of one connection to the gateway.

# Theory of operation

A worker may send `ready` once, before anything else. It answers each request once: with a result of
the request's method, or with chunks and an end, or with an error. `_owed` holds the requests that
still await an answer. Sending for any other id is a defect of the program on this side: it raises
LocalProtocolError and changes nothing, so that an error can still be sent instead.

The gateway is trusted to speak the protocol. An invalid line from it raises RemoteProtocolError, in
this call and in every later one, and the worker should end, because it can no longer tell which
requests it owes. A later version of the gateway may send more, however: a request with an unknown
method is `Unsupported`, to be refused, and a notification with an unknown method is ignored.

Nothing here does I/O, waits, or knows the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .checks import MAX_NESTING, nests_deeper
from .errors import LocalProtocolError, RemoteProtocolError, Violation, wrong_shape
from .events import EventError, RequestEvents, check_outcome
from .framing import MAX_LINE_BYTES, LineBuffer, on_one_line
from .messages import (
    JSON,
    METHODS,
    PROTOCOL_VERSION,
    Cancel,
    Chat,
    FromGateway,
    Invoke,
    Outcome,
    Ready,
    Unsupported,
)
from .payloads import as_bytes, as_payload, check_chat_message

_CHUNK_HEAD = b'{"jsonrpc":"2.0","method":"chunk","params":{"id":%d,"chunk":'
_EVENT_HEAD = b'{"jsonrpc":"2.0","method":"event","params":{"id":%d,"event":'


class _Params(Struct, gc=False):
    id: int | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    stream: bool = False
    context: Raw = Raw(b"{}")
    request_id: str = ""
    events: bool = False
    tools: Raw | UnsetType = UNSET
    resume: Raw | UnsetType = UNSET
    traceparent: str | None = None
    tracestate: str | None = None


class _Line(Struct, gc=False):
    method: str
    id: int | UnsetType = UNSET
    params: _Params | UnsetType = UNSET


class _HeadOfLine(Struct, gc=False):
    """The members that a message has in every version."""

    method: str
    id: int | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_head = msgspec.json.Decoder(_HeadOfLine).decode


class _Owed:
    __slots__ = ("answered", "chunked", "events", "method")

    def __init__(self, method: str, events: RequestEvents | None) -> None:
        self.method = method
        self.events = events
        """None: the gateway did not ask for events."""
        self.chunked = False
        """Whether a chunk has been sent."""
        self.answered = False


class WorkerConnection:
    """The state of one connection. See the module's docstring.

    `send_*` return the bytes to write. They raise LocalProtocolError for a message that is not
    legal now and for a line that is too long or nests too deeply; and TypeError, ValueError (a lone
    surrogate, an integer of more than 4,300 digits), OverflowError or RecursionError, as msgspec
    does, for a value without a JSON form. NaN and the infinities are written as null; `msgspec.Raw`
    is written unchanged, except for its newlines. `receive_data` takes bytes in any split and
    returns the gateway's messages.
    """

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = LineBuffer(max_line_bytes)
        self._max_line_bytes = max_line_bytes
        self._silent = True
        self._owed: dict[int, _Owed] = {}
        self._error: RemoteProtocolError | None = None

    def __repr__(self) -> str:
        return f"<WorkerConnection {'silent' if self._silent else 'open'}, owes {len(self._owed)}>"

    @property
    def open_requests(self) -> frozenset[int]:
        """The ids of the requests that still await an answer."""
        return frozenset(self._owed)

    def receive_data(self, data: bytes) -> list[FromGateway]:
        """The messages that these bytes complete, in order.

        Raises RemoteProtocolError; messages before the violation in the same bytes are lost.
        """
        if self._error is not None:
            raise self._error
        try:
            events = [self._receive_line(line) for line in self._buffer.feed(data)]
            if self._buffer.overflowed:
                raise self._buffer.too_long()
        except RemoteProtocolError as error:
            self._error = error
            raise
        return [event for event in events if event is not None]

    def _receive_line(self, line: bytes) -> FromGateway | None:
        try:
            message = _read_line(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(
                Violation.NOT_A_MESSAGE, f"the gateway sent {line[:80]!r}: {error}"
            ) from None
        params = _Params() if message.params is UNSET else message.params
        if message.method == "cancel":
            if params.id is UNSET:
                raise wrong_shape(None, "cancel without params.id")
            return Cancel(params.id)
        if message.id is UNSET:
            if message.method in METHODS:
                raise wrong_shape(None, f"{message.method!r} without an id")
            return None
        if message.id in self._owed:
            raise RemoteProtocolError(
                Violation.DUPLICATE_ID,
                f"request {message.id} came twice",
                request_id=message.id,
            )
        request = _read_request(message.id, message.method, params)
        self._owed[message.id] = _Owed(message.method, RequestEvents() if params.events else None)
        return request

    def send_ready(
        self,
        *,
        handlers: Sequence[str],
        concurrency: int = 1,
        description: str | None = None,
        metadata: JSON = b"{}",
        input: JSON | None = None,  # noqa: A002 - its name on the wire
        output: JSON | None = None,
        modes: Sequence[str] = (),
        tools: bool = False,
        asks: bool = False,
    ) -> bytes:
        """Declare what this worker can do. Legal as the first line only, within `ready`'s
        bounds."""
        if not self._silent:
            raise LocalProtocolError("ready is only legal as the first line")
        ready = Ready(
            protocol=PROTOCOL_VERSION,
            handlers=tuple(handlers),
            description=description,
            metadata=metadata,
            input=input,
            output=output,
            modes=tuple(modes),
            tools=tools,
            asks=asks,
        )
        if excess := ready.excess():
            raise LocalProtocolError(excess)
        params: dict[str, object] = {
            "protocol": PROTOCOL_VERSION,
            "handlers": list(handlers),
            "concurrency": concurrency,
        }
        if description is not None:
            params["description"] = description
        params["metadata"] = Raw(metadata)
        for key, schema in (("input", input), ("output", output)):
            if schema is not None:
                params[key] = Raw(schema)
        # Only what says something: an older gateway has no use for the rest.
        optional = {"modes": ready.modes, "tools": tools, "asks": asks}
        params |= {key: value for key, value in optional.items() if value}
        return self._line({"jsonrpc": "2.0", "method": "ready", "params": params})

    def send_chunk(self, request_id: int, text: str) -> bytes:
        """One piece of the answer to `request_id`."""
        return self.chunk_sender(request_id)(text)

    def chunk_sender(self, request_id: int) -> Callable[[str], bytes]:
        """`send_chunk` for one request, in half the time: an answer may have thousands of
        chunks."""
        owed = self._check_owed(request_id, "a chunk")
        head = _CHUNK_HEAD % request_id
        most = self._max_line_bytes

        def send(text: str) -> bytes:
            if owed.answered:
                raise _not_open(request_id, "a chunk")
            if not isinstance(text, str):
                raise LocalProtocolError(f"a chunk is {type(text).__name__}, expected str")
            # This frame around one JSON string neither nests nor holds a newline.
            line = head + _encode(text) + b"}}\n"
            if len(line) > most:
                self._check_length(len(line) - 1)
            if not owed.chunked:
                owed.chunked = True
                self._silent = False
            return line

        return send

    def send_event(self, request_id: int, event: object) -> bytes:
        """An event about `request_id`: any value whose JSON `events.read_event` can read. Legal
        where the request says `events`."""
        owed = self._check_owed(request_id, "an event")
        if owed.events is None:
            raise _not_asked_for(request_id, "an event")
        text = on_one_line(_encode(event))
        line = b"%b%b}}" % (_EVENT_HEAD % request_id, text)
        self._check_line(line)
        try:
            owed.events.add(text)
        except EventError as error:
            raise LocalProtocolError(str(error)) from None
        self._silent = False
        return line + b"\n"

    def send_output(
        self, request_id: int, output: object, *, outcome: Outcome | None = None
    ) -> bytes:
        """The answer to an invoke: any value that msgspec can encode as JSON. An outcome is legal
        where the request says `events`."""
        self._check_result(request_id, "invoke", "an output")
        result = {"output": output, **self._outcome(request_id, outcome)}
        return self._answer(request_id, "result", result)

    def send_message(
        self, request_id: int, message: object, *, outcome: Outcome | None = None
    ) -> bytes:
        """The answer to a chat: an object with `role` and `content`. The outcome is as in
        `send_output`."""
        self._check_result(request_id, "chat", "a message")
        text = _encode(message)
        if problem := check_chat_message(text):
            raise LocalProtocolError(f"the message for request {request_id}: {problem}")
        result = {"message": Raw(text), **self._outcome(request_id, outcome)}
        return self._answer(request_id, "result", result)

    def send_end(self, request_id: int, *, outcome: Outcome | None = None) -> bytes:
        """The end of the chunks of `request_id`. The outcome is as in `send_output`."""
        self._check_owed(request_id, "an end")
        return self._answer(request_id, "result", self._outcome(request_id, outcome))

    def send_error(self, request_id: int, code: int, message: str) -> bytes:
        """Answer `request_id` with an error. Legal after chunks, too. See `ErrorCode`."""
        self._find_owed(request_id, "an error")
        return self._answer(request_id, "error", {"code": code, "message": message})

    def _answer(self, request_id: int, key: str, value: object) -> bytes:
        line = self._line({"jsonrpc": "2.0", "id": request_id, key: value})
        self._owed.pop(request_id).answered = True
        return line

    def _outcome(self, request_id: int, outcome: Outcome | None) -> dict[str, object]:
        """The members of a result that tell how the answer ended."""
        if outcome is None:
            return {}
        if self._owed[request_id].events is None:
            raise _not_asked_for(request_id, "an outcome")
        try:
            outcome = check_outcome(outcome)
        except EventError as error:
            raise LocalProtocolError(str(error)) from None
        members: dict[str, object] = {} if outcome.finish is None else {"finish": outcome.finish}
        for key, value in (("usage", outcome.usage), ("asks", outcome.asks)):
            if value is not None:
                members[key] = Raw(value)
        return members

    def _check_result(self, request_id: int, method: str, what: str) -> None:
        owed = self._check_owed(request_id, what)
        if owed.method != method:
            raise LocalProtocolError(
                f"{what} for request {request_id}, whose method is {owed.method!r}"
            )
        if owed.chunked:
            raise LocalProtocolError(f"{what} for request {request_id} after chunks")

    def _check_owed(self, request_id: int, what: str) -> _Owed:
        owed = self._find_owed(request_id, what)
        if owed.method not in METHODS:
            raise LocalProtocolError(
                f"{what} for request {request_id}, whose method {owed.method!r} is not supported"
            )
        return owed

    def _find_owed(self, request_id: int, what: str) -> _Owed:
        try:
            return self._owed[request_id]
        except KeyError:
            raise _not_open(request_id, what) from None

    def _line(self, message: dict[str, object]) -> bytes:
        line = on_one_line(_encode(message))
        self._check_line(line)
        self._silent = False
        return line + b"\n"

    def _check_line(self, line: bytes) -> None:
        self._check_length(len(line))
        if nests_deeper(line, MAX_NESTING):
            raise LocalProtocolError(f"a line that nests deeper than {MAX_NESTING}")

    def _check_length(self, length: int) -> None:
        if length >= self._max_line_bytes:
            raise LocalProtocolError(
                f"a line of {length} bytes, and the most is {self._max_line_bytes}"
            )


def _not_open(request_id: int, what: str) -> LocalProtocolError:
    return LocalProtocolError(f"{what} for request {request_id}, which is not open")


def _not_asked_for(request_id: int, what: str) -> LocalProtocolError:
    return LocalProtocolError(
        f"{what} for request {request_id}, which does not say 'events': the gateway takes none"
    )


def _read_line(line: bytes) -> _Line:
    try:
        return _decode_line(line)
    except msgspec.ValidationError:
        # A message of a later version may have params of any shape.
        head = _decode_head(line)
        if head.method in {*METHODS, "cancel"}:
            raise
        return _Line(head.method, head.id)


def _read_request(request_id: int, method: str, params: _Params) -> FromGateway:
    if method not in METHODS:
        return Unsupported(request_id, method)
    rest = (
        params.stream,
        as_bytes(params.context),
        params.request_id,
        params.events,
        None if params.tools is UNSET else as_bytes(params.tools),
        None if params.resume is UNSET else as_bytes(params.resume),
        params.traceparent,
        params.tracestate,
    )
    if method == "invoke":
        if params.input is UNSET:
            raise wrong_shape(request_id, "invoke without params.input")
        return Invoke(request_id, as_payload(params.input), *rest)
    if params.messages is UNSET:
        raise wrong_shape(request_id, "chat without params.messages")
    return Chat(request_id, as_payload(params.messages), *rest)
