"""The requests of one connection: h11 behind firm limits, in the shape that Hypercorn expects.

Stands where Hypercorn's `H11Protocol` has an `h11.Connection`. Decides what h11 gets to see, and
when: plain functions over bytes, without I/O.

- **h11 gets a head only when it is whole.** Its size and the number of its fields are checked
  before anything is parsed, whatever the pieces in which it came: h11 alone limits only what is
  incomplete, and each field costs it 2.5 µs on the event loop.
- **h11 gets nothing that belongs to a later request.** While one is being answered, what the client
  sends is kept here, up to a limit. So h11 never pauses, and whoever reads the socket can go on
  reading, which is the only way to see the client leave.
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

if TYPE_CHECKING:
    from hypercorn.typing import H11SendableEvent

    from gateway.errors import GatewayError

MAX_HEAD_BYTES = 32 * 1024
"""Of a request's line and its fields together, as nginx allows by default."""

MAX_FIELDS = 100
"""In a request's head, as Apache allows by default."""

MAX_AHEAD_BYTES = 256 * 1024
"""Kept of what a client sends while its request is being answered. A client that sends more loses
it, and its connection after the answer: those requests were never begun (RFC 9112, 9.3.2)."""

_SLICE_BYTES = 16 * 1024
"""Most that h11 gets at a time of a chunked body: the trailers that it may find in it are parsed at
once, and cannot be counted before."""

_INCOMPLETE_BYTES = 4 * 1024
"""Most of a chunk's size line or of the trailers that h11 keeps while they are incomplete."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")

_ERRORS: dict[int, type[GatewayError]] = {
    501: TransferCodingNotImplemented,
    431: RequestHeadTooLarge,
}
"""What h11 hints at besides 400."""

_NOTED = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})
"""The fields that say how a connection goes on."""


class HTTP1Requests:
    """Replaces `h11.Connection` for a server. Names and errors are h11's where not said otherwise.

    A *cycle* is one request: its head, its body, and `answering`, until the next one begins.
    """

    def __init__(self, keep_alive: bytes = b"") -> None:
        """`keep_alive` are the field lines of a response after which the connection goes on."""
        self._h11 = _new_connection()
        self._keep_alive = keep_alive
        self._unfed = b""
        self._unfed_body: float | None = None  # None: what comes next is a head
        self._ended = False
        self.answering = False
        """Whether a whole request has come, and its response is not complete."""
        self.request: h11.Request | None = None
        """The latest one, from its head to the next one's."""
        self.persistent = True
        """Whether the connection can go on after the latest request."""
        self.websocket = False
        """Whether the latest request is a WebSocket's handshake."""
        self.refusal: GatewayError | None = None
        """Why the client's bytes were refused. They are the last of the connection."""
        self.pending = False
        """Whether a cycle has begun with input that `next_event` has not been asked about."""

    @property
    def our_state(self) -> object:
        return self._h11.our_state

    @property
    def their_state(self) -> object:
        return self._h11.their_state if self.refusal is None else h11.ERROR

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        return self._h11.they_are_waiting_for_100_continue

    @property
    def trailing_data(self) -> tuple[bytes, bool]:
        return self._unfed, self._ended

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
        """Whether the latest request's client must expect interim responses."""
        return self.request is not None and self.request.http_version >= b"1.1"

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client. Unlike h11's, an empty `data` means nothing."""
        if self.answering and not self.persistent:
            return
        self._unfed = self._unfed + data if self._unfed else data
        if self.read_ahead and len(self._unfed) > MAX_AHEAD_BYTES:
            self._unfed, self.persistent = b"", False

    def receive_eof(self) -> None:
        """The client sends nothing more after what was received."""
        self._ended = True

    def next_event(self) -> h11.Event | type[h11.NEED_DATA]:
        """As h11's, but never `h11.PAUSED`: while `answering`, there is nothing to do.

        Raises h11.RemoteProtocolError; `refusal` then says why.
        """
        self.pending = False
        if self.answering:
            return h11.NEED_DATA
        try:
            if self._unfed_body is None and not self._feed(self._head_length()):
                return h11.NEED_DATA
            event = self._h11.next_event()
            while event is h11.NEED_DATA and self._feed(self._body_length()):
                event = self._h11.next_event()
            if type(event) is h11.Request:
                self._accept(event)
                self._feed(self._body_length())
        except h11.RemoteProtocolError as error:
            if self.refusal is None:
                kind = _ERRORS.get(error.error_status_hint, InvalidRequest)
                self.refusal = kind(f"this is not HTTP/1.1: {str(error)[:200]}")
            raise
        if type(event) is h11.EndOfMessage:
            self.answering = True
            self._take_surplus()
        return cast("h11.Event", event)

    def send(self, event: H11SendableEvent) -> bytes:
        """As h11's. The head of a response says that the connection goes on, unless it ends."""
        data = self._h11.send(event) or b""
        if type(event) is h11.Response and self.persistent and b"\nconnection:" not in data:
            return data[:-2] + self._keep_alive + b"\r\n"
        return data

    def start_next_cycle(self) -> None:
        """As h11's. Raises h11.LocalProtocolError if the connection is not to go on."""
        if not self.persistent:
            raise h11.LocalProtocolError("the connection ends with this request")
        if self._unfed_body == math.inf:  # h11 may still have the surplus of a chunked body
            self._h11 = _new_connection()
        else:
            self._h11.start_next_cycle()
        self.answering = False
        self._unfed_body = None
        self.pending = bool(self._unfed) or self._ended

    def _feed(self, length: int) -> bool:
        """Give h11 the next `length` bytes, or the end after the last; whether there was any."""
        if length:
            data, self._unfed = self._unfed[:length], self._unfed[length:]
            if self._unfed_body is not None:
                self._unfed_body -= length
            self._h11.receive_data(data)
        elif self._ended and not self._unfed:
            self._h11.receive_data(b"")
        elif self._ended and self._unfed_body is None:
            raise self._refuse(InvalidRequest("the request's head is not complete"))
        else:
            return False
        return True

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
        # h11 sees at the first byte that this is TLS, for one, which may never send a blank line.
        return length if end or (self._unfed[:1] < b"!" and self._unfed not in {b"", b"\r"}) else 0

    def _body_length(self) -> int:
        """How many bytes of the body h11 may get now."""
        if self._unfed_body is None or not self._unfed:
            return 0
        most = _SLICE_BYTES if self._unfed_body == math.inf else int(self._unfed_body)
        return min(len(self._unfed), most)

    def _accept(self, request: h11.Request) -> None:
        """Take note of a head that h11 has parsed, or refuse it."""
        self.request = request
        fields: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in _NOTED:
                fields[name] = fields[name] + b"," + value if name in fields else value
        chunked, length = b"transfer-encoding" in fields, fields.get(b"content-length")
        self._unfed_body = math.inf if chunked else int(length or 0)
        self.websocket = b"websocket" in _tokens(fields.get(b"upgrade"))
        # RFC 9112: 9.3 for the first two, 6.1 for a message that has two lengths. What follows a
        # handshake are frames.
        self.persistent = (
            request.http_version >= b"1.1"
            and b"close" not in _tokens(fields.get(b"connection"))
            and not (chunked and length is not None)
            and not self.websocket
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


def _tokens(value: bytes | None) -> list[bytes]:
    """The members of a list of tokens (RFC 9110, 5.6.1), in small letters."""
    return [] if value is None else [token.strip() for token in value.lower().split(b",")]


def _new_connection() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_INCOMPLETE_BYTES)
