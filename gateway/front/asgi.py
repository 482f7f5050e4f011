"""What Hypercorn brings to a connection, adapted: its protocol, and how an application is called.

`connections` says how these work together. Nothing here reads or writes a socket.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

import h11
import trio
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext

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


_NEVER_DRAINS = WorkerContext(None)


class HTTP1Protocol(H11Protocol):
    """Hypercorn's protocol, limited to HTTP/1.1 without encryption, and to `requests`."""

    def __init__(self, requests: HTTP1Requests, *arguments: Any) -> None:
        """The further `arguments` are Hypercorn's."""
        super().__init__(*arguments)
        # Hypercorn closes a connection after the response that was under way when the gateway began
        # to drain. Its head had said that the connection is kept: only what `Application.send` and
        # h11 say in a head ends one.
        self.context = _NEVER_DRAINS
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

    `flush` writes what the connection has to send; `last` is whether it ends with the response that
    begins.
    """

    def __init__(self, flush: Callable[[], Awaitable[None]], last: Callable[[], bool]) -> None:
        super().__init__()
        self._flush = flush
        self._last = last

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request; returns the function that queues its input."""
        application = Application(send, self._flush, self._last, config.max_app_queue_size)
        self.spawn(application.run, app, scope)
        return application.put


class Application:
    """One call of the ASGI application, and the queue of its input, of at most `most` messages."""

    __slots__ = ("_begun", "_flush", "_gone", "_input", "_last", "_most", "_send", "_waiting")

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
        last: Callable[[], bool],
        most: int,
    ) -> None:
        self._send = send
        self._flush = flush
        self._last = last
        self._most = most
        self._input: deque[Any] = deque()
        self._gone = False
        # Of the application while the queue is empty, or of the reader while it is full.
        self._waiting = trio.lowlevel.ParkingLot()
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
        """Queue a message for the application. Waits while the queue is full, until the request
        has ended."""
        if message["type"] == "http.disconnect":
            self._gone = True
        else:
            while len(self._input) >= self._most and not self._gone:
                await self._waiting.park()
            self._input.append(message)
        if self._waiting:
            self._waiting.unpark_all()

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        while not self._input:
            if self._gone:
                await trio.lowlevel.checkpoint()  # an application may go on asking
                return {"type": "http.disconnect"}
            await self._waiting.park()
        if self._waiting:
            self._waiting.unpark_all()
        return self._input.popleft()

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if message["type"] != "http.response.start":
            await self._send(message)
            await self._flush()
            return
        self._begun = True
        if self._last():
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await self._send(message)

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
