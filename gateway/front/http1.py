"""The bytes of one HTTP/1.1 connection: h11 behind firm limits.

Plain functions over bytes, without I/O. h11 parses what is difficult to parse, chunked bodies and
any head that is not plain (`http1_head`); everything else is counting bytes, which is done here at
a fraction of the cost. `http1_response` writes the responses.

- **h11 gets a head only when it is whole.** Its size and the number of its fields are checked
  before anything is parsed, whatever the pieces in which it came: h11 alone limits only what is
  incomplete, and each field costs it 2.5 µs on the event loop.
- **h11 gets nothing that belongs to a later request.** While one is being answered, what the client
  sends is kept here, up to a limit. So whoever reads the socket can go on reading, which is the
  only way to see the client leave.
- **A chunked body is read in slices.** A chunk costs h11 10 µs and may hold one byte: what one read
  of the socket brings could keep the event loop busy for a second. After each slice there is a
  pause (`pending`), in which others have their turn.
- **Empty lines before a request are ignored** (RFC 9112, 2.2), and so is everything after the last
  request of a connection: some clients send a CRLF after a body.
- **Other versions than HTTP/1 are refused.** h11 would let them pass.

A refusal is an `h11.RemoteProtocolError`, as h11's own are; `refusal` is the error to respond with.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, cast

import h11

from gateway.errors import (
    HTTPVersionNotSupported,
    InvalidRequest,
    RequestHeadTooLarge,
    TransferCodingNotImplemented,
)
from gateway.front.http1_head import Request, read_plain_head
from gateway.front.http1_response import HTTP1Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.errors import GatewayError

MAX_HEAD_BYTES = 32 * 1024
"""Of a request's line and its fields together, as nginx allows by default."""

MAX_FIELDS = 100
"""In a request's head, as Apache allows by default."""

MAX_AHEAD_BYTES = 256 * 1024
"""Kept of what a client sends while its request is being answered. A client that sends more loses
it, and its connection after the answer: those requests were never begun (RFC 9112, 9.3.2)."""

_SLICE_BYTES = 16 * 1024
"""Most that h11 gets at a time of a chunked body, and no more than `MAX_FIELDS` lines: the trailers
that it may find in it are parsed at once, and cannot be counted before."""

