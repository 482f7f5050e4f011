"""The connections to one service: HTTP/1.1 over TCP or TLS, kept for the next request.

This module owns how a service is connected to, and how its answers are read. It does not know which
requests are allowed (`rules`), nor what an agent gets of an answer (`door`).

Both here and towards the agent, h11 reads and writes the messages. It was chosen over a client with
a pool of its own because the address that was judged has to be the one that is connected to, each
clock has its own message, everything that has come is to be passed on in one piece, and this
process, which holds the keys, is to contain as little as it can.
"""

from __future__ import annotations

import select
import ssl
from typing import TYPE_CHECKING

import h11
import trio

from gateway.sandbox.network.addresses import Unreachable, connect, why_service_refused
from gateway.tracebacks import cut_causes

if TYPE_CHECKING:
    from gateway.sandbox.network.addresses import Address
    from gateway.sandbox.network.rules import Service

IDLE_SECONDS = 30.0
"""How long an unused connection is kept: shorter than most servers do, which end it first else."""
MAX_IDLE = 32
"""Unused connections of one service."""
CHUNK = 64 * 1024
"""Bytes that are read at once."""
MAX_HEAD = 64 * 1024
"""Bytes of an answer's head."""
_MAX_INFORMATIONAL = 16
"""Answers with a status of 1xx before the final one."""


class BadAnswer(Exception):  # noqa: N818 - an answer for the agent, no failure of this process
    """The service has answered with something that is not HTTP, or has ended too early.

    The message does not quote what came: it may hold the key.
    """


class Connection:
    """One connection to a service, and the message that is on it."""

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self._stream = stream
        self._socket = socket
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.idle_since = 0.0

    async def send(self, *events: h11.Event) -> None:
        """Send parts of the request at once. Raises trio.BrokenResourceError."""
        if data := b"".join(self._http.send(event) or b"" for event in events):
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError as error:
                cut_causes(error)
                raise

    async def head(self) -> h11.Response:
        """The head of the final answer. Raises BadAnswer."""
        for _ in range(_MAX_INFORMATIONAL):
            event = self._next_event()
            while event is h11.NEED_DATA:
                await self._receive()
                event = self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                break
        raise BadAnswer("it has ended the connection without an answer")

    def arrived(self) -> bytes:
        """What has come of the answer's body. Raises BadAnswer if it ends before its announced
        end."""
        pieces: list[bytes] = []
        while not self.is_whole and (event := self._next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                pieces.append(event.data)
        return b"".join(pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the answer's body has come to its end."""
        return self._http.their_state is not h11.SEND_BODY

    async def wait(self) -> None:
        """Wait for more of the answer, or its end. Raises BadAnswer."""
        await self._receive()

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            early = self._http.trailing_data[1]
            why = "it has ended within its answer" if early else "its answer is not HTTP/1.1"
            raise BadAnswer(why) from error

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(CHUNK)
        except trio.BrokenResourceError:
            raise BadAnswer("it has broken the connection") from None
        self._http.receive_data(bytes(data))

    def make_ready(self) -> bool:
        """Whether another request may be sent, now that the answer is over."""
        if self._http.trailing_data != (b"", False):
            return False  # it would be taken for the answer to the next request
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:
            return False
        return True

    @property
    def is_stale(self) -> bool:
        """Whether the other end has closed the connection, or said what nobody asked for."""
        if isinstance(self._stream, trio.SSLStream) and self._stream._incoming.pending:
            return True  # read from the socket together with the answer, and not decrypted yet
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it at once, without TLS's farewell."""
        self._socket.close()


class Upstream:
    """The connections to one service."""

    def __init__(self, service: Service, *, own_ports: frozenset[int], ca: str | None) -> None:
        # Not the service itself: it holds the key, and connections outlive a rotation of that.
        self.name = service.name
        self._host, self._port = service.host, service.port
        self._authority = service.authority
        self.own_ports = own_ports
        """On which the gateway listens."""
        self._this_machine = _names_this_machine(service.host)
        self._idle: list[Connection] = []
        self._most_idle = MAX_IDLE
        self._tls = None
        if service.scheme == "https":
            self._tls = ssl.create_default_context(cadata=ca)
            self._tls.set_alpn_protocols(["http/1.1"])

    def __repr__(self) -> str:
        return f"<Upstream {self._authority} {len(self._idle)} idle>"

    async def take(self) -> Connection:
        """A connection, kept or new. Raises Unreachable."""
        while self._idle:
            # The one that was used last is the likeliest to be alive.
            connection = self._idle.pop()
            if not connection.is_stale:
                return connection
            connection.close()
        stream = await connect(self._host, self._port, self._why_not)
        if self._tls is None:
            return Connection(stream, stream.socket)
        return Connection(await _secure(stream, self._tls, self._host), stream.socket)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer is over, if it can be used again."""
        if len(self._idle) < self._most_idle and connection.make_ready():
            connection.idle_since = trio.current_time()
            self._idle.append(connection)
        else:
            connection.close()

    def retire(self) -> None:
        """Keep no connection from now on."""
        self._most_idle = 0
        self.close_idle(0)

    def close_idle(self, seconds: float) -> None:
        """Close the connections that have not been used for so long."""
        until = trio.current_time() - seconds
        old = [each for each in self._idle if each.idle_since <= until]
        self._idle = [each for each in self._idle if each.idle_since > until]
        for connection in old:
            connection.close()

    def _why_not(self, address: Address) -> str | None:
        why = why_service_refused(
            address,
            self._port,
            this_machine=self._this_machine,
            own_ports=self.own_ports,
        )
        return why and f"{self._host} is {address}: {why}"


def _names_this_machine(host: str) -> bool:
    """Whether the URL names an address, or this machine itself: then it may be this machine.

    Any other name is resolved by somebody who could make it lead here.
    """
    return (
        ":" in host
        or host.rpartition(".")[2].isdigit()
        or host == "localhost"
        or host.endswith(".localhost")
    )


async def _secure(
    stream: trio.SocketStream, context: ssl.SSLContext, host: str
) -> trio.SSLStream[trio.SocketStream]:
    secure = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {cause.verify_message} (services.NAME.ca)"
        else:
            why = "the handshake of TLS failed"
        raise Unreachable(f"{host}: {why}") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure
