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

    from gateway.exchange import Exchange, Session
    from gateway.front.client import ClientRequest
    from gateway.front.dialect import Codec, Response, StreamEncoder

KEEP_ALIVE_SECONDS = 15.0
"""Of silence before a stream says that it lives: below the idle timeouts of common proxies (30 to
60 s)."""

UNWATCHED_SECONDS = 0.05
"""An answer that comes within this time is not worth a task that watches whether its client leaves:
the task costs a tenth of a short request, and the client cannot tell the difference."""


_TURNS_TO_GO_ON = 2
"""Turns of the event loop in which a send that the client has made room for goes on."""


class Delivery:
    """The sending of one response, while its client is watched."""

    def __init__(self, request: ClientRequest, write_seconds: float) -> None:
        self.client_gone = False
        self.given_up = False
        """Whether the client does not read, which was logged."""
        self.request = request
        self._write_seconds = write_seconds
        self._write_scope: trio.CancelScope | None = None
        self._writing_since = math.inf
        request.limit_unread(write_seconds)

    async def watched(
        self, answering: Callable[[], Awaitable[bytes]], give_up: Callable[[GatewayError], None]
    ) -> bytes:
        """Do `answering`, which returns the last part, for as long as the client is there.

        `give_up` is called when the client does not read. Raises ClientGoneError, and GatewayError
        as `answering` does.
        """
        body = b""
        failed: GatewayError | None = None
        # Made here and not by the watcher: the first part may be sent before that has begun.
        self._write_scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_client, give_up, nursery.cancel_scope)
            try:
                body = await answering()
            except GatewayError as error:
                failed = error  # what a nursery raises is a group, which nobody answers
            nursery.cancel_scope.cancel()
        if self.client_gone:
            raise ClientGoneError
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # its traceback holds this frame, and with it the answer
        return body

    async def _watch_client(
        self, give_up: Callable[[GatewayError], None], answering: trio.CancelScope
    ) -> None:
        """Notice that the client goes away, or that it does not read."""
        assert self._write_scope is not None
        while True:
            with self._write_scope:
                await self.request.wait_gone()
                self.client_gone = True
                answering.cancel()
                return
            if await self._is_too_slow():
                break
            self._write_scope = trio.CancelScope(deadline=self._write_deadline())
        # The send itself is shielded, and ends when TCP_USER_TIMEOUT does; the worker is freed now.
        self.given_up = True
        elapsed = clock.now() - self._writing_since
        error = ClockRanOut("write", elapsed, self._write_seconds)
        self.request.log_error(error)
        give_up(error)

    def _write_deadline(self) -> float:
        """When the `write` clock of the part that is being sent runs out, on trio's clock."""
        return clock.as_deadline(self._writing_since + self._write_seconds)

    async def _is_too_slow(self) -> bool:
        """Whether the `write` clock has run out, once what the client has read is known."""
        # After the process stood still, the deadline passes before the send can go on.
        for _ in range(_TURNS_TO_GO_ON):
            await trio.lowlevel.checkpoint()
        return clock.now() >= self._writing_since + self._write_seconds

    async def send_part(self, data: bytes) -> None:
        """Send a part that is not the last."""
        if self._write_scope is not None:
            self._writing_since = clock.now()
            if self._write_scope.deadline == math.inf:
                self._write_scope.deadline = self._write_deadline()
        await self.request.send_part(data, last=False)
        # The watcher's deadline stays, as most parts are sent at once and are many: to move it
        # twice for each would cost more than a look in vain when it has passed.
        self._writing_since = math.inf

    async def send_last(self, data: bytes) -> None:
        """Send the last part. Not while the client is watched: Hypercorn then says that the client
        is gone before it has ended the response, and that must not be cancelled."""
        await self.request.send_part(data, last=True)


class Reply(Delivery):
    """The response to one exchange."""

    def __init__(self, request: ClientRequest, codec: Codec, exchange: Exchange) -> None:
        super().__init__(request, exchange.write_seconds)
        self._codec = codec
        self._exchange = exchange

    async def send(self, give_up: Callable[[], None]) -> None:
        """Wait for the agent's answer and send it, as one response or as a stream.

        `give_up` is called when the client does not read. Raises ClientGoneError.
        """

        def fail(error: GatewayError) -> None:
            self._exchange.fail(error)
            give_up()

        answering = self._stream if self._exchange.call.stream else self._collect
        if await self._exchange.ends_within(UNWATCHED_SECONDS):
            body = await answering()
        else:
            body = await self.watched(answering, fail)
        await self.send_last(body)

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
        await self.request.send_head(
            response.status, [*headers_of(response), *session_header(self._exchange.session)]
        )
        return response.body

    async def _stream(self) -> bytes:
        """Send the stream but for its last part, which is returned."""
        exchange = self._exchange
        encoder = self._codec.stream(exchange)
        data = await self._next_part(encoder)
        if exchange.error is not None and not data:
            return await self._fail(exchange.error)
        await self.request.send_head(200, [*encoder.headers, *session_header(exchange.session)])
        while not exchange.drained:
            await self.send_part(data)
            data = await self._next_part(encoder)
        if data and exchange.result is not None:
            await self.send_part(data)  # not to be held beside the result, which may be as large
            data = b""
        if exchange.error is not None:
            if not self.given_up:
                self.request.log_error(exchange.error)
            return data + encoder.error(exchange.error)
        data += encoder.end(exchange.result)
        exchange.forget_answer()
        if encoder.failure is not None:
            self.request.log_error(encoder.failure)
        return data

    async def _next_part(self, encoder: StreamEncoder) -> bytes:
        """Wait for what to send next: chunks, a keep-alive after a silence, nothing at the end."""
        chunks = await self._exchange.receive(patience=KEEP_ALIVE_SECONDS)
        if chunks:
            return encoder.chunks(chunks)
        return b"" if self._exchange.ended else encoder.keep_alive()

    async def _fail(self, error: GatewayError) -> bytes:
        """Send the head of an error response, whose body is returned."""
        self.request.log_error(error)
        response = failure(self._codec, self._exchange, error, self.request.head.request_id)
        await self.request.send_head(response.status, headers_of(response))
        return response.body


def failure(codec: Codec, exchange: Exchange, error: GatewayError, request_id: str) -> Response:
    """The error response to an exchange of which the client has got nothing yet."""
    response = codec.encode_error(error, request_id, exchange.output_begun)
    retry = retry_headers(error, handed_over=exchange.handed_over)
    return response._replace(headers=[*response.headers, *retry])


def session_header(session: Session | None) -> list[tuple[bytes, bytes]]:
    """Whether the worker that answers still has what the conversation built up."""
    return [] if session is None else [(b"x-agent-session", session.encode())]