_INCOMPLETE_BYTES = 4 * 1024
"""Most of a chunk's size line or of the trailers that h11 keeps while they are incomplete."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n){1,100}")
"""Before a request. With more of them, what follows is no request line."""

_ERRORS: dict[int, type[GatewayError]] = {
    501: TransferCodingNotImplemented,
    431: RequestHeadTooLarge,
}
"""What h11 hints at besides 400."""

_QUOTED = re.compile(r":? (?:bytearray\()?b['\"].*", re.DOTALL)
"""What h11 quotes of a request in its messages. It is not repeated: refusals are logged, and the
line that is wrong may be the one with the key."""

_NOTED = frozenset({b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade"})
"""The fields that say how a connection goes on."""

_END = h11.EndOfMessage()


class HTTP1Requests:
    """The bytes of one connection, from both sides.

    Events are a `Request`, the bytes of its body, and h11's for the end of either. States and
    errors are h11's.

    A *cycle* is one request: its head, its body, and `answering`, until the next one begins.
    """

    def __init__(
        self, keep_alive: bytes = b"", is_last: Callable[[], bool] = lambda: False
    ) -> None:
        """`keep_alive` are the field lines of a response after which the connection goes on.
        `is_last` is asked when a response begins: whether it is to be the last one."""
        self._keep_alive = keep_alive
        self._is_last = is_last
        self._h11: h11.Connection
        self._in_slice = False
        self._response = HTTP1Response()
        self._unfed = b""
        self._unfed_body: float | None = None  # None: what comes next is a head
        self._ended = False
        self.answering = False
        """Whether a whole request has come, and its response is not complete."""
        self.request: Request | None = None
        """The present one, once its head could be read."""
        self.fields: list[tuple[bytes, bytes]] = []
        """Those of its head."""
        self.persistent = True
        """Whether the connection can go on after the present request."""
        self.websocket = False
        """Whether the present request is a WebSocket's handshake."""
        self.refusal: GatewayError | None = None
        """Why the client's bytes were refused. They are the last of the connection."""
        self.pending = False
        """Whether there is input that `next_event` has to be asked about, or asked again."""
        self.is_waiting_for_100 = False
        """Whether the client sends no body before it is told to go on."""

    @property
    def our_state(self) -> object:
        """As h11's: `IDLE`, `SEND_RESPONSE`, `SEND_BODY`, `DONE` or `ERROR`."""
        return self._response.state

    @property
    def can_go_on(self) -> bool:
        """Whether request and response are complete, and the next request may come."""
        return self.answering and self.persistent and self._response.state is h11.DONE

    @property
    def read_ahead(self) -> bool:
        """Whether bytes of a later request are kept here until the present one is answered."""
        return bool(self._unfed) and self.answering

    @property
    def in_head(self) -> bool:
        """Whether the first bytes of a request have come, and not yet its whole head."""
        return bool(self._unfed) and self._unfed_body is None

    @property
    def can_be_probed(self) -> bool:
        """Whether the present request's client must expect interim responses."""
        return self.request is not None and self.request.http_version >= b"1.1"

    # In

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client."""
        if self.answering and not self.persistent:
            return
        self._unfed = self._unfed + data if self._unfed else data
        if self.read_ahead and len(self._unfed) > MAX_AHEAD_BYTES:
            self._unfed, self.persistent = b"", False

    def receive_eof(self) -> None:
        """The client sends nothing more after what was received."""
        self._ended = True

    def next_event(self) -> Request | bytes | h11.Event | type[h11.NEED_DATA]:
        """The next part of a request, or h11.NEED_DATA, as there is nothing to do while
        `answering`; h11.ConnectionClosed after the end of all requests. With `pending`, NEED_DATA
        is a pause: others are to have their turn before more of a chunked body is read.

        Raises h11.RemoteProtocolError; `refusal` then says why.
        """
        self.pending = False
        if self.answering:
            return h11.NEED_DATA
        event: Request | bytes | h11.Event | type[h11.NEED_DATA]
        try:
            event = self._next_head() if self._unfed_body is None else self._next_of_body()
        except h11.RemoteProtocolError as error:
            if self.refusal is None:
                kind = _ERRORS.get(error.error_status_hint, InvalidRequest)
                self.refusal = kind(f"this is not HTTP/1.1: {_QUOTED.sub('', str(error))}")
            raise
        if type(event) is h11.EndOfMessage:
            self.answering = True
            self._take_surplus()
        return event

    def start_next_cycle(self) -> None:
        """Go on to the next request."""
        assert self.can_go_on
        self._response = HTTP1Response()
        self.answering = False
        self.request, self.fields = None, []
        self._unfed_body = None
        self.pending = bool(self._unfed) or self._ended

    def _next_head(self) -> Request | h11.Event | type[h11.NEED_DATA]:
        length = self._head_length()
        if length:
            head = self._take(length)
            request = read_plain_head(head) or self._parse_head(head)
            self._accept(request)
            return request
        if not self._ended:
            return h11.NEED_DATA
        if self._unfed:
            raise self._refuse(InvalidRequest("the request's head is not complete"))
        return h11.ConnectionClosed()

    def _parse_head(self, head: bytes) -> Request:
        """Read a whole head that is not plain. Raises h11.RemoteProtocolError."""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_INCOMPLETE_BYTES)
        self._in_slice = False
        self._h11.receive_data(head)
        request = cast("h11.Request", self._h11.next_event())  # the head is whole
        return Request(request.method, request.target, request.http_version, [*request.headers])

    def _next_of_body(self) -> bytes | h11.Event | type[h11.NEED_DATA]:
        assert self._unfed_body is not None
        event: bytes | h11.Event | type[h11.NEED_DATA]
        if self._unfed_body == math.inf:
            event = self._next_of_chunks()
        elif self._unfed_body == 0:
            return _END
        elif self._unfed:
            data = self._take(min(len(self._unfed), int(self._unfed_body)))
            self._unfed_body -= len(data)
            return data
        else:
            event = h11.NEED_DATA
        if event is h11.NEED_DATA and self._ended and not self.pending:
            raise self._refuse(InvalidRequest("the request's body is not complete"))
        return event

    def _next_of_chunks(self) -> bytes | h11.Event | type[h11.NEED_DATA]:
        event = self._h11.next_event()
        if event is h11.NEED_DATA and self._unfed and not self._in_slice:
            self._in_slice = True
            self._h11.receive_data(self._take(self._slice_length()))
            event = self._h11.next_event()
        if event is h11.NEED_DATA:  # one slice after the other, with a pause in between
            self._in_slice, self.pending = False, bool(self._unfed)
        return bytes(event.data) if isinstance(event, h11.Data) else cast("h11.Event", event)

    def _slice_length(self) -> int:
        """How much of a chunked body h11 may get at once."""
        if self._unfed.count(b"\n", 0, _SLICE_BYTES) <= MAX_FIELDS:
            return _SLICE_BYTES
        *lines, _ = self._unfed[:_SLICE_BYTES].split(b"\n", MAX_FIELDS)
        return sum(map(len, lines)) + len(lines)

    def _take(self, length: int) -> bytes:
        data, self._unfed = self._unfed[:length], self._unfed[length:]
        return data

    def _head_length(self) -> int:
        """How many bytes the next request's head has; 0 while it is not complete."""
        if not self._unfed:
            return 0
        if self._unfed[0] in b"\r\n" and (empty := _EMPTY_LINES.match(self._unfed)):
            self._unfed = self._unfed[empty.end() :]
        end = _END_OF_HEAD.search(self._unfed, 0, MAX_HEAD_BYTES)
        length = end.end() if end else len(self._unfed)
        if length >= MAX_HEAD_BYTES and not end:
            raise self._refuse(
                RequestHeadTooLarge(f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
            )
        # The lines but for the empty one: the request's, and one for each field.
        if self._unfed.count(b"\n", 0, length) - bool(end) > 1 + MAX_FIELDS:
            raise self._refuse(
                RequestHeadTooLarge(f"the request has more than {MAX_FIELDS} header fields")
            )
        if end is None and self._unfed[:1] < b"!" and self._unfed not in {b"", b"\r"}:
            # TLS, for one, which may never send a blank line.
            raise self._refuse(InvalidRequest("this is not HTTP/1.1: illegal request line"))
        return length if end else 0

    def _accept(self, request: Request) -> None:
        """Take note of a head that was read, or refuse it."""
        self.request = request
        self.fields = request.fields
        self._response = HTTP1Response(request.method, request.http_version)
        noted: dict[bytes, bytes] = {}
        for name, value in self.fields:
            if name in _NOTED:
                noted[name] = noted[name] + b"," + value if name in noted else value
        chunked, length = b"transfer-encoding" in noted, noted.get(b"content-length")
        self._unfed_body = math.inf if chunked else int(length or 0)
        self.websocket = b"websocket" in _tokens(noted.get(b"upgrade"))
        is_1_1 = request.http_version >= b"1.1"
        # RFC 9112: 9.3 for the first two, 6.1 for a message that has two lengths. What follows a
        # handshake are frames.
        self.persistent = (
            is_1_1
            and b"close" not in _tokens(noted.get(b"connection"))
            and not (chunked and length is not None)
            and not self.websocket
        )
        self.is_waiting_for_100 = (
            b"expect" in noted
            and b"100-continue" in _tokens(noted[b"expect"])
            and is_1_1
            and not self._unfed
        )
        if not request.http_version.startswith(b"1."):
            # HTTP/2's preface is made to be refused as invalid (RFC 9113, 3.4).
            kind = InvalidRequest if request.method == b"PRI" else HTTPVersionNotSupported
            raise self._refuse(kind(f"HTTP/{request.http_version.decode()} is not served here"))

    def _take_surplus(self) -> None:
        """Take back what h11 was given in the slice in which a chunked body ended."""
        if not self.persistent:
            self._unfed = b""
        elif self._unfed_body == math.inf:
            self._unfed = self._h11.trailing_data[0] + self._unfed

    def _refuse(self, error: GatewayError) -> h11.RemoteProtocolError:
        self.refusal = error
        return h11.RemoteProtocolError(error.message, error_status_hint=error.status)

    # Out

    def begin_response(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head of the response to the present request."""
        last = not self.persistent or self._is_last()
        head = self._response.begin(status, fields, last=last, keep_alive=self._keep_alive)
        self.persistent = not self._response.last
        return head

    def send_data(self, data: bytes) -> bytes:
        """A part of the response's body."""
        return self._response.data(data)

    def end_response(self) -> bytes:
        """The end of the response's body."""
        return self._response.end()


def _tokens(value: bytes | None) -> list[bytes]:
    """The members of a list of tokens (RFC 9110, 5.6.1), in small letters."""
    return [] if value is None else [token.strip() for token in value.lower().split(b",")]
