"""Calls to agents over HTTP, as an ASGI application of its own.

Decides which dialect a path belongs to, and takes a call from its request to its exchange; `client`
reads and refuses requests, `answers` sends the way back. Knows no format: see `dialect`. A request
that belongs to no dialect is refused in the native one.

Calls are taken before the Quart application, as ASGI middleware takes requests: they need nothing
of what Quart does for each request, which costs more than everything done here.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError, InternalError, MethodNotAllowed, NotFound
from gateway.front.answers import Answer
from gateway.front.client import ClientGoneError, ClientRequest
from gateway.front.head import check_media_type, read_head
from gateway.front.native.errors import encode_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.client import Message, Receive, Send
    from gateway.front.dialect import Codec, Dialect

    ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

log = logging.getLogger("gateway.http")


class CallRoutes:
    """ASGI middleware. `inner` gets every request that no dialect matches."""

    def __init__(
        self,
        inner: ASGIApp,
        dispatcher: Dispatcher,
        dialects: tuple[Dialect, ...],
        *,
        max_body: int,
    ) -> None:
        self._inner = inner
        self._dispatcher = dispatcher
        self._dialects = dialects
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            refuse = partial(_deny_websocket, send)
            request = ClientRequest(read_head(scope["headers"]), receive, refuse, encode_error)
            await request.respond_error(NotFound("there is no WebSocket here"))
            return
        codec = self._match(scope["path"]) if scope["type"] == "http" else None
        if codec is None:
            await self._inner(scope, receive, send)
            return
        request = ClientRequest(read_head(scope["headers"]), receive, send, codec.encode_error)
        try:
            await self._call(request, scope["method"], codec)
        except GatewayError as error:
            await request.respond_error(error)
        except ClientGoneError:
            request.log(logging.DEBUG, "client disconnected")
        except Exception:  # the boundary: a defect of ours is logged, and answered
            log.exception("internal error", extra={"fields": {"request": request.head.request_id}})
            await request.respond_error(InternalError("a defect of the gateway; see its log"))

    def _match(self, path: str) -> Codec | None:
        for dialect in self._dialects:
            codec = dialect.match(path)
            if codec is not None:
                return codec
        return None

    async def _call(self, request: ClientRequest, method: str, codec: Codec) -> None:
        """Raises GatewayError before there is an exchange, and ClientGoneError at any time."""
        if method != "POST":
            raise MethodNotAllowed(f"{method} is not supported here; use POST", allow="POST")
        if codec.agent is not None:
            self._dispatcher.agent(codec.agent)
        check_media_type(request.head)
        # Neither the body nor the call has a name here: it would be held until the response ends.
        exchange = self._dispatcher.submit(
            codec.decode(request.head, await request.read_body(self._max_body))
        )
        answer = Answer(request, codec, exchange)
        try:
            await answer.send(give_up=partial(self._dispatcher.leave, exchange))
        finally:
            self._dispatcher.leave(exchange, disconnected=answer.client_gone)


async def _deny_websocket(send: Send, message: Message) -> None:
    """Send a part of an HTTP response to a WebSocket handshake (ASGI, "Denial Response")."""
    await send({**message, "type": f"websocket.{message['type']}"})
