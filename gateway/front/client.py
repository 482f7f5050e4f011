"""One request of a client at its transport: reading its body, and refusing it.

Owns the limits and the clock of a request's body, and responding to one whose body was not read.
Knows ASGI, and nothing of agents or of any format.
"""

from __future__ import annotations

import logging
from copy import copy
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gateway import clock
from gateway.errors import (
    GatewayError,
    InternalError,
    RequestTimeout,
    RequestTooLarge,
    ShuttingDown,
    Unauthorized,
)
from gateway.front.auth import ANONYMOUS
from gateway.front.dialect import retry_headers
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.front.dialect import RequestHead, Response
    from gateway.front.limits.permits import Permit
    from gateway.observe.observation import Observation
    from gateway.stopping import UntilStop

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    EncodeError = Callable[[GatewayError, str], Response]

log = logging.getLogger("gateway.http")

BODY_SECONDS = 60.0
"""For a whole request body: 7 MiB at 1 Mbit/s. A client that sends more slowly holds no worker."""

PREALLOCATION_FACTOR = 32
"""Preallocate at most 32 times the bytes received, whatever Content-Length claims."""

LIMIT_UNREAD = "limit_unread"
"""The key of `scope["state"]` under which a connection puts what limits how long its client may
leave a response unread: a function of seconds, infinity for no limit."""


def no_limit(seconds: float) -> None:
    """What limits it where the server cannot (`LIMIT_UNREAD`)."""
    del seconds


HAS_INPUT = "has_input"
"""The key of `scope["state"]` under which a connection puts what tells whether `receive` would
return at once: a function."""


def not_known() -> bool:
    """What tells it where the server does not (`HAS_INPUT`)."""
    return False


class ClientGoneError(Exception):
    """The client has closed the connection."""


class ClientRequest:
    """One request of a client, and the transport of its response."""

    def __init__(
        self,
        head: RequestHead,
        receive: Receive,
        send: Send,
        encode_error: EncodeError,
        *,
        limit_unread: Callable[[float], None],
        has_input: Callable[[], bool] = not_known,
        observation: Observation | None = None,
    ) -> None:
        """`observation`: what is known of the request, if it is observed."""
        self.head = head
        self.observation = observation
        self.caller = ANONYMOUS
        self.limit_unread = limit_unread
        self._send = send
        self._receive = receive
        self._has_input = has_input
        self.encode_error = encode_error
        self.permit: Permit | None = None
        """What it has taken of the limits on its caller and its agent, if there are any."""
        self._body_read = False
        self._head_sent = False

    def log(self, level: int, message: str, **fields: object) -> None:
        names = {"request": self.head.request_id, "key": self.head.owner or None}
        logs.event(log, level, message, **names, **fields)

    def log_error(self, error: GatewayError) -> None:
        if self.observation is not None:
            # A copy, which has no traceback: its frames hold this request, and with the observation
            # that would be a cycle, in which the request's body waited for the garbage collector.
            self.observation.error = copy(error)
        if isinstance(error, Unauthorized):
            return  # `auth` has, sparingly
        self.log(
            logging.ERROR if isinstance(error, InternalError) else logging.INFO,
            f"{error.status} {error.type}: {error.message}",
            clock=error.details.get("clock"),
            elapsed=error.details.get("elapsed"),
        )

    # In

    async def read_body(
        self, most: float, until_stop: UntilStop, *, setting: str | None = None
    ) -> bytes:
        """Read the whole body, of at most `most` bytes, as the setting with the path `setting` has
        it.

        Raises RequestTooLarge, RequestTimeout, ShuttingDown and ClientGoneError.
        """
        if self.head.content_length > most:
            raise RequestTooLarge.beyond(most, setting)
        first = b""
        if self._has_input():
            # Most bodies come together with their heads: without a wait there is nothing to bound,
            # and nothing to put together.
            first = await self._read_piece(0, most, setting)
            if self._body_read:
                return first
        body = BytesIO()
        self._append(body, first)
        del first
        await self._read_in_time(body, most, setting, until_stop)
        body.truncate()
        return body.getvalue()

    async def _read_in_time(
        self, body: BytesIO, most: float, setting: str | None, until_stop: UntilStop
    ) -> None:
        """Append to `body` what comes, until the end of the request or of the time for it."""
        until = clock.now() + BODY_SECONDS
        while not self._body_read:
            with until_stop.scope(clock.as_deadline(until)) as scope:
                while not self._body_read:
                    self._append(body, await self._read_piece(body.tell(), most, setting))
            if scope.cancelled_caught and until_stop.stopped:
                raise ShuttingDown("the gateway is shutting down")
            if not self._body_read and clock.now() >= until:
                raise RequestTimeout(f"the request's body was not sent within {BODY_SECONDS:g} s")

    async def _read_piece(self, size: int, most: float, setting: str | None) -> bytes:
        """Read the next piece, after `size` bytes."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._note_gone()
            raise ClientGoneError
        piece: bytes = message["body"]
        if self.observation is not None:
            self.observation.bytes_in += len(piece)
        size += len(piece)
        if size > most:
            raise RequestTooLarge.beyond(most, setting)
        # The end may come in a message of its own, which need not be waited for if the length was
        # given.
        self._body_read = not message["more_body"] or size == self.head.content_length
        return piece

    def _append(self, body: BytesIO, piece: bytes) -> None:
        length = self.head.content_length
        if len(piece) < length and not body.tell():
            # A buffer that grows piece by piece is copied each time.
            _preallocate(body, min(length, PREALLOCATION_FACTOR * len(piece)))
        body.write(piece)

    async def wait_gone(self) -> None:
        """Return when the client has closed the connection. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._note_gone()

    def _note_gone(self) -> None:
        # Nobody looks for the client's end once the last part of a response is sent.
        if self.observation is not None:
            self.observation.client_left = True

    # Out

    async def send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a response's head; the request's id is added to `headers`, and what is left of its
        limits."""
        self._head_sent = True
        if self.permit is not None:
            headers += self.permit.fields()
        headers.append((b"x-request-id", self.head.request_id.encode()))
        if self.observation is not None:
            self.observation.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def send_part(self, data: bytes, *, last: bool) -> Awaitable[None]:
        """Send a part of a response's body, which is to be awaited."""
        if self.observation is not None:
            self.observation.note_sent(data)
        return self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def respond_error(self, error: GatewayError) -> None:
        """Send an error response, unless the head of another response was sent."""
        self.log_error(error)
        if not self._head_sent:
            response = self.encode_error(error, self.head.request_id)
            more = retry_headers(error, handed_over=False)
            await self.respond(response._replace(headers=[*response.headers, *more]))

    async def respond(self, response: Response) -> None:
        """Send a whole response. It is the last one of its connection if the request's body was not
        read."""
        headers = headers_of(response)
        if self.head.has_body and not self._body_read:
            headers.append((b"connection", b"close"))
        await self.send_head(response.status, headers)
        await self.send_part(response.body, last=True)


def _preallocate(buffer: BytesIO, size: int) -> None:
    if size > 0:
        buffer.seek(size - 1)
        buffer.write(b"\0")
        buffer.seek(0)


def headers_of(response: Response) -> list[tuple[bytes, bytes]]:
    """The headers of a whole response, in a new list."""
    if response.status == 204:  # has no Content-Length (RFC 9110, 8.6)
        return [*response.headers]
    return [*response.headers, (b"content-length", b"%d" % len(response.body))]
