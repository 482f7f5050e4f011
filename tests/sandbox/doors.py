"""A door with a service behind it, in one process and on loopback: no sandbox, and no gateway."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from gateway.sandbox.network.audit import Auditor, Record, read_record
from gateway.sandbox.network.door import Door

KEY = f"sk-proj-{secrets.token_hex(10)}"
"""In no file: the tests' own sources may be shown to an agent, and are searched for it."""
PATIENCE = 60.0
"""Seconds until a test gives up: a bound, never a measure."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[["Upstream", trio.SocketStream, bytes], Awaitable[None]]
"""Writes an answer to a request, whose head is given."""


@dataclass
class Upstream:
    """What answers as a service would, and what it has seen."""

    answer: Answer
    port: int = 0
    connections: int = 0
    seen: bytearray = field(default_factory=bytearray)
    left: trio.Event = field(default_factory=trio.Event)
    """Whether a connection to it was ended by the other side."""

    async def serve(self, stream: Any) -> None:
        async with stream:
            try:
                if isinstance(stream, trio.SSLStream):
                    await stream.do_handshake()
                self.connections += 1
                while (head := await self.until(stream, b"\r\n\r\n")) is not None:
                    await self.answer(self, stream, head)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.left.set()

    async def until(self, stream: trio.SocketStream, end: bytes) -> bytes | None:
        """What comes up to `end`; None at the end of the connection."""
        got = b""
        while end not in got:
            more = await stream.receive_some(65536)
            if not more:
                self.left.set()
                return None
            self.seen += more
            got += more
        return got


async def say(answer: bytes, upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
    del upstream, head
    await stream.send_all(answer)


def always(answer: bytes) -> Answer:
    return partial(say, answer)


@dataclass
class Scene:
    door: Door
    upstream: Upstream
    port: int
    records: list[Record]
    rules: dict[str, Any]

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """What comes back on a connection of its own until it ends."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            said = b""
            async for more in stream:
                said += more
            return said

    async def get(self, path: str, *fields: str, method: str = "GET", body: str = "") -> bytes:
        """The whole answer; the connection is closed with it."""
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *length, *fields]
        return await self.ask(("\r\n".join(head) + "\r\n\r\n" + body).encode())

    def change(self, **settings: Any) -> None:
        """Give the door other rules for its service."""
        self.rules = {**self.rules, "services": {"llm": self.rules["services"]["llm"] | settings}}
        self.door.change(self.rules)


def rules_of(port: int, **settings: Any) -> dict[str, Any]:
    return {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": port,
        "base": "/v1",
        "headers": {"Authorization": f"Bearer {KEY}"},
        "secrets": [KEY],
        "allow": [],
        "allow_headers": [],
        "drop_query": [],
        "errors": "openai",
        "requests_per_minute": 0,
        "tokens_per_day": 0,
        "clocks": {"connect": 5.0, "first": PATIENCE, "idle": PATIENCE},
        "ca": None,
        **settings,
    }


@asynccontextmanager
async def scene(
    answer: Answer | bytes = OK, *, ports: tuple[int, ...] = (), **settings: Any
) -> AsyncIterator[Scene]:
    """A door to one service `llm`, whose requests `answer` answers."""
    upstream = Upstream(always(answer) if isinstance(answer, bytes) else answer)
    records: list[Record] = []

    def take(packet: bytes) -> bool:
        record = read_record(packet)
        assert record is not None
        records.append(record)
        return True

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            [behind] = await nursery.start(
                partial(trio.serve_tcp, upstream.serve, 0, host="127.0.0.1")
            )
            upstream.port = behind.socket.getsockname()[1]
            door = Door(Auditor(take))
            rules = {
                "ports": list(ports),
                "services": {"llm": rules_of(upstream.port, **settings)},
            }
            door.change(rules)
            nursery.start_soon(door.run)
            [front] = await nursery.start(
                partial(trio.serve_tcp, partial(door.serve_client, worker=7), 0, host="127.0.0.1")
            )
            port = front.socket.getsockname()[1]
            yield Scene(door, upstream, port, records, rules)
            nursery.cancel_scope.cancel()
