"""HTTP connections: Hypercorn's own, with less done for each request.

Hypercorn writes the head and the body of a response apart, and starts a task at the end of each
request to watch over the silence that follows. Here a head leaves with what follows it, and one
task for each connection watches, whose deadline is moved. Knows nothing of what is served.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Closed, RawData
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.typing import LifespanState

_READ_BYTES = 64 * 1024
"""Read at once: as much as Hypercorn reads."""

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
            handler = partial(_Connection, wrapped, config, context, ConnectionState(state.copy()))
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


class _Connection(TCPServer):
    """One connection, as Hypercorn's but for what the module's docstring says."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._clock = _IdleClock(self.config.keep_alive_timeout, self.context)
        self.idle_task = self._clock
        self._head = b""

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
        elif self._head:
            # Also an end without a body, which is empty.
            head, self._head = self._head, b""
            if len(event.data) > _JOINED_BYTES:
                await self._write(head)
                await self._write(event.data)
            else:
                await self._write(head + event.data)
        elif event.data.startswith(b"HTTP/1.1 ") and event.data[9:10] != b"1":
            # The head of a final response: always followed by a part or by the end.
            self._head = event.data
        elif event.data:
            await self._write(event.data)

    async def _write(self, data: bytes) -> None:
        await super().protocol_send(RawData(data))

    async def _read_data(self) -> None:
        try:
            while data := await self.stream.receive_some(_READ_BYTES):
                await self.protocol.handle(RawData(bytes(data)))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        self._clock.end()
        await self.protocol.handle(RawData(b""))
        await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()


class _IdleClock(TrioSingleTask):
    """Closes a connection that has been silent between two requests for as long as it may be."""

    def __init__(self, seconds: float, context: WorkerContext) -> None:
        self._seconds = seconds
        self._terminated = context.terminated
        self._scope = trio.CancelScope()
        self._started = False

    async def restart(self, task_group: Any, action: Callable[[], Awaitable[None]]) -> None:
        """A request has ended, or the connection has begun."""
        self._scope.deadline = trio.current_time() + self._seconds
        if not self._started:
            self._started = True
            task_group.spawn(self._watch, action)

    async def stop(self) -> None:
        """A request has begun."""
        self._scope.deadline = math.inf

    def end(self) -> None:
        """The client sends nothing more."""
        self._scope.cancel()

    async def _watch(self, close: Callable[[], Awaitable[None]]) -> None:
        with self._scope:
            await self._terminated.wait()
        # At the server's end a connection with a request is closed after it, by Hypercorn.
        if self._scope.deadline < math.inf:
            await close()
