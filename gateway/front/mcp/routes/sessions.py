"""The sessions of one caller's key, within their bounds; and what they are told of.

The SDK keeps a session for every client of the older handshake, until that ends it or has not used
it for `IDLE_SECONDS`. Here it is known which there are, so that one more than `MOST_SESSIONS` ends
the one that was used longest ago, unless a request is open in it, instead of being refused.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import trio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

from gateway import clock
from gateway.errors import Overloaded
from gateway.front.mcp.envelope import MOST_REST
from gateway.front.mcp.routes.handlers import visit_of
from gateway.front.mcp.routes.transport import SESSION, Transport, field_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from gateway.front.mcp.routes.calls import Visit
    from gateway.front.mcp.routes.handlers import GatewayServer

MOST_SESSIONS = 128
"""Of one key. Each takes about 50 KiB, and more with what its client has told of itself."""

IDLE_SECONDS = 1800.0

MOST_SUBSCRIPTIONS = 128
"""Streams of one key that wait for changes."""

TELL_SECONDS = 5.0
"""For one session to be told of a change: its client may not read."""


class _Session:
    """What is known of one session."""

    __slots__ = ("open", "outbound", "used")

    def __init__(self) -> None:
        self.open = 0
        """Requests in it that have no end yet."""
        self.used = clock.now()
        self.outbound: ServerSession | None = None
        """What it is told by, once it is ready."""


class Sessions:
    """See the module's docstring. `run` must be running while requests are served."""

    def __init__(self, server: GatewayServer, make_place: Callable[[], Awaitable[None]]) -> None:
        """`make_place` makes one among the sessions of all keys. May raise Overloaded."""
        self._make_place_in_all = make_place
        self.started = trio.Event()
        self._bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(
            self._bus, max_subscriptions=MOST_SUBSCRIPTIONS, max_buffered_events=16
        )
        self._manager = StreamableHTTPSessionManager(
            server,
            session_idle_timeout=IDLE_SECONDS,
            max_request_body_size=2 * MOST_REST,
            max_sessions=2 * MOST_SESSIONS,
        )
        self._sessions: dict[str, _Session] = {}
        self._opening: set[Transport] = set()
        """Requests that may open one, and have not yet."""
        self._requests = 0
        """Those that have no end yet."""
        self._running = trio.CancelScope()
        self._streams: set[trio.CancelScope] = set()
        """In which streams are sent that wait for what is told."""

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} open>"

    async def run(self) -> None:
        """Serve until stopped or cancelled."""
        with self._running:
            async with self._manager.run():
                self.started.set()
                await trio.sleep_forever()

    def stop(self) -> None:
        """End `run`, when nothing is open."""
        self._running.cancel()

    @property
    def count(self) -> int:
        """How many there are, or may be soon."""
        return len(self._sessions) + len(self._opening)

    @property
    def are_unused(self) -> bool:
        """Whether there are neither sessions nor requests."""
        self._forget_old()
        return not self._sessions and not self._requests

    @property
    def has_idle(self) -> bool:
        """Whether there is a session in which no request is open."""
        return any(not each.open for each in self._sessions.values())

    async def serve(self, visit: Visit, scope: Any) -> None:
        """Respond to one request. Raises Overloaded."""
        self._requests += 1
        try:
            await self.started.wait()
            await self._serve(visit, scope)
        finally:
            self._requests -= 1

    async def _serve(self, visit: Visit, scope: Any) -> None:
        name = field_of(scope["headers"], SESSION)
        session = None if name is None else self._sessions.get(name)
        transport = Transport(visit, scope)
        if session is None:
            await self._open(transport, may_open=name is None and transport.may_open)
            return
        session.open += 1
        try:
            await self._handle(transport)
        finally:
            session.open -= 1
            session.used = clock.now()
        if transport.status == 404 or transport.ends_session:
            self._sessions.pop(name or "", None)
        elif transport.was_cut and not session.open and name in self._sessions:
            await self._end(name)

    async def _open(self, transport: Transport, *, may_open: bool) -> None:
        if not may_open:
            await self._handle(transport)
            return
        self._opening.add(transport)
        try:
            await self._make_place()
            await self._handle(transport)
        finally:
            self._opening.discard(transport)

    async def _handle(self, transport: Transport) -> None:
        transport.on_session = partial(self._note, transport)
        if not transport.waits:
            await self._manager.handle_request(transport.scope, transport.receive, transport.send)
            return
        with trio.CancelScope() as scope:
            self._streams.add(scope)
            try:
                await self._manager.handle_request(
                    transport.scope, transport.receive, transport.send
                )
            finally:
                self._streams.discard(scope)
        if scope.cancelled_caught:
            transport.was_cut = True
            await transport.end()

    def _note(self, transport: Transport, name: str) -> None:
        """The response to a request names the session that it has opened."""
        self._opening.discard(transport)
        self._sessions.setdefault(name, _Session())

    async def _make_place(self) -> None:
        """Raises Overloaded."""
        self._forget_old()
        while self.count > MOST_SESSIONS:
            if not self.has_idle:
                raise Overloaded(
                    f"{MOST_SESSIONS} sessions of this key are open and in use, the most that may",
                    retry_after=5,
                )
            await self.end_oldest()
        await self._make_place_in_all()

    async def end_oldest(self) -> None:
        """End the session that was used longest ago of those in which no request is open."""
        idle = [name for name, each in self._sessions.items() if not each.open]
        await self._end(min(idle, key=lambda name: self._sessions[name].used))

    async def end_idle(self) -> None:
        """End all sessions in which no request is open."""
        while self.has_idle:
            await self.end_oldest()

    def _forget_old(self) -> None:
        """The SDK has ended them."""
        oldest = clock.now() - IDLE_SECONDS
        old = [
            name for name, each in self._sessions.items() if not each.open and each.used < oldest
        ]
        for name in old:
            del self._sessions[name]

    async def _end(self, name: str) -> None:
        """End a session as its client would."""
        del self._sessions[name]
        fields = [(SESSION, name.encode())]
        scope = {"type": "http", "method": "DELETE", "path": "/", "headers": fields, "state": {}}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            del message

        await self._manager.handle_request(
            {**scope, "query_string": b"", "root_path": "", "http_version": "1.1"}, receive, send
        )

    def opened(self, ctx: ServerRequestContext[Any, Any]) -> None:
        """A session is ready, and can be told of changes."""
        session = self._sessions.get(visit_of(ctx).session)
        if session is not None:
            session.outbound = ctx.session

    async def tell_of_change(self) -> None:
        """Tell all clients that want to know that the list of tools has changed."""
        self._forget_old()
        await self._bus.publish(ToolsListChanged())
        async with trio.open_nursery() as nursery:
            for each in self._sessions.values():
                if each.outbound is not None and each.open:
                    nursery.start_soon(_tell, each.outbound)

    def close(self) -> None:
        """End the streams that wait for what they are told: they are told nothing more."""
        self.listen.close()
        for scope in self._streams:
            scope.cancel()


async def _tell(session: ServerSession) -> None:
    with trio.move_on_after(TELL_SECONDS), suppress(anyio.ClosedResourceError):
        await session.send_tool_list_changed()
