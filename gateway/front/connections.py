"""HTTP/1.1 connections: a carrier of our own, in the place of Hypercorn's.

Hypercorn's carrier and protocol, `hypercorn.trio.TCPServer`, `H11Protocol` and `HTTPStream`, cost a
short request eight task switches, two writes, two tasks, and checks of what we wrote ourselves; and
they stop reading where they should notice that a client leaves. This module carries bytes, `http1`
knows what they mean, `asgi` makes calls of them. Nothing here knows what is served.

Theory of operation
-------------------

A connection is one task (`Connection._serve`), which waits for a request, calls the application for
it (`asgi.Call`), and goes on to the next one. The deadlines of all connections are kept by one more
task (`deadlines`).

**Input** is read by whoever waits for it: the connection's task between two requests, and the
application's `receive` during one. So an application that takes no more of a body leaves it to the
kernel, which stops the client (backpressure), and one that waits for the client's end, as every
response does that takes a while (`answers`), waits for the socket itself: no task and no queue
stands between. `http1.HTTP1Requests` keeps what belongs to later requests.

**Output.** What the protocol has to send is appended to `_output`, and `flush` writes it in one
`writev`. An application flushes at the end of each ASGI message, a reader at the end of each read.
`http.response.start` alone flushes nothing, since ASGI forbids a server to send the head before the
first `http.response.body`. So a head is coalesced with the first part of its body, the
last part with the end of the message, and a short response is one write. An empty part with
`more_body` sends the head by itself.

**Writing.** A write is tried at once, without a checkpoint; what the socket does not take is sent
under `_write_lock`, so that writes keep their order. That send is shielded from cancellation: half
of a write would leave the client with bytes that nothing can follow. The socket's TCP_USER_TIMEOUT
bounds it, which `limit_unread` sets to the `write` clock of the agent that answers, and a least
rate bounds a client that reads, but next to nothing.

**Time.** A connection has a deadline, except while a request is served, which has clocks of its
own: `keep_alive` for the silence before a request, `_HEAD_SECONDS` for its head, then none until
the response is written, and `_LINGER_SECONDS` after the last response. A request moves the
deadline: no task is started, ended or woken for it. A request that has arrived when the silence has
lasted too long is served: the clock looks into the socket before it closes it.

**The client's end.** An EOF says that the client sends nothing more, which is less than that it has
left. In the middle of a request or of its response it has left: the application gets
`http.disconnect`. Between the two it may be a half-closed client that waits for its answer. It is
told apart by an interim response (`100 Continue`, which every client of HTTP/1.1 must expect, RFC
9110, 15.2): the kernel of a client that has left answers with a reset. Nobody may have waited for
the client when its EOF came, so it is looked for before a response begins that is not whole.

**Our end.** After the last response, and after a refusal, our side is shut down, and what the
client still sends is read and dropped until it closes its side (RFC 9112, 9.6): closing at once
would reset the connection, and the client could lose a response that it has not read yet. A refusal
comes a moment late (`asgi.REFUSAL_SECONDS`), so that nobody can be refused often. The connection is
over when the client has closed its side and the application has returned. A defect ends the
connection in which it was met, and no other.

**Draining.** Once `WorkerContext.terminated` is set, each response is the last of its connection
and says so. A connection without a request has `_DRAIN_SECONDS` more, since a proxy may be sending
one at this moment.
"""

from __future__ import annotations

import array
import fcntl
import math
import os
import socket
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
import trio
from hypercorn.utils import parse_socket_addr

from gateway import clock
from gateway.front.asgi import HTTP1Protocol
from gateway.front.client import LIMIT_UNREAD
from gateway.front.http1 import HTTP1Requests
from gateway.front.http1_response import CONTINUE
from gateway.front.sockets import UNREAD_SECONDS, set_unread_limit
from gateway.tracebacks import cut_causes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState

    from gateway.front.deadlines import Deadlines

_READ_BYTES = 448 * 1024
"""Most bytes per read: each costs a turn of the loop, and a large body should be few of them. Two
are held at a time: what was sent ahead, and what comes after it."""

_JOINED_BYTES = 64 * 1024
"""Up to this size, joining parts costs less than giving the kernel several."""

MAX_HELD_PER_CONNECTION = 1024 * 1024
"""Bytes that one connection can make the gateway hold besides its request: two reads, a head, and
the objects and the task that serve it."""

_HEAD_SECONDS = 15.0
"""For the head of a request, from its first byte."""

