"""What is done with requests that are observed; see `observe.observation`.

    CallRoutes ─┬─> a call, whose `ClientRequest` counts what passes
                └─> Counted ─> the Quart application

`Observing` begins and ends the observation of a request, for `CallRoutes`. What passes between the
server and the application (the status, the sizes and the times of a response, and whether the
client has left before its end) is noted by whoever reads and sends: for calls of agents, which are
most requests, that is `ClientRequest`, where to count is an addition; to have a middleware look at
each message costs ten times as much. For the routes of the Quart application it is `Counted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway import clock
from gateway.errors import InternalError
from gateway.observe.observation import OBSERVATION, Observation, method_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.front.client import Message, Receive, Send
    from gateway.observe.observation import Tell

    Headers = Sequence[tuple[bytes, bytes]]
    Begin = Callable[[Observation, Headers], Headers]
    ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Observing:
    """Made only where there is an observer: without, requests cost nothing more.

    `tell` is told of each request at its end. `begin` is called with each observation and the
    fields of the request's head, before anything else is done for it, and returns the fields with
    which the request goes on. `keep_bodies` is how many bytes of each body are kept.
    """

    def __init__(self, tell: Tell, begin: Begin | None = None, *, keep_bodies: int = 0) -> None:
        self.keep_bodies = keep_bodies
        self._tell = tell
        self._begin = begin

    def begin(self, scope: Any) -> Observation:
        """The observation of a request whose head has been read."""
        seen = Observation(began=clock.now(), method=method_of(scope["method"]))
        if self._begin is not None:
            scope["headers"] = self._begin(seen, scope["headers"])
        return seen

    def keeping_bodies(
        self, seen: Observation, receive: Receive, send: Send
    ) -> tuple[Receive, Send]:
        """The same, by which the beginnings of both bodies are kept."""
        kept = _KeptBodies(seen, receive, send, self.keep_bodies)
        return kept.receive, kept.send

    def fail(self, seen: Observation) -> None:
        """The application has failed: whoever serves it logs that, and responds."""
        seen.error = InternalError("a defect of the gateway; see its log")
        seen.status = seen.status or seen.error.status

    def end(self, seen: Observation) -> None:
        """The response has ended, or its client has left."""
        seen.end(clock.now())
        self._tell(seen)


class Counted:
    """ASGI middleware: notes what passes between the server and `inner`."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        seen = scope.get("state", {}).get(OBSERVATION)
        if seen is not None:
            counts = _Counts(seen, receive, send)
            receive, send = counts.receive, counts.send
        await self._inner(scope, receive, send)


class _Counts:
    """What one request's application receives and sends."""

    __slots__ = ("_over", "_receive", "_seen", "_send")

    def __init__(self, seen: Observation, receive: Receive, send: Send) -> None:
        self._seen = seen
        self._receive = receive
        self._send = send
        self._over = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen.bytes_in += len(message["body"])
        elif not self._over:
            # After the last part of a response a server says so as well.
            self._seen.client_left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._seen.status = message["status"]
        else:
            self._seen.note_sent(message.get("body", b""))
            self._over = not message.get("more_body", False)
        await self._send(message)


class _KeptBodies:
    """Keeps the first bytes of the bodies, at most `most` of each."""

    __slots__ = ("_most", "_receive", "_seen", "_send")

    def __init__(self, seen: Observation, receive: Receive, send: Send, most: int) -> None:
        self._seen = seen
        self._receive = receive
        self._send = send
        self._most = most

    async def receive(self) -> Message:
        message = await self._receive()
        if room := self._most - len(self._seen.request_body):
            self._seen.request_body += message.get("body", b"")[:room]
        return message

    async def send(self, message: Message) -> None:
        if room := self._most - len(self._seen.response_body):
            self._seen.response_body += message.get("body", b"")[:room]
        await self._send(message)
