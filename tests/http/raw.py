"""HTTP/1.1 by hand: a socket, what was written into it, and each piece that came out."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

SECONDS = 20
"""For anything that is waited for here: far more than it takes, and less than a test may."""


@dataclass
class Answer:
    """One response: the bytes of its head and of its body, as they came."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode().split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


async def becomes(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that nobody tells of: a count of descriptors, or of requests."""
    with trio.fail_after(SECONDS):
        while not await condition():  # noqa: ASYNC110  # there is no event
            await trio.sleep(0.02)


class Connection:
    """Reads what comes, piece by piece; every wait is bounded."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.pieces: list[bytes] = []
        """What each `recv` has returned."""
        self._rest = b""

    async def send(self, data: bytes) -> None:
        with trio.fail_after(SECONDS):
            await self.stream.send_all(data)

    async def request(
        self,
        path: str,
        body: object = None,
        *,
        method: str = "POST",
        headers: tuple[str, ...] = (),
        version: str = "1.1",
    ) -> None:
        """Send a whole request; `body` is JSON unless it is bytes already."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
        if data or method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        await self.send("\r\n".join([*lines, "", ""]).encode() + data)

    async def read(self, seconds: float = SECONDS) -> bytes:
        """One more piece; empty at the end."""
        with trio.fail_after(seconds):
            try:
                data = await self.stream.receive_some(1024 * 1024)
            except trio.BrokenResourceError:  # reset: as much an end as any
                data = b""
        if data:
            self.pieces.append(bytes(data))
            self._rest += data
        return bytes(data)

    async def until(self, pattern: bytes) -> bytes:
        """Everything up to and with what matches; what follows is kept."""
        while (found := re.search(pattern, self._rest)) is None:
            assert await self.read(), f"the end came before {pattern!r}: {self._rest[-500:]!r}"
        seen, self._rest = self._rest[: found.end()], self._rest[found.end() :]
        return seen

    async def take(self, count: int) -> bytes:
        while len(self._rest) < count:
            assert await self.read(), f"the end came after {self._rest!r}"
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    async def answer(self) -> Answer:
        """A whole response, by its length, its chunks, or the end of the connection."""
        head = await self.until(rb"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100 "):  # a busy gateway asks whether a client is there
            head = await self.until(rb"\r\n\r\n")
        answer = Answer(head, b"")
        if "content-length" in answer.headers:
            answer.body = await self.take(int(answer.headers["content-length"]))
        elif answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.until(rb"\r\n"), 16):
                answer.body += (await self.take(size + 2))[:-2]
            await self.until(rb"\r\n")
        else:
            answer.body = await self.rest()
        return answer

    async def rest(self) -> bytes:
        """Everything until the end of the connection."""
        while await self.read():
            pass
        rest, self._rest = self._rest, b""
        return rest

    async def has_ended(self) -> bool:
        """Wait for the end of the connection, with nothing before it."""
        return await self.rest() == b""


@asynccontextmanager
async def connected(
    port: int, *, host: str = "127.0.0.1", receive_buffer: int | None = None
) -> AsyncIterator[Connection]:
    """A connection to the gateway. A small `receive_buffer` makes a client that is soon behind."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with trio.SocketStream(sock) as stream:
        await sock.connect((host, port))
        yield Connection(stream)
