"""Listening: accepts connections, and ends them in the two steps of a shutdown.

*Draining* closes nothing that is in use: every response tells its client that the connection ends
with it, so that the next request goes elsewhere. *Closing* stops listening. Connections that were
established by then are still accepted, and every connection has a limited time to end.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from gateway.front.connections import Connection
from gateway.observe import logs

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.typing import LifespanState

log = logging.getLogger("gateway.http")

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""The process or the system has no room for another connection: accept(2), epoll_ctl(2)."""

_EXHAUSTED_SECONDS = 0.1
"""Before the next attempt to accept a connection then."""


async def serve_http(
    app: Any,
    config: Config,
    *,
    drain_trigger: Callable[[], Awaitable[None]],
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on the sockets of `config.bind`, as `hypercorn.trio.serve` does.

    Drains once `drain_trigger` has returned, and closes once `shutdown_trigger` has. Returns when
    every connection has ended, at the latest `config.graceful_timeout` seconds after that.
    """
    state: LifespanState = {}
    lifespan = Lifespan(ASGIWrapper(app), config, state)
    context = WorkerContext(None)

    async def drain() -> None:
        await drain_trigger()
        await context.terminated.set()

    async with trio.open_nursery() as application:
        await application.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            serve = partial(_serve_connection, app, config, context, state)
            async with trio.open_nursery() as until_shutdown:
                for listener in config.create_sockets().insecure_sockets:
                    until_shutdown.start_soon(
                        _accept, listener, partial(connections.start_soon, serve)
                    )
                until_shutdown.start_soon(drain)
                task_status.started()
                await shutdown_trigger()
                until_shutdown.cancel_scope.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        await lifespan.wait_for_shutdown()
        application.cancel_scope.cancel()


async def _accept(listener: socket.socket, serve: Callable[[trio.SocketStream], None]) -> None:
    """Accept connections until cancelled, and then those that are established already."""
    exhausted = False
    with listener:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        try:
            while True:
                try:
                    stream = await accepting.accept()
                except OSError as error:
                    if error.errno not in _EXHAUSTED:
                        raise
                    if not exhausted:  # once, however many are refused
                        reason = error.strerror
                        logs.event(log, logging.ERROR, f"no connection can be accepted: {reason}")
                    exhausted = True
                    await trio.sleep(_EXHAUSTED_SECONDS)
                else:
                    exhausted = False
                    serve(stream)
        finally:
            # Closing the listener resets the connections that wait in its queue.
            while (established := _accept_nowait(listener)) is not None:
                serve(trio.SocketStream(trio.socket.from_stdlib_socket(established)))


def _accept_nowait(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except OSError:
        return None


async def _serve_connection(
    app: Any,
    config: Config,
    context: WorkerContext,
    state: LifespanState,
    stream: trio.SocketStream,
) -> None:
    connection = Connection(config, context, stream)
    try:
        await connection.run(app, ConnectionState(state.copy()))
    except* Exception:  # the boundary: a defect ends the connection that met it, and no other
        log.exception("internal error: a connection is closed")
    finally:
        stream.socket.close()
