"""The two hot routes, `POST /agent/{name}/invoke` and `/chat`, as an ASGI application of their own.

They stand in front of the Quart application, as ASGI middleware does, and take their requests
before it: what Quart does per request is not needed for them, and costs more than all that is done
here. Everything else goes on to Quart.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import trio

from gateway.errors import (
    ClockRanOut,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    RequestTooLarge,
)
from gateway.front.native import sse
from gateway.front.native.body import RequestHead, check_media_type, read_call, read_head
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.exchange import Exchange
    from protocol import Method

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

log = logging.getLogger("gateway.http")

BODY_SECONDS = 60.0
"""For a whole request body: 7 MiB at 1 Mbit/s. A client that sends more slowly holds nothing."""

PREPARED = 32
"""Times as much memory as has come of a body may be taken for the rest, on its sender's word."""

DISCARD_SECONDS = 5.0
"""How long the rest of a body that is too large is read and thrown away, so that the client can
finish sending, and reads the answer instead of a reset."""


UNWATCHED_SECONDS = 0.05
"""An answer that comes within this time is not worth a task that watches whether its client leaves:
that costs as much as a tenth of a short request, and the client cannot tell."""


class ClientGoneError(Exception):
    """The client has closed the connection."""


class AgentRoutes:
    """ASGI middleware; `inner` gets what is not for it."""

    def __init__(self, inner: ASGIApp, dispatcher: Dispatcher, *, max_body: int) -> None:
        self._inner = inner
        self._dispatcher = dispatcher
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            request = _Request(read_head(scope["headers"]), receive, partial(_refuse, send))
            await request.respond_error(NotFound("there is no WebSocket here"))
            return
        target = _target(scope["path"]) if scope["type"] == "http" else None
        if target is None:
            await self._inner(scope, receive, send)
            return
        request = _Request(read_head(scope["headers"]), receive, send)
        try:
            await self._handle(request, scope["method"], *target)
        except GatewayError as error:
            await request.respond_error(error)
        except ClientGoneError:
            request.log(logging.DEBUG, "client disconnected")
        except Exception:  # the boundary: a defect of ours is logged, and answered
            log.exception("internal error", extra={"fields": {"request": request.head.request_id}})
            await request.respond_error(InternalError("a defect of the gateway; see its log"))

    async def _handle(self, request: _Request, method: str, agent: str, kind: Method) -> None:
        if method != "POST":
            raise MethodNotAllowed(f"{method} is not supported here; use POST", allow="POST")
        self._dispatcher.agent(agent)
        check_media_type(request.head)
        # Without names for the body and the call: they would be held until the end of the answer.
        exchange = self._dispatcher.submit(
            read_call(agent, kind, request.head, await request.read_body(self._max_body))
        )
        try:
            await request.answer(exchange, partial(self._dispatcher.leave, exchange))
        finally:
            self._dispatcher.leave(exchange, disconnected=request.client_gone)