LEAST_READ_RATE = 16 * 1024
"""Bytes a second that a client reads in the long run, besides the `write` clock: what it leaves
unread is held for it. A slow telephone line takes as many."""

_KEEP_ALIVE_GRACE_SECONDS = 1.0
"""By which a silent connection outlives the time that its client was told: a request that was sent
in time may be on its way."""

_DRAIN_SECONDS = 1.0
"""For connections without a request, once the gateway drains."""

_LINGER_SECONDS = 5.0
"""For a client to send the rest of a body that is refused, to read the last response, and to close
its side."""

_PROBE_SECONDS = 0.5
"""Before a client that has shut down its side is sent the first interim response; each further one
comes after twice the time."""


class Connection:
    """One client's connection, from accept to close. Also the transport of its protocol."""

    def __init__(
        self,
        config: Config,
        context: WorkerContext,
        deadlines: Deadlines,
        stream: trio.SocketStream,
    ) -> None:
        self._config = config
        self._context = context
        self._stream = stream
        self._deadlines = deadlines
        self._requests = HTTP1Requests(_keep_alive_lines(config), context.terminated.is_set)
        self._protocol: HTTP1Protocol
        self._output: list[bytes] = []
        self._write_lock = trio.Lock()
        self._client_ended = False
        """Whether the client has sent its EOF."""
        self._closing = False
        self.deadline = math.inf
        """On the running clock."""
        self._unread_seconds = UNREAD_SECONDS  # as the listener's sockets have it

    async def run(self, app: Any, state: ConnectionState) -> None:
        """Serve requests until the connection ends."""
        sock = self._stream.socket
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
        except OSError:  # the client has left already
            return
        base = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "scheme": "http",
            "root_path": self._config.root_path,
            "client": client,
            "server": server,
        }
        state[LIMIT_UNREAD] = self.limit_unread
        most = self._config.keep_alive_max_requests
        self._protocol = HTTP1Protocol(self, self._requests, base, state, most)
        self._start_idle_clock()
        try:
            await self._serve(app)
        finally:
            self._abort()
            self._deadlines.forget(self)

    async def _serve(self, app: Any) -> None:
        while not self._closing:
            if (call := self._protocol.call) is not None:
                await call.run(app)
            elif self._client_ended and not self._requests.pending:
                return
            else:
                await self.read_more()
        # What comes after the last response is dropped.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._receive_some():
                pass

    # Input, of `asgi.Transport`

    async def read_more(self) -> None:
        if self._requests.pending:
            # Nothing is waited for: a client that has sent much at once would have every turn.
            await trio.lowlevel.checkpoint()
            await self._handle(b"")
        elif self._client_ended:
            await self._outlast_half_closed()
        else:
            try:
                data = await self._receive_some()
            # Either: the client has reset the connection, or it was closed here.
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._leave()
                return
            if not data and self._requests.our_state is h11.SEND_BODY:
                self._leave()
            else:
                await self._take(data)

    async def read_present(self) -> None:
        if self._client_ended:
            return
        try:
            data = os.read(self._stream.socket.fileno(), _READ_BYTES)
        except OSError:
            return  # nothing is there, or whoever writes next meets the same
        await self._take(data)

    # The same from inside

    async def _take(self, data: bytes) -> None:
        """Handle what was read: bytes, or the client's EOF."""
        if not data:
            self._client_ended = True
            self._requests.receive_eof()
        await self._handle(data)

    async def _receive_some(self) -> bytes:
        """As `trio.SocketStream.receive_some`, but waits first: mostly nothing is there yet."""
        sock = self._stream.socket
        while (descriptor := sock.fileno()) >= 0:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error
        raise trio.ClosedResourceError

    async def _handle(self, data: bytes) -> None:
        was_in_head = self._requests.in_head
        await self._protocol.receive(data)
        await self.flush()
        if self._requests.in_head and not was_in_head and not self._closing:
            self._set_deadline(_HEAD_SECONDS)

    async def _outlast_half_closed(self) -> None:
        """Wait until a client that sends nothing more has its response, or has left altogether."""
        patience = _PROBE_SECONDS
        while not self._closing:
            await trio.sleep(patience)
            patience *= 2
            if self._requests.our_state is h11.SEND_RESPONSE:
                if not self._requests.can_be_probed:
                    self._leave()
                    return
                self.write(CONTINUE)
                await self.flush()

    # Output

    def limit_unread(self, seconds: float) -> None:
        """Reset the connection once its client has left output unread for so long."""
        if seconds != self._unread_seconds:
            self._unread_seconds = seconds
            set_unread_limit(self._stream.socket, seconds)

    async def flush(self) -> None:
        """Write everything that the protocol has produced since the last flush."""
        if self._output:
            parts, self._output = self._output, []
            await self._write(parts)
        if self.deadline == math.inf and self._protocol.call is None and not self._closing:
            self._start_idle_clock()

    # Output, of `asgi.Transport`

    def write(self, data: bytes) -> None:
        if data:  # the end of a response is empty when its length was given
            self._output.append(data)

    def request_begun(self) -> None:
        self.deadline = math.inf  # until the response is written

    async def end(self) -> None:
        if not self._closing:
            self._closing = True
            await self._shut_down_output()
            self._protocol.disconnect()

    # The socket

    async def _write(self, parts: Sequence[bytes]) -> None:
        # A write that another task has begun goes first.
        left = parts if self._write_lock.locked() else self._write_some(parts)
        if not left:
            return
        # Shielded: a write that was begun is finished, or nothing that follows could be understood.
        with trio.CancelScope(shield=True):
            async with self._write_lock:
                try:
                    # A client that reads a byte now and then is not silent to TCP_USER_TIMEOUT.
                    with trio.fail_after(self._patience(sum(map(len, left)))):
                        for part in left:
                            await self._stream.send_all(part)
                except (
                    trio.BrokenResourceError,
                    trio.ClosedResourceError,
                    trio.TooSlowError,
                ) as error:
                    cut_causes(error)
                    self._leave()

    def _patience(self, count: int) -> float:
        """Seconds for a client to read so many bytes."""
        return self._unread_seconds + count / LEAST_READ_RATE

    def _write_some(self, parts: Sequence[bytes]) -> Sequence[bytes | memoryview]:
        """Write as much as is possible without waiting; returns what is left."""
        if sum(map(len, parts)) <= _JOINED_BYTES:
            parts = [b"".join(parts)]
        try:
            descriptor = self._stream.socket.fileno()
            # Of a single part, `write` costs less.
            single = len(parts) == 1
            written = os.write(descriptor, parts[0]) if single else os.writev(descriptor, parts)
        except OSError:
            return parts  # the socket is full or broken: `send_all` waits, or raises
        for index, part in enumerate(parts):
            if written < len(part):
                return [memoryview(part)[written:], *parts[index + 1 :]]
            written -= len(part)
        return ()

    async def _shut_down_output(self) -> None:
        """Send the last bytes and our EOF; the reader then waits for the client's."""
        await self.flush()
        # Shielded for the same reason as a write.
        with trio.CancelScope(shield=True):
            async with self._write_lock:
                with suppress(OSError):  # the client has left, or the connection was aborted
                    self._stream.socket.shutdown(socket.SHUT_WR)
        self._set_deadline(_LINGER_SECONDS)

    def _leave(self) -> None:
        """The client has left."""
        self._abort()
        self._protocol.disconnect()

    def _abort(self) -> None:
        """Close the socket. Whoever waits for it gets trio.ClosedResourceError."""
        self._closing = True
        self._stream.socket.close()

    # Time

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = clock.now() + seconds
        self._deadlines.moved(self)

    def _start_idle_clock(self) -> None:
        if self._requests.in_head:
            self._set_deadline(_HEAD_SECONDS)
        elif self._context.terminated.is_set():
            self._set_deadline(_DRAIN_SECONDS)
        else:
            self._set_deadline(self._config.keep_alive_timeout + _KEEP_ALIVE_GRACE_SECONDS)

    # Of `deadlines.Timed`

    def time_is_up(self) -> None:
        """The deadline has passed."""
        if self._closing or self._requests.in_head or not self._has_input():
            self._abort()
        else:
            self._set_deadline(_HEAD_SECONDS)

    def drain(self) -> None:
        """Shorten the silence when the gateway drains."""
        if not math.isinf(self.deadline) and not self._closing and not self._requests.in_head:
            self._set_deadline(_DRAIN_SECONDS)

    def _has_input(self) -> bool:
        """Whether the socket holds bytes that nobody has taken yet."""
        available = array.array("i", [0])
        fcntl.ioctl(self._stream.socket.fileno(), termios.FIONREAD, available)
        return available[0] > 0


def _keep_alive_lines(config: Config) -> bytes:
    seconds = int(config.keep_alive_timeout)
    return b"connection: keep-alive\r\nkeep-alive: timeout=%d\r\n" % seconds if seconds else b""
