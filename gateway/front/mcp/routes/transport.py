"""One request as the SDK sees it, and its response on the way to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from gateway.errors import ShuttingDown
from gateway.front.client import headers_of
from gateway.front.dialect import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from gateway.front.mcp.routes.calls import Visit

VISIT = "mcp_visit"
"""The key of `scope["state"]` under which a request's `Visit` is."""

SESSION = b"mcp-session-id"

OPENED = b": open\n\n"
"""A comment."""

_OF_BODY = frozenset({b"content-length", b"transfer-encoding"})


def field_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a header field; None without it."""
    values = [value for each, value in headers if each == name]
    return b",".join(values).decode("latin-1") if values else None


class Transport:
    """The ASGI request and response of one visit. The body that the SDK reads is what the envelope
    has left for it; its response gets what the visit's splices hold."""

    def __init__(self, visit: Visit, scope: Any) -> None:
        self.status = 0
        self.was_cut = False
        """Whether the gateway has ended the stream, and not its client."""
        self.on_session: Callable[[str], None] | None = None
        """Called with the id of the session that the response is of."""
        self._visit = visit
        self._body: bytes | None = visit.envelope.rest
        self._watching = trio.CancelScope()
        self._start: MutableMapping[str, Any] | None = None
        self._method: str = scope["method"]
        headers = [each for each in scope["headers"] if each[0] not in _OF_BODY]
        headers.append((b"content-length", b"%d" % len(visit.envelope.rest)))
        self.scope = {**scope, "headers": headers, "state": {VISIT: visit}}

    @property
    def may_open(self) -> bool:
        """Whether the request may be one that opens a session."""
        return self._method == "POST" and self._visit.envelope.may_open

    @property
    def waits(self) -> bool:
        """Whether the response is a stream of whatever the client is told."""
        return self._method == "GET"

    @property
    def ends_session(self) -> bool:
        return self._method == "DELETE" and self.status == 200

    async def receive(self) -> MutableMapping[str, Any]:
        """The body once, then the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        with self._watching:
            await self._visit.request.wait_gone()
            self._visit.gone = True
            return {"type": "http.disconnect"}
        await trio.sleep_forever()
        raise AssertionError

    async def end(self) -> None:
        """End a stream that was cut."""
        if not self.status:
            error = ShuttingDown("the stream was ended before it began")
            await self._visit.request.respond_error(error)
        elif self._start is None:
            await self._send_part(b"", last=True)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """A part of the response. The head of one that is no stream waits for its body, which may
        become longer."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])  # Starlette gives an enum, or its text
            headers = message["headers"]
            name = field_of(headers, SESSION)
            if name is not None and self.status < 400 and self.on_session is not None:
                self.on_session(name)
            if any(value.startswith(b"text/event-stream") for _, value in headers):
                await self._visit.request.send_head(self.status, _clean(headers))
                if self.waits:
                    # The head goes out with the first part, which may be far off.
                    await self._send_part(OPENED, last=False)
            else:
                self._start = message
            return
        body = self._visit.splices.apply(message.get("body", b""))
        if self._start is not None:
            head, self._start = self._start, None
            response = Response(self.status, _clean(head["headers"]), body)
            await self._visit.request.send_head(self.status, headers_of(response))
        await self._send_part(body, last=not message.get("more_body", False))

    async def _send_part(self, data: bytes, *, last: bool) -> None:
        if last:
            # From now on the server says that the client is gone though it is not.
            self._watching.cancel()
        await self._visit.request.send_part(data, last=last)


def _clean(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields of a response without those that are the server's."""
    return [each for each in headers if each[0] not in {b"content-length", b"connection"}]
