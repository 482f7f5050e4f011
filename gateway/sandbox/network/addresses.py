"""Which addresses a process of the network may connect to, for an agent.

This module owns the judgement of addresses, and their resolution from names: the address that was
judged is the one that is connected to, so that a name cannot lead elsewhere in between. It does not
know what an agent's settings allow by name (`targets`, `rules`).
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - loaded before the right to read the interpreter is given up
import errno
import ipaddress
import math
import os
import socket as stdlib_socket
from typing import TYPE_CHECKING

import trio

from gateway.sandbox.network.enclosure import RESOLV_CONF

if TYPE_CHECKING:
    from collections.abc import Callable

# IPv6 prefixes that embed an IPv4 address in the last 32 bits, which is the one that is reached.
_EMBEDDING = tuple(ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "::ffff:0:0:0/96"))

ATTEMPT_SECONDS = 4.0
"""For one address of several: behind a network whose IPv6 leads nowhere, the next one answers."""

THIS_MACHINE = "it is this machine"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unreachable(Exception):  # noqa: N818 - an answer for the agent, no failure of this process
    """No connection, for a reason that can be told. `refused`: by the judgement of an address."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


def why_refused(address: Address, *, by_name: bool) -> str | None:
    """Why no agent may reach the address by its `network` setting, or None.

    `by_name` tells whether the operator named the host without a wildcard: such a host may be in a
    private network. This machine and link-local addresses (metadata services) are always refused.
    """
    address = _meant(address)
    if (why := _why_never(address)) is not None:
        return why
    if address.is_loopback or _is_own(address):
        return THIS_MACHINE
    if not address.is_global and not by_name:
        return "it is in a private network; only a host that is named without * may be"
    return None


def why_service_refused(
    address: Address, port: int, *, this_machine: bool, own_ports: frozenset[int]
) -> str | None:
    """Why a service may not be reached at the address, or None.

    Its URL is the operator's word, so that it may be in a private network; and on this machine if
    the URL says so (`this_machine`), but never at a port on which the gateway itself listens.
    """
    address = _meant(address)
    if (why := _why_never(address)) is not None:
        return why
    if address.is_loopback or _is_own(address):
        if not this_machine:
            return "it is this machine, which the URL has to name as localhost or by its address"
        if port in own_ports:
            return "it is the gateway itself"
    return None


def _why_never(address: Address) -> str | None:
    if address.is_multicast or (address.version == 4 and address.is_reserved):
        return "it is no single host"
    if address.is_link_local:
        return "it is link-local, where metadata services are"
    return f"{THIS_MACHINE}, by no address of its own" if address.is_unspecified else None


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := address.ipv4_mapped or address.sixtofour) is not None:
            return inner
        if any(address in network for network in _EMBEDDING):
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_own(address: Address) -> bool:
    """Whether the address is one of this machine's, which are the only ones that can be bound.

    If that cannot be found out, for example for lack of descriptors, the answer is yes.
    """
    family = stdlib_socket.AF_INET if address.version == 4 else stdlib_socket.AF_INET6
    try:
        with stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


async def connect(
    host: str, port: int, why_not: Callable[[Address], str | None]
) -> trio.SocketStream:
    """A connection to the first address of the host that answers.

    `why_not` judges each address before it is connected to; the first that it has something against
    ends the attempt. Raises Unreachable.
    """
    try:
        # As bytes: a str would be changed by IDNA first.
        found = await trio.socket.getaddrinfo(
            host.encode("ascii"), port, type=trio.socket.SOCK_STREAM
        )
    except OSError as error:
        cause = error.strerror or str(error)
        if _was_replaced(RESOLV_CONF):
            cause += f"; {RESOLV_CONF} was replaced since: restart the gateway for its name servers"
        raise Unreachable(f"{host} cannot be resolved: {cause}") from None
    complaint = "it has no address"
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        judged = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if (why := why_not(judged)) is not None:
            raise Unreachable(why, refused=True)
        try:
            patience = ATTEMPT_SECONDS if number < len(found) else math.inf
            with trio.move_on_after(patience):
                return await _connect(trio.socket.socket(family, kind, protocol), address)
            complaint = f"{judged} does not answer"
        except OSError as error:
            complaint = os.strerror(error.errno) if error.errno else str(error)
    raise Unreachable(f"{host}:{port} cannot be reached: {complaint}")


def _was_replaced(path: str) -> bool:
    """Whether a file that is mounted here by itself has no name any more where it came from."""
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return False


async def _connect(upstream: trio.socket.SocketType, address: object) -> trio.SocketStream:
    try:
        await upstream.connect(address)
    except BaseException:
        upstream.close()
        raise
    return trio.SocketStream(upstream)
