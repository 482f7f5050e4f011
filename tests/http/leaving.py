"""The ways in which clients leave: each ends a connection whose request is under way.

Each has the header fields that its request must have, and what is done then.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from tests.http.raw import Connection


async def close(connection: Connection) -> None:
    await connection.stream.aclose()


async def reset(connection: Connection) -> None:
    linger = struct.pack("ii", 1, 0)
    connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await connection.stream.aclose()


async def half_close(connection: Connection) -> None:
    await connection.stream.send_eof()


async def send_more_and_close(connection: Connection) -> None:
    await connection.send(b"\r\n")
    await connection.stream.aclose()


async def send_much_more_and_close(connection: Connection) -> None:
    with suppress(trio.BrokenResourceError):
        await connection.send(b"x" * 2_000_000)
    await connection.stream.aclose()


Way = Callable[[Connection], Awaitable[None]]
WAYS: dict[str, tuple[tuple[str, ...], Way]] = {
    "plain": ((), close),
    "reset": ((), reset),
    "half-closed": ((), half_close),
    "after a CRLF": ((), send_more_and_close),
    "after much more": ((), send_much_more_and_close),
    "after an Upgrade": (("Connection: Upgrade", "Upgrade: h2c"), close),
    "reset after an Upgrade": (("Connection: Upgrade", "Upgrade: h2c"), reset),
}


# In the middle of a WebSocket handshake there is no request yet.

WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def handshake(path: str) -> bytes:
    """The head of a WebSocket handshake, but for the empty line at its end."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *WEBSOCKET, ""]).encode()
