"""Listening: accepts connections, and ends them in the two steps of a shutdown.

*Draining* closes nothing that is in use: every response tells its client that the connection ends
with it, so that the next request goes elsewhere. *Closing* stops listening. Connections that were
established by then are still accepted, and every connection has a limited time to end.

# When there is no room

Connections come from outside in any number, and each takes a descriptor. Workers take descriptors
of the same process, so connections may have only as many as leave enough for all workers
(`Places`). One more is accepted, told so with a 503, and closed: its client can go
elsewhere, or wait, and a load balancer sees at once what a full backlog would hide. A connection
for which the kernel has no epoll watch (`gateway.readiness`) ends in the same way, and so does one
more than its client may have (`addresses`), with a 429: HAProxy would close it without a word, but
clients try that again at once.

`accept` itself fails where the system has no descriptor left, whatever this process allows itself.
Connections then wait in the backlog, and accepting is tried again.

Neither is logged for each connection, since whoever floods the gateway would fill the disk with it:
the first is logged, and then a count (`Refusals`).
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from gateway.errors import Overloaded, RateLimited
from gateway.front.addresses import AddressCounts, client_of
from gateway.front.connections import Connection
from gateway.front.deadlines import Deadlines
from gateway.front.dialect import retry_headers
from gateway.front.head import new_request_id
from gateway.front.native.errors import encode_error
from gateway.front.refusals import Refusals
from gateway.observe.metrics.readings import ConnectionsReading
from gateway.readiness import EXHAUSTED, register

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.typing import LifespanState

    from gateway.errors import GatewayError

log = logging.getLogger("gateway.http")

_SO_ATTACH_FILTER = 26
"""socket(7). The socket module has no name for it."""

_HANDSHAKE_SECONDS = 0.05
"""For handshakes that have begun, before the listener is closed: on a busy machine even those on
loopback take some milliseconds. Closing it would reset them, and a client may have sent a request
with the last packet of its handshake."""

_EXHAUSTED_SECONDS = 0.1
"""Before the next attempt to accept a connection, where the system has no descriptor left."""

_REFUSED_SECONDS = 0.5
"""For a refused client to send its request and to read the answer."""

MAX_REFUSED = 32
"""Refused connections that are open at a time. Any more are closed at once."""

_REFUSED_READ_BYTES = 64 * 1024
"""Of what a refused client has sent already: a socket that is closed with unread bytes resets the
connection, and the client might lose its response."""

_NO_ROOM = Overloaded("the gateway has no room for another connection", retry_after=1)


async def serve_http(
    app: Any,
    config: Config,
    *,
    drain_trigger: Callable[[], Awaitable[None]],
    shutdown_trigger: Callable[[], Awaitable[None]],
    places: Places,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on the sockets of `config.bind`, as `hypercorn.trio.serve` does.

    Any connection for which `places` has none is refused. Drains once `drain_trigger` has returned,
    and closes once `shutdown_trigger` has. Returns when every connection has ended, at the latest
    `config.graceful_timeout` seconds after that.
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
            refusals = Refusals()
            deadlines = Deadlines()
            application.start_soon(deadlines.run, context.terminated.wait)

            connect = partial(
                _serve_connection, app, state, partial(Connection, config, context, deadlines)
            )

            def serve(stream: trio.SocketStream) -> None:
                connections.start_soon(_serve_client, places, refusals, connect, stream)

            async with trio.open_nursery() as until_shutdown:
                for listener in config.create_sockets().insecure_sockets:
                    until_shutdown.start_soon(_accept, listener, serve, refusals)
                until_shutdown.start_soon(drain)
                task_status.started()
                await shutdown_trigger()
                until_shutdown.cancel_scope.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        refusals.report()
        await lifespan.wait_for_shutdown()
        application.cancel_scope.cancel()


class Places:
    """The descriptors that connections may have, and whose they are."""

    def __init__(self, number: float, addresses: AddressCounts) -> None:
        self.number = number
        self.addresses = addresses
        self.taken = 0
        self.refused = 0
        """Refused connections that are not closed yet."""
        self.refused_in_all = 0

    def __repr__(self) -> str:
        return f"<Places {self.taken} of {self.number} taken>"

    @property
    def reading(self) -> ConnectionsReading:
        """What the metrics are told."""
        return ConnectionsReading(open=self.taken, most=self.number, refused=self.refused_in_all)


async def _accept(
    listener: socket.socket, serve: Callable[[trio.SocketStream], None], refusals: Refusals
) -> None:
    """Accept connections until cancelled, and then those that are established already."""
    with listener:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        try:
            while True:
                try:
                    stream = await accepting.accept()
                except OSError as error:
                    if error.errno not in EXHAUSTED:
                        raise
                    refusals.add(f"no connection can be accepted: {error.strerror}")
                    await trio.sleep(_EXHAUSTED_SECONDS)
                else:
                    serve(stream)
        finally:
            # Closing the listener resets the connections that wait in its queue.
            refuse_handshakes(listener)
            with trio.CancelScope(shield=True):  # in the kernel's time, whatever trio's clock is
                await trio.to_thread.run_sync(time.sleep, _HANDSHAKE_SECONDS)
            while (established := _accept_nowait(listener)) is not None:
                serve(trio.SocketStream(trio.socket.from_stdlib_socket(established)))


def refuse_handshakes(listener: socket.socket) -> None:
    """Have the kernel drop each SYN, so that no connection is established between the last accept
    and the close. Its client tries again, and is refused then."""
    # Classic BPF over the TCP header: drop what has SYN and not ACK among its flags (byte 13).
    program = struct.pack(
        "=" + "HBBI" * 5,
        *(0x30, 0, 0, 13),
        *(0x54, 0, 0, 0x12),
        *(0x15, 0, 1, 0x02),
        *(0x06, 0, 0, 0),
        *(0x06, 0, 0, 0xFFFFFFFF),
    )
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HP", 5, ctypes.addressof(code))
    with suppress(OSError):  # the race is short
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def _accept_nowait(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except OSError:
        return None


async def _serve_client(
    places: Places,
    refusals: Refusals,
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    stream: trio.SocketStream,
) -> None:
    """Serve a connection, or refuse it where its client may have no more."""
    addresses = places.addresses
    client = _client_of(stream) if addresses.most else None
    if client is None:
        await _serve_in_place(places, refusals, serve, stream)
    elif addresses.enter(client):
        try:
            await _serve_in_place(places, refusals, serve, stream)
        finally:
            addresses.leave(client)
    else:
        sentence = f"as many connections as one address may have, {addresses.most}, are open"
        error = RateLimited(sentence, retry_after=1, setting="server.connections_per_address")
        await _refuse(stream, places, refusals, f"{_host_of(stream)}: {sentence}", error)


def _host_of(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # the client has left already
        return "an address"


def _client_of(stream: trio.SocketStream) -> bytes | None:
    try:
        return client_of(stream.socket.getpeername())
    except OSError:  # the client has left already
        return None


async def _serve_in_place(
    places: Places,
    refusals: Refusals,
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    stream: trio.SocketStream,
) -> None:
    """Serve a connection, or refuse it where there is no room for it."""
    if places.taken >= places.number:
        reason = f"{places.number} are open, and other descriptors are kept for workers"
        await _refuse(stream, places, refusals, reason)
        return
    places.taken += 1
    try:
        try:
            await register(stream.socket.fileno())
        except OSError as error:
            await _refuse(stream, places, refusals, f"it cannot be watched: {error.strerror}")
        else:
            await serve(stream)
    finally:
        places.taken -= 1


async def _refuse(
    stream: trio.SocketStream,
    places: Places,
    refusals: Refusals,
    reason: str,
    error: GatewayError = _NO_ROOM,
) -> None:
    """Answer whatever the client asks for by an error. Waits for no event, since none may come."""
    refusals.add(f"a connection is refused: {reason}")
    descriptor = stream.socket.detach()
    places.refused += 1
    places.refused_in_all += 1
    try:
        with suppress(OSError):  # the client has left
            os.write(descriptor, _refusal(error))
        if places.refused <= MAX_REFUSED:
            await trio.sleep(_REFUSED_SECONDS)
        with suppress(OSError):  # it has sent nothing, or has left
            os.read(descriptor, _REFUSED_READ_BYTES)
    finally:
        places.refused -= 1
        os.close(descriptor)


def _refusal(error: GatewayError) -> bytes:
    request_id = new_request_id()
    response = encode_error(error, request_id)
    fields = [
        *response.headers,
        *retry_headers(error, handed_over=False),
        (b"content-length", b"%d" % len(response.body)),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    status = b"%d %b" % (response.status, HTTPStatus(response.status).phrase.encode())
    return b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, head, response.body)


async def _serve_connection(
    app: Any,
    state: LifespanState,
    new_connection: Callable[[trio.SocketStream], Connection],
    stream: trio.SocketStream,
) -> None:
    connection = new_connection(stream)
    try:
        await connection.run(app, ConnectionState(state.copy()))
    except* Exception:  # the boundary: a defect ends the connection that met it, and no other
        log.exception("internal error: a connection is closed")
    finally:
        stream.socket.close()
