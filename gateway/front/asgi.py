"""What Hypercorn brings to a connection, adapted: its protocol, and how an application is called.

`connections` says how these work together. Nothing here reads or writes a socket.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
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

    import h11
    from hypercorn.config import Config
    from hypercorn.protocol.events import Event as StreamEvent

    from gateway.errors import GatewayError
    from gateway.front.http1 import HTTP1Requests

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Of a head, names in lower case."""

log = logging.getLogger("gateway.http")


_NEVER_DRAINS = WorkerContext(None)


class HTTP1Protocol(H11Protocol):
    """Hypercorn's protocol, limited to HTTP/1.1 without encryption, and to `requests`.

    `write` takes what is to be sent.
    """

    def __init__(
        self, requests: HTTP1Requests, write: Callable[[bytes], None], *arguments: Any
    ) -> None:
        """The further `arguments` are Hypercorn's."""
        super().__init__(*arguments)
        # Hypercorn closes a connection after the response that was under way when the gateway began
        # to drain. Its head had said that the connection is kept: only what a head says ends one.
        self.context = _NEVER_DRAINS
        self._requests = requests
        self._write = write
        self.connection = requests  # type: ignore[assignment]  # has what Hypercorn uses of h11's

    async def _create_stream(self, request: h11.Request) -> None:
        """Begin a request. An offer to upgrade is ignored (RFC 9110, 7.8)."""
        method = request.method.decode("ascii")
        # Hypercorn hands the method on in upper case, but it is case-sensitive (RFC 9110, 9.1).
        self.connection_state[SENT_METHOD] = method
        self.connection_state[WEBSOCKET] = self._requests.websocket
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=self._requests.fields,
                http_version=request.http_version.decode("ascii"),
                method=method.upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def stream_send(self, event: StreamEvent) -> None:
        """Write what the application responds, unless its request was refused meanwhile."""
        if isinstance(event, StreamClosed):
            await self._maybe_recycle()
        elif self._requests.refusal is not None:
            return
        elif isinstance(event, Body):
            self._write(self._requests.send_data(event.data))
        elif isinstance(event, EndBody):
            self._write(self._requests.end_response())
        elif isinstance(event, Response):
            if self.keep_alive_requests >= self.config.keep_alive_max_requests:
                event.headers.append((b"connection", b"close"))
            self._write(self._requests.begin_response(event.status_code, event.headers))

    async def _check_protocol(self, event: object) -> None:
        """Ignore an offer to upgrade to HTTP/2."""

    async def _send_error_response(self, status_code: int) -> None:
        """Respond to what `http1` has refused."""
        del status_code
        requests, error = self._requests, self._requests.refusal
        assert error is not None
        headers, body = _respond_to(error, requests.fields)
        headers.append((b"connection", b"close"))
        self._write(requests.begin_response(error.status, headers))
        self._write(requests.send_data(body))
        self._write(requests.end_response())


class Tasks(TaskGroup):
    """Hypercorn's tasks of one connection, with its applications.

    `flush` writes what the connection has to send.
    """

    def __init__(self, flush: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._flush = flush

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request; returns the function that queues its input."""
        application = Application(send, self._flush, config.max_app_queue_size)
        self.spawn(application.run, app, scope)
        return application.put


class Application:
    """One call of the ASGI application, and the queue of its input, of at most `most` messages."""

    __slots__ = ("_begun", "_flush", "_gone", "_input", "_most", "_send", "_waiting")

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
        most: int,
    ) -> None:
        self._send = send
        self._flush = flush
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
        await self._send(message)
        if message["type"] == "http.response.start":
            self._begun = True
        else:
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
