"""From requests to calls of an ASGI application, and back: Hypercorn's, over a carrier of ours.

`connections` says how these work together. Nothing here reads or writes a socket. Hypercorn's
`HTTPStream` makes ASGI messages of a request and of its response; what it gets and gives as events
is read and written by `http1`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import h11
import trio
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.trio.task_group import TaskGroup

from gateway.errors import InternalError
from gateway.front import http1_head
from gateway.front.client import HAS_INPUT
from gateway.front.dialect import retry_headers
from gateway.front.head import read_head
from gateway.front.http1_response import CONTINUE
from gateway.front.native.errors import encode_error
from gateway.front.target import SENT_METHOD, WEBSOCKET
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from hypercorn.config import Config
    from hypercorn.protocol.events import Event
    from hypercorn.protocol.http_stream import HTTPStream
    from hypercorn.typing import ConnectionState

    from gateway.errors import GatewayError
    from gateway.front.http1 import HTTP1Requests

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Of a head, names in lower case."""

log = logging.getLogger("gateway.http")

_STREAM_ID = 1
"""HTTP/1.1 has one stream at a time."""


REFUSAL_SECONDS = 0.1
"""Before the response to bytes that are refused, which end their connection. A client that sends
such bytes again and again would otherwise have the event loop read, refuse and accept for it alone,
at a thousand connections a second."""


class Transport(Protocol):
    """What a protocol needs of its connection."""

    def write(self, data: bytes) -> None:
        """Have bytes sent with the next flush."""

    def request_begun(self) -> None:
        """A head was read: from here on the request's own clocks run."""

    def request_ended(self) -> None:
        """A response is complete, and the connection goes on."""

    async def end(self) -> None:
        """Nothing more is to be sent."""


class HTTP1Protocol:
    """The requests of one connection, one after the other, each as a call of the application.

    `receive` begins them, and responds to bytes that are refused.
    """

    def __init__(
        self,
        transport: Transport,
        requests: HTTP1Requests,
        new_stream: Callable[[Callable[[Event], Awaitable[None]], int], HTTPStream],
        state: ConnectionState,
        max_requests: int,
    ) -> None:
        """`new_stream` makes one that sends its events by a function, with an id."""
        self._transport = transport
        self._requests = requests
        self._new_stream = new_stream
        self._state = state
        self._left = max_requests
        self._stream: HTTPStream | None = None
        self._refused = False

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self._stream is None

    async def receive(self, data: bytes) -> None:
        """Take bytes of the client. Waits while the application has enough of a body."""
        self._requests.receive_data(data)
        try:
            while (event := self._requests.next_event()) is not h11.NEED_DATA:
                if isinstance(event, http1_head.Request):
                    await self._begin(event)
                elif self._stream is None:
                    return  # the client's end; or a body that its application did not wait for
                elif isinstance(event, h11.Data):
                    await self._stream.handle(Body(stream_id=_STREAM_ID, data=event.data))
                elif isinstance(event, h11.EndOfMessage):
                    await self._stream.handle(EndBody(stream_id=_STREAM_ID))
        except h11.RemoteProtocolError:
            await trio.sleep(REFUSAL_SECONDS)
            # The application may have responded meanwhile, to a head that was in order.
            if self._requests.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._respond_to_refused()
            await self._transport.end()

    async def disconnect(self) -> None:
        """Tell the application that the client is gone, or that its response is complete."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.handle(StreamClosed(stream_id=_STREAM_ID))

    async def _begin(self, request: http1_head.Request) -> None:
        """Begin a request. An offer to upgrade is ignored (RFC 9110, 7.8)."""
        self._transport.request_begun()
        self._left -= 1
        method = request.method.decode("ascii")
        # Hypercorn hands the method on in upper case, but it is case-sensitive (RFC 9110, 9.1).
        self._state[SENT_METHOD] = method
        self._state[WEBSOCKET] = self._requests.websocket
        self._stream = self._new_stream(self._send, _STREAM_ID)
        await self._stream.handle(
            Request(
                stream_id=_STREAM_ID,
                headers=self._requests.fields,
                http_version=request.http_version.decode("ascii"),
                method=method.upper(),
                raw_path=request.target,
                state=self._state,
            )
        )
        if self._requests.is_waiting_for_100:
            self._transport.write(CONTINUE)

    async def _send(self, event: Event) -> None:
        """Write what the application responds, unless its request has been refused meanwhile."""
        if isinstance(event, StreamClosed):
            await self._end()
        elif self._refused:
            return
        elif isinstance(event, Body):
            self._transport.write(self._requests.send_data(event.data))
        elif isinstance(event, EndBody):
            self._transport.write(self._requests.end_response())
        elif isinstance(event, Response):
            if self._left <= 0:
                event.headers.append((b"connection", b"close"))
            head = self._requests.begin_response(event.status_code, event.headers)
            self._transport.write(head)

    async def _end(self) -> None:
        """The application has ended, with its response or in the middle of it."""
        await self.disconnect()
        if self._requests.can_go_on:
            self._requests.start_next_cycle()
            self._transport.request_ended()
        else:
            await self._transport.end()

    def _respond_to_refused(self) -> None:
        """Respond to what `http1` has refused."""
        requests, error = self._requests, self._requests.refusal
        assert error is not None
        self._refused = True
        headers, body = _respond_to(error, requests.fields)
        headers.append((b"connection", b"close"))
        self._transport.write(requests.begin_response(error.status, headers))
        self._transport.write(requests.send_data(body))
        self._transport.write(requests.end_response())


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
        scope["state"][HAS_INPUT] = application.has_input
        self.spawn(application.run, app, scope)
        return application.put


class Application:
    """One call of the ASGI application, and the queue of its input, of at most `most` messages."""

    __slots__ = ("_begun", "_change", "_flush", "_gone", "_input", "_most", "_send")

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
        self._change: trio.Event | None = None
        """What the application waits for while the queue is empty, or the reader while it is
        full."""
        self._begun = False

    async def run(self, app: Any, scope: Any) -> None:
        try:
            await app(scope, self.receive, self.send)
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
                await self._wait()
            self._input.append(message)
        self._wake()

    def has_input(self) -> bool:
        """Whether `receive` has a part of the request, and would return at once."""
        return bool(self._input)

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        while not self._input:
            if self._gone:
                await trio.lowlevel.checkpoint()  # an application may go on asking
                return {"type": "http.disconnect"}
            await self._wait()
        self._wake()
        return self._input.popleft()

    async def _wait(self) -> None:
        if self._change is None:
            self._change = trio.Event()
        await self._change.wait()

    def _wake(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

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
