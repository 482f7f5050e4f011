"""From an exchange to its response: the way back of a call.

Owns the two clocks of a client (it leaves, or it does not read), and when the head of a response
is sent: not before the first chunk, the end or the first keep-alive, so that a failure before that
has a status of its own. What the bytes are is the codec's decision.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from gateway import clock
from gateway.errors import ClockRanOut, GatewayError
from gateway.front.client import ClientGoneError, headers_of
from gateway.front.dialect import retry_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.exchange import Exchange
    from gateway.front.client import ClientRequest
    from gateway.front.dialect import Codec, StreamEncoder

KEEP_ALIVE_SECONDS = 15.0
"""Of silence before a stream says that it lives: below the idle timeouts of common proxies (30 to
60 s)."""

UNWATCHED_SECONDS = 0.05
"""An answer that comes within this time is not worth a task that watches whether its client leaves:
the task costs a tenth of a short request, and the client cannot tell the difference."""


_TURNS_TO_GO_ON = 2
"""Turns of the event loop in which a send that the client has made room for goes on."""


class Reply:
    """The response to one exchange."""

    def __init__(self, request: ClientRequest, codec: Codec, exchange: Exchange) -> None:
        self.client_gone = False
        self._given_up = False  # the client does not read, which was logged
        self._request = request
        self._codec = codec
        self._exchange = exchange
        self._write_scope: trio.CancelScope | None = None
        self._writing_since = math.inf

    async def send(self, give_up: Callable[[], None]) -> None:
        """Wait for the agent's answer and send it, as one response or as a stream.

        `give_up` is called when the client does not read. Raises ClientGoneError.
        """
        self._request.limit_unread(self._exchange.write_seconds)
        answering = self._stream if self._exchange.call.stream else self._collect
        if await self._exchange.ends_within(UNWATCHED_SECONDS):
            body = await answering()
        else:
            body = await self._watched(answering, give_up)
        # When the last part is sent, Hypercorn says that the client is gone before it has ended the
        # response, and that must not be cancelled: nobody watches the client any more.
        await self._request.send({"type": "http.response.body", "body": body, "more_body": False})

    async def _watched(
        self, answering: Callable[[], Awaitable[bytes]], give_up: Callable[[], None]
    ) -> bytes:
        """Do `answering` for as long as the client is there. Raises ClientGoneError."""
        body = b""
        # Made here and not by the watcher: the first part may be sent before that has begun.
        self._write_scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_client, give_up, nursery.cancel_scope)
            body = await answering()
            nursery.cancel_scope.cancel()
        if self.client_gone:
            raise ClientGoneError
        return body

    async def _watch_client(self, give_up: Callable[[], None], answering: trio.CancelScope) -> None:
        """Notice that the client goes away, or that it does not read."""
        assert self._write_scope is not None
        while True:
            with self._write_scope:
                await self._request.wait_gone()
                self.client_gone = True
                answering.cancel()
                return
            if await self._is_too_slow():
                break
            until = self._writing_since + self._exchange.write_seconds
            self._write_scope = trio.CancelScope(deadline=clock.as_deadline(until))
        # The send itself is shielded, and ends when TCP_USER_TIMEOUT does; the worker is freed now.
        self._given_up = True
        elapsed = clock.now() - self._writing_since
        error = ClockRanOut("write", elapsed, self._exchange.write_seconds)
        self._request.log_error(error)
        self._exchange.fail(error)
        give_up()

    async def _is_too_slow(self) -> bool:
        """Whether the `write` clock has run out, once what the client has read is known."""
        # After the process stood still, the deadline passes before the send can go on.
        for _ in range(_TURNS_TO_GO_ON):
            await trio.lowlevel.checkpoint()
        return clock.now() >= self._writing_since + self._exchange.write_seconds

    async def _collect(self) -> bytes:
        """Wait for the end and send the head of the one response, whose body is returned."""
        chunks = await self._exchange.collect()
        if self._exchange.error is not None:
            return await self._fail(self._exchange.error)
        try:
            response = self._codec.encode(self._exchange, chunks)
        except GatewayError as error:
            return await self._fail(error)
        self._exchange.forget_answer()
        await self._request.send_head(
            response.status, [*headers_of(response), *_session_header(self._exchange)]
        )
        return response.body

    async def _stream(self) -> bytes:
        """Send the stream but for its last part, which is returned."""
        exchange = self._exchange
        encoder = self._codec.stream(exchange)
        data = await self._next_part(encoder)
        if exchange.error is not None and not data:
            return await self._fail(exchange.error)
        await self._request.send_head(200, [*encoder.headers, *_session_header(exchange)])
        while not exchange.drained:
            await self._send_part(data)
            data = await self._next_part(encoder)
        if data and exchange.result is not None:
            await self._send_part(data)  # not to be held beside the result, which may be as large
            data = b""
        if exchange.error is not None:
            if not self._given_up:
                self._request.log_error(exchange.error)
            return data + encoder.error(exchange.error)
        data += encoder.end(exchange.result)
        exchange.forget_answer()
        return data

    async def _next_part(self, encoder: StreamEncoder) -> bytes:
        """Wait for what to send next: chunks, a keep-alive after a silence, nothing at the end."""
        chunks = await self._exchange.receive(patience=KEEP_ALIVE_SECONDS)
        if chunks:
            return encoder.chunks(chunks)
        return b"" if self._exchange.ended else encoder.keep_alive()

    async def _send_part(self, data: bytes) -> None:
        if self._write_scope is not None:
            self._writing_since = clock.now()
            until = self._writing_since + self._exchange.write_seconds
            self._write_scope.deadline = clock.as_deadline(until)
        await self._request.send({"type": "http.response.body", "body": data, "more_body": True})
        if self._write_scope is not None:
            self._writing_since = self._write_scope.deadline = math.inf

    async def _fail(self, error: GatewayError) -> bytes:
        """Send the head of an error response, whose body is returned."""
        self._request.log_error(error)
        response = self._codec.encode_error(
            error, self._request.head.request_id, self._exchange.output_begun
        )
        retry = retry_headers(error, handed_over=self._exchange.handed_over)
        await self._request.send_head(response.status, [*headers_of(response), *retry])
        return response.body


def _session_header(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """Whether the worker that answers still has what the conversation built up."""
    if exchange.session is None:
        return []
    return [(b"x-agent-session", exchange.session.encode())]
