"""HTTP/1.1 connections: Hypercorn's protocol, with the bytes carried here.

Hypercorn's own carrier hands over to the other tasks eight times for a short request (at each part
of it that is passed on, and twice at each write), writes the head and the body of a response apart,
and starts a task at the end of each request to watch over the silence that follows. Here a task
waits when there is something to wait for, a head leaves with what follows it, the last part with
the end, and one task for each connection watches, whose deadline is moved. Knows nothing of what is
served.
"""

from __future__ import annotations

import logging
import math
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import h11
    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent
    from hypercorn.typing import LifespanState

log = logging.getLogger("gateway.http")

_READ_BYTES = 256 * 1024
"""Read at once: a large body is a few reads then, each of which passes through the protocol."""

_JOINED_BYTES = 64 * 1024
"""A part larger than this leaves without a copy: beside it, a second write costs nothing."""


async def serve_http(
    app: Any,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `hypercorn.trio.serve`, for plain sockets: return when the trigger has, and every
    connection was closed or `graceful_timeout` has passed."""
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)
    sockets = config.create_sockets().insecure_sockets
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
    async with trio.open_nursery() as application:
        await application.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            handler = partial(_serve_connection, wrapped, config, context, state)
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, handler, listeners, handler_nursery=connections)
                )
                task_status.started()
                await shutdown_trigger()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        await lifespan.wait_for_shutdown()
        application.cancel_scope.cancel()


async def _serve_connection(
    app: ASGIWrapper,
    config: Config,
    context: WorkerContext,
    state: LifespanState,
    stream: trio.SocketStream,
) -> None:
    connection = _Connection(config, context, stream)
    try:
        await connection.run(app, ConnectionState(state.copy()))
    except* Exception:  # the boundary: a defect ends the connection that met it, and no other
        log.exception("internal error: a connection is closed")
    finally:
        await connection.close()


class _Protocol(H11Protocol):
    """HTTP/1.1 and nothing else: an offer of HTTP/2 is passed over, and its preface is a request
    like another, for something that is not there."""

    last_part = False
    """Whether the application's next part is its last."""
    more_follows = False
    """Whether what is sent now is followed by more at once, so that both can be written together:
    the head of a response by its first part or its end, the last part by the end."""

    async def stream_send(self, event: StreamEvent) -> None:
        self.more_follows = (
            self.last_part
            if isinstance(event, Body)
            else isinstance(event, Response) and event.status_code >= 200
        )
        await super().stream_send(event)

    async def _create_stream(self, request: h11.Request) -> None:
        await super()._create_stream(request)
        # A handshake that is none was refused without the application, and nothing would end it.
        if isinstance(self.stream, WSStream) and self.stream.closed:
            await self._maybe_recycle()

    async def _check_protocol(self, event: object) -> None:
        pass


class _Connection:
    """One connection: what the client sends goes to the protocol, and what that says to the client.

    `_idle_until` is when a silence between two requests has lasted too long; there is none while a
    request is being served.
    """

    def __init__(self, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        self._config = config
        self._context = context
        self._stream = stream
        self._protocol: _Protocol
        self._write_lock = trio.Lock()
        self._reading = True
        self._idle_until = math.inf
        self._idle = trio.CancelScope()
        self._held: list[bytes] = []

    async def run(self, app: ASGIWrapper, state: ConnectionState) -> None:
        """Serve it until its end."""
        socket = self._stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
        except OSError:  # the client has left already
            return
        async with _Tasks(self._note) as tasks:
            self._protocol = _Protocol(
                app, self._config, self._context, tasks, state, False, client, server, self._receive
            )
            self._set_idle(True)
            tasks.spawn(self._watch_idle)
            await self._read()

    def _note(self, message: Any) -> None:
        """What the application is about to send."""
        self._protocol.last_part = not message.get("more_body", False)

    async def close(self) -> None:
        with suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
        await self._stream.aclose()

    async def _read(self) -> None:
        try:
            while data := await self._stream.receive_some(_READ_BYTES):
                await self._protocol.handle(RawData(bytes(data)))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        self._reading = False
        self._idle.cancel()
        await self._protocol.handle(RawData(b""))
        await self._protocol.handle(Closed())

    async def _receive(self, event: Event) -> None:
        """What the protocol says."""
        if isinstance(event, RawData):
            await self._send(event.data, more_follows=self._protocol.more_follows)
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
        elif isinstance(event, Closed):
            await self._send(b"", more_follows=False)
            await self.close()
            await self._protocol.handle(event)

    async def _send(self, data: bytes, *, more_follows: bool) -> None:
        if more_follows and len(data) <= _JOINED_BYTES:
            self._held.append(data)
            return
        held, self._held = b"".join(self._held), []
        if held and len(data) > _JOINED_BYTES:
            await self._write(held)
            await self._write(data)
        elif held or data:  # the end of a response is empty, if that has a length
            await self._write(held + data)

    async def _write(self, data: bytes) -> None:
        # What another task writes goes first.
        left = data if self._write_lock.locked() else self._write_some(data)
        if not left:
            return
        broken = False
        # Shielded: what was begun is ended, or the client could not tell what follows from it.
        with trio.CancelScope(shield=True):
            async with self._write_lock:
                try:
                    await self._stream.send_all(left)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    broken = True
        if broken:
            await self._protocol.handle(Closed())

    def _write_some(self, data: bytes) -> bytes | memoryview:
        """Write as much as can be without waiting; what is left."""
        try:
            return memoryview(data)[os.write(self._stream.socket.fileno(), data) :]
        except OSError:
            return data  # the socket is full, or broken: `send_all` says which

    def _set_idle(self, idle: bool) -> None:
        seconds = self._config.keep_alive_timeout if idle else math.inf
        self._idle_until = self._idle.deadline = trio.current_time() + seconds

    async def _watch_idle(self) -> None:
        ended = self._context.terminated
        # A request may come in the very moment in which the deadline passes.
        while self._reading and not ended.is_set() and trio.current_time() < self._idle_until:
            with trio.CancelScope(deadline=self._idle_until) as self._idle:
                await ended.wait()
        # At the server's end a connection with a request is closed after it, by Hypercorn.
        if self._reading and self._idle_until < math.inf:
            with trio.CancelScope(shield=True):
                await self._protocol.handle(Closed())
                await self._stream.aclose()


class _Tasks(TaskGroup):
    """Hypercorn's tasks of one connection. What goes to the application is waited for only when
    there is too much of it, and by the application only when there is nothing. `note` is called
    with each message of the application before that is sent."""

    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self._note = note

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        to_app, from_client = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def put(message: Any) -> None:
            try:
                to_app.send_nowait(message)
            except trio.WouldBlock:
                await to_app.send(message)

        async def receive() -> Any:
            try:
                return from_client.receive_nowait()
            except trio.WouldBlock:
                return await from_client.receive()

        async def respond(message: Any) -> None:
            if message is not None:
                self._note(message)
            await send(message)

        self.spawn(_run_app, app, scope, receive, respond)
        return put


async def _run_app(
    app: Any,
    scope: Any,
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    try:
        await app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    except* Exception:  # the boundary: a defect ends the request that met it
        log.exception("internal error")
    finally:
        await send(None)
