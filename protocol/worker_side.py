"""The worker's end of one connection to the gateway.

# Theory of operation

A worker may send `ready` once, before anything else, and then answers each request once: with a
result, or with chunks and an end, or with an error. `_open` holds the ids that it still owes an
answer, with whether chunks were sent; sending for any other id is a defect of the program on this
side and raises LocalProtocolError.

The gateway is trusted to speak the protocol. A line of it that is none raises RemoteProtocolError,
and the worker should end: it can no longer tell which requests it owes.

Nothing here does I/O, waits, or knows the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .framing import MAX_LINE_BYTES, LineBuffer
from .messages import JSON, PROTOCOL_VERSION, Cancel, Chat, FromGateway, Invoke, Unsupported


class _Params(Struct, gc=False):
    id: int | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    stream: bool = False
    context: Raw = Raw(b"{}")
    request_id: str = ""


class _Line(Struct, gc=False):
    method: str
    id: int | UnsetType = UNSET
    params: _Params | UnsetType = UNSET


_decode_line = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.encode


class WorkerConnection:
    """The state of one connection. See the module's docstring.

    `send_*` return the bytes to write and raise LocalProtocolError for what may not be sent now.
    `receive_data` takes what was read, in any split, and returns what the gateway asks for.
    """

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = LineBuffer(max_line_bytes)
        self._max_line_bytes = max_line_bytes
        self._silent = True
        self._open: dict[int, bool] = {}

    def __repr__(self) -> str:
        return f"<WorkerConnection {'silent' if self._silent else 'open'}, owes {len(self._open)}>"

    @property
    def open_requests(self) -> frozenset[int]:
        """The ids that are owed an answer."""
        return frozenset(self._open)

    def receive_data(self, data: bytes) -> list[FromGateway]:
        """What the bytes just read ask for, in order. Raises RemoteProtocolError."""
        events = [self._receive_line(line) for line in self._buffer.feed(data)]
        if self._buffer.overflowed:
            raise self._buffer.too_long()
        return events

    def _receive_line(self, line: bytes) -> FromGateway:
        try:
            message = _decode_line(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise RemoteProtocolError(
                Violation.NOT_A_MESSAGE, f"the gateway sent {line[:80]!r}: {error}"
            ) from None
        params = _Params() if message.params is UNSET else message.params
        if message.method == "cancel":
            if params.id is UNSET:
                raise _wrong(None, "cancel without params.id")
            return Cancel(params.id)
        if message.id is UNSET:
            raise _wrong(None, f"{message.method!r} without an id")
        if message.id in self._open:
            raise RemoteProtocolError(
                Violation.DUPLICATE_ID,
                f"request {message.id} came twice",
                request_id=message.id,
            )
        self._open[message.id] = False
        return _read_request(message.id, message.method, params)

    def send_ready(
        self,
        *,
        handlers: Sequence[str],
        concurrency: int = 1,
        description: str | None = None,
        metadata: JSON = b"{}",
    ) -> bytes:
        """Declare what this worker can do. Only as the first line."""
        if not self._silent:
            raise LocalProtocolError("ready is only legal as the first line")
        params: dict[str, object] = {
            "protocol": PROTOCOL_VERSION,
            "handlers": list(handlers),
            "concurrency": concurrency,
        }
        if description is not None:
            params["description"] = description
        params["metadata"] = Raw(metadata)
        return self._line({"jsonrpc": "2.0", "method": "ready", "params": params})

    def send_chunk(self, request_id: int, text: str) -> bytes:
        """One piece of the answer to `request_id`."""
        self._check_owed(request_id, "a chunk")
        line = self._line(
            {"jsonrpc": "2.0", "method": "chunk", "params": {"id": request_id, "chunk": text}}
        )
        self._open[request_id] = True
        return line

    def send_output(self, request_id: int, output: object) -> bytes:
        """The answer to an invoke: any value that msgspec can encode as JSON."""
        return self._send_result(request_id, {"output": output})

    def send_message(self, request_id: int, message: object) -> bytes:
        """The answer to a chat: an object with `role` and `content`."""
        return self._send_result(request_id, {"message": message})

    def send_end(self, request_id: int) -> bytes:
        """The end of the chunks of `request_id`."""
        self._check_owed(request_id, "an end")
        return self._answer(request_id, "result", {})

    def send_error(self, request_id: int, code: int, message: str) -> bytes:
        """Answer `request_id` with an error. Legal after chunks, too. See `ErrorCode`."""
        self._check_owed(request_id, "an error")
        return self._answer(request_id, "error", {"code": code, "message": message})

    def _send_result(self, request_id: int, result: dict[str, object]) -> bytes:
        if self._check_owed(request_id, "a result"):
            raise LocalProtocolError(f"a result for request {request_id} after chunks")
        return self._answer(request_id, "result", result)

    def _answer(self, request_id: int, key: str, value: object) -> bytes:
        line = self._line({"jsonrpc": "2.0", "id": request_id, key: value})
        del self._open[request_id]
        return line

    def _check_owed(self, request_id: int, what: str) -> bool:
        """Whether chunks were sent for it already."""
        try:
            return self._open[request_id]
        except KeyError:
            raise LocalProtocolError(
                f"{what} for request {request_id}, which is not open"
            ) from None

    def _line(self, message: dict[str, object]) -> bytes:
        """Raises LocalProtocolError for a line over the cap; the request then stays open."""
        line = _encode(message)
        if len(line) >= self._max_line_bytes:
            raise LocalProtocolError(
                f"a line of {len(line)} bytes, and the most is {self._max_line_bytes}"
            )
        self._silent = False
        return line + b"\n"


def _read_request(request_id: int, method: str, params: _Params) -> FromGateway:
    if method not in {"invoke", "chat"}:
        return Unsupported(request_id, method)
    context = bytes(params.context)
    if method == "invoke":
        if params.input is UNSET:
            raise _wrong(request_id, "invoke without params.input")
        return Invoke(request_id, bytes(params.input), params.stream, context, params.request_id)
    if params.messages is UNSET:
        raise _wrong(request_id, "chat without params.messages")
    return Chat(request_id, bytes(params.messages), params.stream, context, params.request_id)


def _wrong(request_id: int | None, message: str) -> RemoteProtocolError:
    return RemoteProtocolError(Violation.WRONG_SHAPE, message, request_id=request_id)
