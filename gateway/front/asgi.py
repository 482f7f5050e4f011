"""From requests to calls of an ASGI application, and back.

`connections` says how these work together. Nothing here reads or writes a socket; the bytes of
requests and responses are read and written by `http1`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote

import h11
import trio

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
    from collections.abc import Iterable, Mapping

    from gateway.errors import GatewayError
    from gateway.front.http1 import HTTP1Requests

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Of a head, names in lower case."""

log = logging.getLogger("gateway.http")

REFUSAL_SECONDS = 0.1
"""Before the response to bytes that are refused, which end their connection. A client that sends
such bytes again and again would otherwise have the event loop read, refuse and accept for it alone,
at a thousand connections a second."""

_START, _BODY, _NOTHING = "http.response.start", "http.response.body", "nothing more"
"""What an application may send next."""


class Transport(Protocol):
    """What a protocol needs of its connection."""

    def write(self, data: bytes) -> None:
        """Have bytes sent with the next flush."""

    async def flush(self) -> None:
        """Send what was written."""

    async def read_more(self) -> None:
        """Wait for what comes from the client, and have it handled: `receive` or `disconnect`."""

    async def read_present(self) -> None:
        """Have handled what has come from the client by now."""

    def request_begun(self) -> None:
        """A head was read: from here on the request's own clocks run."""

    async def end(self) -> None:
        """Nothing more is to be sent."""


