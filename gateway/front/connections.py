"""HTTP/1.1 connections: Hypercorn's protocol over a carrier of our own.

Hypercorn's `H11Protocol` turns bytes into ASGI calls and ASGI messages into bytes. Its own carrier,
`hypercorn.trio.TCPServer`, costs a short request eight task switches, two writes and a task that
watches the silence after it. This module replaces the carrier and leaves the protocol as it is.
Nothing here knows what is served.

Theory of operation
-------------------

A connection is three kinds of tasks in one nursery. The *reader* (`_Connection._read`) hands what
the client sends to the protocol. Each request runs as an *application* task (`_run_app`). One
*watcher* closes the connection when it has been idle for too long.

**Input.** The protocol is called by the reader only, and calls back with events: a request starts
an application task, a part of a body is put into that task's queue. Neither side of the queue
enters trio's scheduler unless it must wait: the reader when the queue is full (backpressure on the
client), the application when it is empty.

**Output.** What the protocol has to send is appended to `_output`, and `_flush` writes it in one
`writev`. An application flushes at the end of each ASGI message, the reader at the end of each
read. `http.response.start` alone flushes nothing, since ASGI forbids a server to send the head
before the first `http.response.body`. So a head is coalesced with the first part of its body, the
last part with the end of the message, and a short response is one write. An empty part with
`more_body` sends the head by itself.

**Writing.** A write is tried at once, without a checkpoint; what the socket does not take is sent
under `_write_lock`, so that writes keep their order. That send is shielded from cancellation: half
of a write would leave the client with bytes that nothing can follow. The socket's TCP_USER_TIMEOUT
bounds it.

**Time.** `_idle_until` is when the present silence has lasted for too long, and infinite while a
request is being served. A request moves this deadline instead of starting and ending a task.

**Ends.** When the client leaves, the reader tells the protocol, which tells the application
(`http.disconnect`). When a response was the last of its connection, the protocol says `Closed`.
The connection is over when the reader has ended and every application has returned. A defect ends
the connection in which it was met, and no other.
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
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from gateway.front.target import SENT_METHOD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import h11
    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.typing import LifespanState

log = logging.getLogger("gateway.http")

_READ_BYTES = 256 * 1024
"""Most bytes per read: each passes through the protocol, and a large body should be few of them."""


async def serve_http(
    app: Any,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on the sockets of `config.bind`, as `hypercorn.trio.serve` does.

    Stops listening when `shutdown_trigger` returns. Returns when every connection has ended, at the
    latest `config.graceful_timeout` seconds later.
    """
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
    """Hypercorn's protocol, limited to HTTP/1.1.

    An offer to upgrade to HTTP/2 is ignored, and HTTP/2's preface is a request like any other, for
    something that does not exist.
    """

    async def _create_stream(self, request: h11.Request) -> None:
        # Hypercorn hands the method on in upper case, but it is case-sensitive (RFC 9110, 9.1).
        self.connection_state[SENT_METHOD] = request.method.decode("ascii")
        await super()._create_stream(request)
        # An invalid WebSocket handshake is refused without calling the application, whose end
        # would otherwise end the connection.
        if isinstance(self.stream, WSStream) and self.stream.closed:
            await self._maybe_recycle()

    async def _check_protocol(self, event: object) -> None:
        pass


class _Connection:
    """One client's connection, from accept to close."""

    def __init__(self, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        self._config = config
        self._context = context
        self._stream = stream
        self._protocol: _Protocol
        self._output: list[bytes] = []
        self._write_lock = trio.Lock()
        self._reading = True
        self._idle_until = math.inf
        self._idle = trio.CancelScope()

    async def run(self, app: ASGIWrapper, state: ConnectionState) -> None:
        """Serve requests until the connection ends."""
        socket = self._stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
        except OSError:  # the client has left already
            return
        async with _Tasks(self._flush) as tasks:
            self._protocol = _Protocol(
                app,
                self._config,
                self._context,
                tasks,
                state,
                False,
                client,
                server,
                self._on_protocol_event,
            )
            self._set_idle(True)
            tasks.spawn(self._watch_idle)
            await self._read()

    async def close(self) -> None:
        """Send EOF and close the socket."""
        with suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
        await self._stream.aclose()

    async def _read(self) -> None:
        try:
            while data := await self._stream.receive_some(_READ_BYTES):
                await self._protocol.handle(RawData(bytes(data)))
                await self._flush()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        self._reading = False
        self._idle.cancel()
        await self._protocol.handle(RawData(b""))
        await self._protocol.handle(Closed())

    async def _on_protocol_event(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data:  # the end of a response is empty when its length was given
                self._output.append(event.data)
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
        elif isinstance(event, Closed):
            await self._flush()
            await self.close()
            await self._protocol.handle(event)

    async def _flush(self) -> None:
        """Write everything that the protocol has produced since the last flush."""
        if self._output:
            parts, self._output = self._output, []
            await self._write(parts)

    async def _write(self, parts: Sequence[bytes]) -> None:
        # A write that another task has begun goes first.
        left = parts if self._write_lock.locked() else self._write_some(parts)
        if not left:
            return
        broken = False
        # Shielded: a write that was begun is finished, or nothing that follows could be understood.
        with trio.CancelScope(shield=True):
            async with self._write_lock:
                try:
                    for part in left:
                        await self._stream.send_all(part)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    broken = True
        if broken:
            await self._protocol.handle(Closed())

    def _write_some(self, parts: Sequence[bytes]) -> Sequence[bytes | memoryview]:
        """Write as much as is possible without waiting; returns what is left."""
        try:
            written = os.writev(self._stream.socket.fileno(), parts)
        except OSError:
            return parts  # the socket is full or broken: `send_all` waits, or raises
        for index, part in enumerate(parts):
            if written < len(part):
                return [memoryview(part)[written:], *parts[index + 1 :]]
            written -= len(part)
        return ()

    def _set_idle(self, idle: bool) -> None:
        seconds = self._config.keep_alive_timeout if idle else math.inf
        self._idle_until = self._idle.deadline = trio.current_time() + seconds

    async def _watch_idle(self) -> None:
        ended = self._context.terminated
        # A request that arrives at the very moment of the deadline has moved it.
        while self._reading and not ended.is_set() and trio.current_time() < self._idle_until:
            with trio.CancelScope(deadline=self._idle_until) as self._idle:
                await ended.wait()
        # At shutdown, Hypercorn closes a connection that serves a request after its response.
        if self._reading and self._idle_until < math.inf:
            with trio.CancelScope(shield=True):
                await self._protocol.handle(Closed())
                await self._stream.aclose()


class _Tasks(TaskGroup):
    """The tasks of one connection. `flush` is called at the end of each message that produces
    output."""

    def __init__(self, flush: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._flush = flush

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request; returns the function that queues its input."""
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
            await send(message)
            if message is None or message["type"] != "http.response.start":
                await self._flush()

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