class _Request:
    """One request on one of the hot routes, and its response."""

    def __init__(self, head: RequestHead, receive: Receive, send: Send) -> None:
        self.head = head
        self.client_gone = False
        self._receive = receive
        self._send = send
        self._head_sent = False
        self._body_read = False
        self._write_scope: trio.CancelScope | None = None
        self._writing_since = math.inf

    def log(self, level: int, message: str, **fields: object) -> None:
        logs.event(log, level, message, request=self.head.request_id, **fields)

    async def read_body(self, most: int) -> bytes:
        """The whole body. Raises RequestTooLarge, RequestTimeout and ClientGoneError."""
        if self.head.content_length > most:
            raise RequestTooLarge(f"the body is larger than {most} bytes")
        body = BytesIO()
        with trio.move_on_after(BODY_SECONDS):
            while not self._body_read:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message["body"]
                if not body.tell():
                    # Of its length from the start: what grows piece by piece is moved each time.
                    body = BytesIO(bytes(min(self.head.content_length, PREPARED * len(part))))
                body.write(part)
                size = body.tell()
                if size > most:
                    raise RequestTooLarge(f"the body is larger than {most} bytes")
                # The end comes in a message of its own, which need not be waited for if the length
                # was given (Hypercorn ends a request that is shorter).
                self._body_read = not message["more_body"] or size == self.head.content_length
            body.truncate()
            return body.getvalue()
        raise RequestTimeout(f"the request's body was not sent within {BODY_SECONDS:g} s")

    async def answer(self, exchange: Exchange, give_up: Callable[[], None]) -> None:
        """Wait for the agent's answer and send it, as one JSON or as a stream.

        `give_up` is called when the client does not read. Raises the GatewayError that the exchange
        ended with, unless the head was sent before, and ClientGoneError.
        """
        answering = self._stream if exchange.call.stream else self._collect
        if await exchange.ends_within(UNWATCHED_SECONDS):
            body = await answering(exchange)
        else:
            body = await self._watched(answering, exchange, give_up)
        # When the last part is sent, Hypercorn says that the client is gone before it has ended the
        # response, and that must not be cancelled: nobody watches the client any more.
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _watched(
        self,
        answering: Callable[[Exchange], Awaitable[bytes]],
        exchange: Exchange,
        give_up: Callable[[], None],
    ) -> bytes:
        """Do `answering` for as long as the client is there. Raises as `answer` does."""
        body, failure = b"", None
        # Made here and not by the watcher: the first part may be sent before that has begun.
        self._write_scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_client, exchange, give_up, nursery.cancel_scope)
            try:
                body = await answering(exchange)
            except GatewayError as error:
                failure = error  # raised below: out of a nursery it would come in a group
            nursery.cancel_scope.cancel()
        if self.client_gone:
            raise ClientGoneError
        if failure is not None:
            raise failure
        return body

    async def _collect(self, exchange: Exchange) -> bytes:
        """Wait for the whole answer and send the head; the body is returned."""
        chunks = await exchange.collect()
        body = sse.as_body(exchange.call.method, exchange.result, chunks)
        await self._send_head(200, [*_json_headers(body), *_session_header(exchange)])
        return body

    async def _stream(self, exchange: Exchange) -> bytes:
        """Send the stream but for its last part, which is returned."""
        # Nothing is sent before the agent's first word, so that a failure has its own status.
        data = await _next_part(exchange)
        await self._send_head(200, [*sse.HEADERS, *_session_header(exchange)])
        try:
            while not exchange.drained:
                await self._send_part(data, exchange)
                data = await _next_part(exchange)
            if exchange.result is not None:
                data = sse.encode_chunks([sse.as_chunk(exchange.call.method, exchange.result)])
            data += sse.DONE
        except GatewayError as error:
            self._log_error(error)
            data = sse.encode_error(error.body(self.head.request_id))
        return data

    async def _watch_client(
        self, exchange: Exchange, give_up: Callable[[], None], answering: trio.CancelScope
    ) -> None:
        """Notice that the client goes away, or that it does not read."""
        assert self._write_scope is not None
        with self._write_scope:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self.client_gone = True
            answering.cancel()
            return
        # Sending is shielded and ends when TCP_USER_TIMEOUT does; the worker is freed now.
        limit = exchange.write_seconds
        elapsed = trio.current_time() - self._writing_since
        error = ClockRanOut("write", elapsed, limit)
        self._log_error(error)
        exchange.fail(error)
        give_up()

    async def respond_error(self, error: GatewayError) -> None:
        """Send an error response, unless the head of another was sent."""
        self._log_error(error)
        if self._head_sent:
            return
        body = error.body(self.head.request_id)
        headers = [(b"cache-control", b"no-store"), *error.headers()]
        if self._body_read or not self.head.has_body:
            await self._respond(error.status, body, headers)
        else:
            await self._respond_early(error.status, body, [*headers, (b"connection", b"close")])

    async def _respond_early(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Respond to a request whose body has not been read.

        The reader of the connection waits until the body is received here, and ending the response
        waits for the reader: so the body is received, and thrown away, meanwhile.
        """
        everything = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_discard_body, self._receive, everything)
            await self._send_head(status, [*_json_headers(body), *headers])
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            with trio.move_on_after(DISCARD_SECONDS):
                await everything.wait()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send_head(status, [*_json_headers(body), *headers])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        headers.append((b"x-request-id", self.head.request_id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _send_part(self, data: bytes, exchange: Exchange) -> None:
        if self._write_scope is not None:
            self._writing_since = trio.current_time()
            self._write_scope.deadline = self._writing_since + exchange.write_seconds
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if self._write_scope is not None:
            self._write_scope.deadline = math.inf

    def _log_error(self, error: GatewayError) -> None:
        level = logging.ERROR if isinstance(error, InternalError) else logging.INFO
        self.log(
            level,
            f"{error.status} {error.type}: {error.message}",
            clock=error.details.get("clock"),
            elapsed=error.details.get("elapsed"),
        )


def _target(path: str) -> tuple[str, Method] | None:
    """The agent and the handler that a path names, if it is one of the hot routes."""
    root, _, rest = path.removeprefix("/").partition("/")
    name, _, kind = rest.partition("/")
    if root not in {"agent", "agents"}:
        return None
    match kind:
        case "invoke" | "chat":
            return name, kind
    return None


async def _next_part(exchange: Exchange) -> bytes:
    """What to send next: events, a comment after a silence, or nothing at the end."""
    chunks = await exchange.receive(patience=sse.KEEP_ALIVE_SECONDS)
    if chunks:
        return sse.encode_chunks(chunks)
    return b"" if exchange.ended else sse.KEEP_ALIVE


async def _refuse(send: Send, message: Message) -> None:
    """Send what is HTTP's as the response to a WebSocket's handshake (ASGI, "Denial Response")."""
    await send({**message, "type": f"websocket.{message['type']}"})


async def _discard_body(receive: Receive, everything: trio.Event) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message["more_body"]:
            everything.set()


def _json_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]


def _session_header(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """Whether the worker that answers still has what the conversation built up."""
    if exchange.session is None:
        return []
    return [(b"x-agent-session", exchange.session.encode())]
