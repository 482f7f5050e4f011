"""Both neighbours of the front, played: an ASGI server with a client, and the agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from gateway.call import Call
from gateway.config import Clocks, RunSettings, ServerSettings
from gateway.exchange import Exchange
from gateway.front.dialect import Dialect
from gateway.front.dialects import serve_dialects
from gateway.front.hosts import KnownHosts
from gateway.front.requests import CallRoutes
from gateway.front.runs.service import Runs
from gateway.stopping import UntilStop
from tests.unit.workers import NoCarrier

DEFAULT = Clocks()
DIALECTS = tuple(each.dialect for each in serve_dialects(ServerSettings().dialects))
HOSTS = KnownHosts(ServerSettings(), "machine")
Story = Callable[[Exchange], Any]


class FakeDispatcher:
    """One agent, whose part is played by `story`."""

    def __init__(
        self, nursery: trio.Nursery, story: Story, clocks: Clocks, *, hands_over: bool = True
    ) -> None:
        self._nursery, self._story, self._clocks = nursery, story, clocks
        self._hands_over = hands_over
        self.agents: dict[str, Any] = {}
        self.left: list[Exchange] = []
        self.until_stop = UntilStop()

    def agent(self, name: str) -> None:
        del name

    def submit(self, call: Call) -> Exchange:
        exchange = Exchange(call, self._clocks, trio.current_time())
        if self._hands_over:
            exchange.given(trio.current_time(), NoCarrier(), worker_spoke=True)
        self._nursery.start_soon(self._story, exchange)
        return exchange

    def leave(self, exchange: Exchange) -> None:
        self.left.append(exchange)


class FakeClient:
    """Hypercorn's side: what it hands in, and what it is handed, with the time since the start."""

    def __init__(self, body: bytes, *, leaves: trio.Event | None = None) -> None:
        self._body: bytes | None = body
        self._leaves = trio.Event() if leaves is None else leaves
        self._began = trio.current_time()
        self.sent: list[tuple[float, dict[str, Any]]] = []

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append((round(trio.current_time() - self._began, 3), message))

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0][1]["headers"])

    @property
    def status(self) -> int:
        return int(self.sent[0][1]["status"])

    @property
    def parts(self) -> list[tuple[float, bytes]]:
        return [(at, m["body"]) for at, m in self.sent if m["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(part for _, part in self.parts)


SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/agent/a/invoke",
    "raw_path": b"/agent/a/invoke",
    "server": ("127.0.0.1", 8080),
    "headers": [(b"content-type", b"application/json")],
}


async def get(app: Any, path: str, *headers: tuple[bytes, bytes]) -> FakeClient:
    """What a client is sent that asks a whole application for a path."""
    client = FakeClient(b"")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, client.receive, client.send)
    return client


def make_routes(dispatcher: FakeDispatcher, dialects: tuple[Dialect, ...] = DIALECTS) -> CallRoutes:
    it: Any = dispatcher
    inner: Any = None
    return CallRoutes(inner, it, dialects, HOSTS, Runs(it, RunSettings()), max_body=1000)


async def say_nothing(exchange: Exchange) -> None:
    del exchange
    await trio.sleep_forever()


async def converse(
    client: FakeClient,
    story: Story,
    *,
    clocks: Clocks = DEFAULT,
    dialects: tuple[Dialect, ...] = DIALECTS,
    scope: dict[str, Any] = SCOPE,
    hands_over: bool = True,
) -> FakeDispatcher:
    """One request of `client`, until its response has ended."""
    async with trio.open_nursery() as nursery:
        dispatcher = FakeDispatcher(nursery, story, clocks, hands_over=hands_over)
        routes = make_routes(dispatcher, dialects)
        await routes(scope, client.receive, client.send)
        nursery.cancel_scope.cancel()
    return dispatcher
