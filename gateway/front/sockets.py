"""The sockets that the gateway listens on.

A name may stand for several addresses: `localhost` is 127.0.0.1 and ::1 on most machines, and some
clients try only one of them. All of them are listened on, under the same port. An address of a
family that the machine does not have is left out; one whose port is in use is an error, because
another program would get a part of the requests.
"""

from __future__ import annotations

import errno
import math
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol

from gateway.config import ConfigError, plain_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.config import CallerKeys, ServerSettings

BACKLOG = 1024
"""Connections that may wait to be accepted: a burst of clients is not refused by the kernel."""

UNREAD_SECONDS = 30.0
"""A client may leave a response unread that is no agent's, such as a status; agents have their
`write` clocks."""

PORT_ATTEMPTS = 20
"""How often a free port of one address is looked for that is free at the others as well."""

_NOT_HERE = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})
"""What socket(2) and bind(2) say of an address that the machine does not have."""


class HasOptions(Protocol):
    """A socket, of the standard library or of trio."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


class ListenError(Exception):
    """The gateway cannot listen where it is told to; the message says why."""


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of `host`; port 0 is one free port, the same at all addresses.

    Connections inherit TCP_USER_TIMEOUT (tcp(7)) of `UNREAD_SECONDS`: what a client leaves unread
    for that long ends its connection. Raises ListenError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        listeners = _bind_all(addresses, attempts=PORT_ATTEMPTS if port == 0 else 1)
    except (OSError, UnicodeError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "the port is in use" if in_use else getattr(error, "strerror", None) or error
        where = "--host and --port, or [server] host and port, say where"
        raise ListenError(f"cannot listen on {host}:{port}: {reason}; {where}") from None
    for listener in listeners:
        set_unread_limit(listener, UNREAD_SECONDS)
        listener.listen(BACKLOG)
    return listeners


def set_unread_limit(connection: HasOptions, seconds: float) -> None:
    """Set TCP_USER_TIMEOUT (tcp(7)); infinity is none. A connection that has ended is left alone.

    The system resets a connection whose peer takes nothing for that long, also when it says that
    it has no room.
    """
    milliseconds = 0 if math.isinf(seconds) else max(1, int(seconds * 1000))  # 0 is none
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _bind_all(addresses: Sequence[tuple[int, Any]], *, attempts: int) -> list[socket.socket]:
    """Raises OSError, also if the machine has none of the addresses."""
    while True:
        attempts -= 1
        try:
            return _bind_each(addresses)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not attempts:
                raise


def _bind_each(addresses: Sequence[tuple[int, Any]]) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as opened:
        for family, (host, asked_for, *others) in addresses:
            # The port that was found free at the first address counts for the others as well.
            port = bound[0].getsockname()[1] if bound else asked_for
            try:
                listener = _bind(family, (host, port, *others), alone=len(addresses) == 1)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                bound.append(opened.enter_context(listener))
        if missing is not None and not bound:
            raise missing
        opened.pop_all()
    return bound


def _bind(family: int, address: Any, *, alone: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            # Or :: would take the port at every IPv4 address, too.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(host: str, listeners: Sequence[socket.socket]) -> str:
    """Where a client finds the gateway: at the address, or by the name if that has several."""
    address, port = listeners[0].getsockname()[:2]
    shown = host if len(listeners) > 1 else address
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def addresses_of(listeners: Iterable[socket.socket]) -> list[str]:
    """The IP addresses that are listened on."""
    return [listener.getsockname()[0] for listener in listeners]


def resolve(host: str) -> list[str]:
    """The IP addresses that `open_listeners` would try; none if the name cannot be resolved now."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def only_loopback(addresses: Iterable[str]) -> bool:
    """Whether only this machine can connect to these IP addresses."""
    return all(plain_address(address).is_loopback for address in addresses)


def has_console(server: ServerSettings, keys: CallerKeys, addresses: Iterable[str]) -> bool:
    """Whether there is a console, as `[server] console` says, for who can connect to these
    addresses: by default not for strangers without keys, who would see every request and line.
    Hosts beside the machine's own are what a proxy serves to strangers, by the loopback."""
    if server.console is not None:
        return server.console
    return keys.on or (only_loopback(addresses) and not server.hosts)


def refuse_strangers(server: ServerSettings, keys: CallerKeys, addresses: Iterable[str]) -> None:
    """Check that only this machine can connect to the addresses, unless callers need keys, or the
    settings say that they do not. Raises ConfigError."""
    if not keys.on and not server.allow_anonymous and not only_loopback(addresses):
        raise ConfigError(
            f"server.host is {server.host!r}, where other machines can connect, and there are no "
            "keys: make one (gateway key new) for [keys.NAME], or say that anybody who can connect "
            "may call the agents: [server] allow_anonymous = true"
        )
