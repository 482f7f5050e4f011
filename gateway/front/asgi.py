"""What Hypercorn brings to a connection, adapted: its protocol, and how an application is called.

`connections` says how these work together. Nothing here reads or writes a socket.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import h11
import trio
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup

from gateway.errors import InternalError
from gateway.front.dialect import retry_headers
from gateway.front.head import read_head
from gateway.front.native.errors import encode_error
from gateway.front.target import SENT_METHOD, WEBSOCKET
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from hypercorn.config import Config

    from gateway.errors import GatewayError
    from gateway.front.http1 import HTTP1Requests

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Of a head, names in lower case."""

log = logging.getLogger("gateway.http")


class HTTP1Protocol(H11Protocol):
    """Hypercorn's protocol, limited to HTTP/1.1 without encryption, and to `requests`."""

    def __init__(self, requests: HTTP1Requests, *arguments: Any) -> None:
        """The further `arguments` are Hypercorn's."""
        super().__init__(*arguments)
        self._requests = requests
        self.connection = requests  # type: ignore[assignment]  # has what Hypercorn uses of h11's

    async def _create_stream(self, request: h11.Request) -> None:
        # Hypercorn hands the method on in upper case, but it is case-sensitive (RFC 9110, 9.1).
        self.connection_state[SENT_METHOD] = request.method.decode("ascii")
        self.connection_state[WEBSOCKET] = self._requests.websocket
        if self._requests.websocket:
            request = _without_upgrade(request)
        await super()._create_stream(request)

    async def _check_protocol(self, event: object) -> None:
        """Ignore an offer to upgrade to HTTP/2."""

    async def _send_error_response(self, status_code: int) -> None:
        """Respond to what `http1` has refused."""
        request, error = self._requests.request, self._requests.refusal
        assert error is not None
        headers, body = _respond_to(error, [] if request is None else request.headers)
        headers += [(b"connection", b"close"), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=error.status, headers=headers))
        if request is None or request.method != b"HEAD":
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _without_upgrade(request: h11.Request) -> h11.Request:
    """What a server makes of an offer that it ignores (RFC 9110, 7.8). Hypercorn would take it."""
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[(name, value) for name, value in request.headers if name != b"upgrade"],
        http_version=request.http_version,
    )


class Tasks(TaskGroup):
    """Hypercorn's tasks of one connection, with its applications.

    `flush` writes what the connection has to send; `fields` are the header fields that say whether
    it goes on after a response.
    """

    def __init__(self, flush: Callable[[], Awaitable[None]], fields: Callable[[], Fields]) -> None:
        super().__init__()
        self._flush = flush
        self._fields = fields

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request; returns the function that queues its input."""
        application = Application(send, self._flush, self._fields, config.max_app_queue_size)
        self.spawn(application.run, app, scope)
        return application.put


class Application:
    """One call of the ASGI application, and the queue of its input.

    The queue holds at most `most` messages; when it is closed, the client has left.
    """

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
        fields: Callable[[], Fields],
        most: int,
    ) -> None:
        self._send = send
        self._flush = flush
        self._fields = fields
        self._to_app, self._from_client = trio.open_memory_channel[Any](most)
        self._begun = False

    async def run(self, app: Any, scope: Any) -> None:
        try:
            await app(scope, self.receive, self.send, trio.to_thread.run_sync, trio.from_thread.run)
        except* Exception:  # the boundary: a defect ends the request that met it
            log.exception("internal error")
            await self._respond_to_defect(scope)
        finally:
            await self._send(None)
            await self._flush()

    async def put(self, message: Any) -> None:
        """Queue a message for the application; waits while the queue is full."""
        if message["type"] == "http.disconnect":
            self._to_app.close()
            return
        try:
            self._to_app.send_nowait(message)
        except trio.WouldBlock:
            with suppress(trio.ClosedResourceError):  # the request has ended meanwhile
                await self._to_app.send(message)

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            return self._from_client.receive_nowait()
        try:
            return await self._from_client.receive()
        except trio.EndOfChannel:
            await trio.lowlevel.checkpoint()  # an application may go on asking
            return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if message["type"] == "http.response.start":
            self._begun = True
            headers = list(message.get("headers", ()))
            if not any(name == b"connection" for name, _ in headers):
                headers += self._fields()
            await self._send({**message, "headers": headers})
        else:
            await self._send(message)
            await self._flush()

    async def _respond_to_defect(self, scope: Any) -> None:
        if self._begun:
            return
        error = InternalError("a defect of the gateway; see its log")
        headers, body = _respond_to(error, scope["headers"])
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def _respond_to(
    error: GatewayError, request_headers: Iterable[tuple[bytes, bytes]]
) -> tuple[Fields, bytes]:
    """Log an error; returns the fields and the body of the response to it."""
    request_id = read_head(request_headers).request_id
    logs.event(
        log, logging.INFO, f"{error.status} {error.type}: {error.message}", request=request_id
    )
    response = encode_error(error, request_id)
    fields = [
        *response.headers,
        *retry_headers(error, handed_over=False),
        (b"content-length", b"%d" % len(response.body)),
        (b"x-request-id", request_id.encode()),
    ]
    return fields, response.body