class HTTP1Protocol:
    """The requests of one connection, one after the other, each as a `Call`.

    `receive` begins them, and responds to bytes that are refused.
    """

    def __init__(
        self,
        transport: Transport,
        requests: HTTP1Requests,
        base: Mapping[str, Any],
        state: Mapping[str, Any],
        max_requests: int,
    ) -> None:
        """`base` is what the scopes of all calls have in common, but for their `state`."""
        self.transport = transport
        self.requests = requests
        self.call: Call | None = None
        """The present request, from its head to the end of its response."""
        self._base = base
        self._state = state
        self._left = max_requests

    async def receive(self, data: bytes) -> None:
        """Take bytes of the client."""
        before = self.call
        self.requests.receive_data(data)
        try:
            while (event := self.requests.next_event()) is not h11.NEED_DATA:
                if isinstance(event, http1_head.Request):
                    self._begin(event)
                elif self.call is None:
                    return  # the client's end; or a body that its application did not wait for
                elif isinstance(event, bytes):
                    self.call.add(event)
                elif isinstance(event, h11.EndOfMessage):
                    self.call.end_input()
        except h11.RemoteProtocolError:
            if self.call is not before:
                # The head was in order, and its application may respond before it asks for more.
                self.requests.pending = True
                return
            await trio.sleep(REFUSAL_SECONDS)
            # The application may have responded meanwhile, to a head that was in order.
            if self.requests.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._respond_to_refused()
            await self.transport.end()

    def disconnect(self) -> None:
        """Tell the application that the client is gone, or that its response is complete."""
        if self.call is not None:
            call, self.call = self.call, None
            call.disconnected = True

    def begin_response(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the head of the response to the present request."""
        if self._left <= 0:
            fields = [*fields, (b"connection", b"close")]
        self.transport.write(self.requests.begin_response(status, fields))

    async def end_call(self) -> None:
        """The application has ended, with its response or in the middle of it."""
        self.disconnect()
        if self.requests.can_go_on:
            self.requests.start_next_cycle()
        else:
            await self.transport.end()

    def _begin(self, request: http1_head.Request) -> None:
        """Begin a request. An offer to upgrade is ignored (RFC 9110, 7.8)."""
        self.transport.request_begun()
        self._left -= 1
        method = request.method.decode("ascii")
        path, _, query = request.target.partition(b"?")
        state = {**self._state, SENT_METHOD: method, WEBSOCKET: self.requests.websocket}
        scope = {
            **self._base,
            "http_version": request.http_version.decode("ascii"),
            # Frameworks know methods in upper case only, but they are case-sensitive (RFC 9110,
            # 9.1): `target` compares it with the one that was sent.
            "method": method.upper(),
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": self.requests.fields,
            "state": state,
            "extensions": {},
        }
        self.call = Call(self, scope)
        state[HAS_INPUT] = self.call.has_input
        if self.requests.is_waiting_for_100:
            self.transport.write(CONTINUE)

    def _respond_to_refused(self) -> None:
        """Respond to what `http1` has refused."""
        requests, error = self.requests, self.requests.refusal
        assert error is not None
        headers, body = _respond_to(error, requests.fields)
        headers.append((b"connection", b"close"))
        self.transport.write(requests.begin_response(error.status, headers))
        self.transport.write(requests.send_data(body))
        self.transport.write(requests.end_response())


class Call:
    """One call of the ASGI application: a request, and the response to it."""

    __slots__ = ("_begun", "_due", "_input", "_protocol", "_scope", "disconnected")

    def __init__(self, protocol: HTTP1Protocol, scope: dict[str, Any]) -> None:
        self.disconnected = False
        """Whether the client is gone, or its response is complete: nothing is sent any more."""
        self._protocol = protocol
        self._scope = scope
        self._input: deque[dict[str, Any]] = deque()
        self._due = _START
        """What the application is to send next."""
        self._begun = False
        """Whether a part of the body was sent."""

    def __repr__(self) -> str:
        return f"<Call {self._scope.get('method')} {self._scope.get('path')}, {self._due} is due>"

    def add(self, data: bytes) -> None:
        """A part of the request's body has come."""
        self._input.append({"type": "http.request", "body": data, "more_body": True})

    def end_input(self) -> None:
        """The request has come whole."""
        if self._input:
            self._input[-1]["more_body"] = False
        else:
            self._input.append({"type": "http.request", "body": b"", "more_body": False})

    async def run(self, app: Any) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except* Exception:  # the boundary: a defect ends the request that met it
            log.exception("internal error")
            await self._respond_to_defect(self._scope["headers"])
        finally:
            # It holds `has_input`, and so this call: nothing is to wait for the garbage collector.
            self._scope = {}
            if not self.disconnected:
                await self._end()

    def has_input(self) -> bool:
        """Whether `receive` has a part of the request, and would return at once."""
        return bool(self._input)

    async def receive(self) -> dict[str, Any]:
        """ASGI's `receive`, for one task at a time."""
        while not self._input:
            if self.disconnected:
                await trio.lowlevel.checkpoint()  # an application may go on asking
                return {"type": "http.disconnect"}
            await self._protocol.transport.read_more()
        return self._input.popleft()

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        kind, protocol = message["type"], self._protocol
        if kind != self._due:
            raise RuntimeError(f"the application sent {kind}, expected {self._due}")
        if self.disconnected:
            await trio.lowlevel.checkpoint()  # an application may go on sending
        elif kind == _START:
            protocol.begin_response(message["status"], message.get("headers", ()))
            self._due = _BODY
        else:
            last = not message.get("more_body", False)
            if not (last or self._begun):
                # An end of the client's that came before the response leaves it open.
                self._begun = True
                await protocol.transport.read_present()
            protocol.transport.write(protocol.requests.send_data(message.get("body", b"")))
            if last:
                protocol.transport.write(protocol.requests.end_response())
                self._due = _NOTHING
                await protocol.end_call()
            await protocol.transport.flush()

    async def _end(self) -> None:
        """The application has returned before the end of its response."""
        protocol = self._protocol
        if self._due == _START:
            fields = [(b"content-length", b"0"), (b"connection", b"close")]
            protocol.begin_response(500, fields)
            protocol.transport.write(protocol.requests.end_response())
        await protocol.end_call()
        await protocol.transport.flush()

    async def _respond_to_defect(self, request_headers: Fields) -> None:
        if self._due != _START or self.disconnected:
            return
        error = InternalError("a defect of the gateway; see its log")
        headers, body = _respond_to(error, request_headers)
        await self.send({"type": _START, "status": error.status, "headers": headers})
        await self.send({"type": _BODY, "body": body})


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
