"""One connection of an agent to the door: its requests are read here, and answered.

This module owns the framing of what agents send (h11 does it), its bounds and clocks. It does not
know what is allowed (`rules`), nor what becomes of a request (`door`).

Requests are answered one after the other. What an agent sends while it is waiting for an answer is
looked at, because that is how its leaving is noticed, and kept for the next request.
"""

from __future__ import annotations

import contextlib
import struct
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

import h11
import trio

from gateway.sandbox.network.rules import MAX_HEAD, Denied, check_head
from gateway.tracebacks import cut_causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEEP_ALIVE_SECONDS = 60.0
"""Between two requests: longer than clients commonly keep a connection that they do not use."""
HEAD_SECONDS = 10.0
"""For a head to arrive. The agent is on the same machine."""
LINGER_SECONDS = 2.0
"""For what is left of a request that was refused: a client that is cut while it sends does not read
the answer."""
LINGER_BYTES = 8 << 20
MAX_AHEAD = 64 * 1024
"""Bytes of further requests that may come before an answer is over."""
CHUNK = 64 * 1024
"""Bytes that are read at once."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_END_OF_HEAD = b"\r\n\r\n"


class Left(Exception):  # noqa: N818 - the agent's decision
    """The agent has closed its connection, or sends what is not HTTP after its head."""


class Downstream:
    """One connection of an agent."""

    def __init__(
        self, stream: trio.SocketStream, is_crowded: Callable[[], bool] = lambda: False
    ) -> None:
        """`is_crowded`: whether so many connections are open that this one is not to be kept."""
        self._stream = stream
        self._is_crowded = is_crowded
        self._ahead = b""
        self._http = h11.Connection(h11.SERVER)
        self._is_head = False
        self.read_whole = False
        """Whether the request's body has been read to its end."""
        self.began = False
        """Whether the head of an answer was sent."""

    async def request(self) -> h11.Request | Denied | None:
        """The head of the next request; None when there is none any more."""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX_HEAD)
        self._is_head = self.read_whole = self.began = False
        head = await self._head()
        if head is None or isinstance(head, Denied):
            return head
        if (denied := check_head(head)) is not None:
            return denied
        self._http.receive_data(head + _END_OF_HEAD)
        if self._ahead:
            self._http.receive_data(self._ahead)
        self._ahead = b""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            return Denied(400, "http", str(error))
        assert isinstance(event, h11.Request)
        self._is_head = event.method == b"HEAD"
        return event

    async def _head(self) -> bytes | Denied | None:
        if not self._ahead:
            with trio.move_on_after(KEEP_ALIVE_SECONDS):
                self._ahead = await self._stream.receive_some(CHUNK)
            if not self._ahead:
                return None
        with trio.move_on_after(HEAD_SECONDS):
            while _END_OF_HEAD not in self._ahead:
                if len(self._ahead) > MAX_HEAD:
                    break
                more = await self._stream.receive_some(CHUNK)
                if not more:
                    return None
                self._ahead += more
            head, end, rest = self._ahead.partition(_END_OF_HEAD)
            if not end or len(head) > MAX_HEAD:
                return Denied(431, "http", f"the head has more than {MAX_HEAD} bytes")
            self._ahead = rest
            return head
        return Denied(408, "http", f"the head did not come within {HEAD_SECONDS:g} s")

    def arrived(self) -> bytes:
        """What has come of the request's body already. Raises Left."""
        pieces: list[bytes] = []
        while not self.read_whole:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Left(f"the body is not HTTP: {error}") from error
            if isinstance(event, h11.Data):
                pieces.append(event.data)
            elif event is h11.NEED_DATA:
                break
            else:
                self._end_of_body()
        return b"".join(pieces)

    async def body(self) -> bytes:
        """What has come of the request's body, as soon as some has; empty at its end.

        Raises Left.
        """
        while not (data := self.arrived()) and not self.read_whole:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._receive())
        return data

    def _end_of_body(self) -> None:
        self.read_whole = True
        self._ahead = bytes(self._http.trailing_data[0])

    async def gone(self) -> None:
        """Return when the agent leaves. What it sends instead is kept. The body must have been read
        to its end."""
        while len(self._ahead) <= MAX_AHEAD:
            try:
                self._ahead += await self._receive()
            except Left:
                return

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(CHUNK)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise Left("the agent has left")
        return bytes(data)

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> h11.Response:
        """The head of the answer, to be sent."""
        fields = list(headers)
        if not self.read_whole or self._is_crowded():
            fields.append((b"connection", b"close"))
        phrase = _PHRASES.get(status, "").encode("ascii")
        return h11.Response(status_code=status, headers=fields, reason=phrase)

    async def send(self, *events: h11.Event) -> None:
        """Send parts of the answer at once. Raises Left."""
        self.began = True
        await self._send(*events)

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError as error:
                cut_causes(error)
                raise Left("the agent has left") from None

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer of the door's own. Raises Left."""
        length = (b"content-length", str(len(body)).encode())
        said = [] if self._is_head else [h11.Data(data=body)]
        await self.send(self.head(status, [*headers, length]), *said, h11.EndOfMessage())

    async def linger(self) -> None:
        """Read what is left of a request that was answered without it, within bounds."""
        if self.read_whole:
            return
        left = LINGER_BYTES
        with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            while left > 0 and (data := await self._stream.receive_some(CHUNK)):
                left -= len(data)

    @property
    def may_go_on(self) -> bool:
        """Whether another request may come on the connection, now that the answer is over."""
        return self.read_whole and self._http.our_state is h11.DONE

    def abort(self) -> None:
        """Leave an answer unfinished. To HTTP/1.0, whose answers end with the connection, that has
        to be a reset; everybody else is to get what was sent so far."""
        if self._http.their_http_version != b"1.0":
            return
        with contextlib.suppress(OSError):
            self._stream.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)
