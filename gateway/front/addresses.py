"""Connections of each client's address, and how many it may have.

Pure: counts what it is told of. A client is known by its address; one with IPv6 by the first 64
bits, since a subscriber has at least so many addresses (RFC 6177), and may use a new one for each
connection.

Not counted is what comes from this machine: loopback addresses, and sockets that have none. A proxy
in front is such a client, which has the connections of all of its own, and whoever runs programs
here can do worse. Behind a proxy on another machine, all clients have the proxy's address: the
limit is then for the proxy to hold (nginx: `limit_conn`, HAProxy: `src_conn_cur`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gateway.config import plain_address

_SUBSCRIBER_BYTES = 8
"""Of an IPv6 address; an IPv4 address is shorter."""


class AddressCounts:
    """How many connections each address has. Holds nothing of those that have none."""

    def __init__(self, most: int) -> None:
        """`most` connections are allowed to each; 0: any number."""
        self.most = most
        self._taken: Counter[bytes] = Counter()

    def __repr__(self) -> str:
        return f"<AddressCounts {len(self._taken)} addresses, at most {self.most} each>"

    def enter(self, client: bytes) -> bool:
        """Count one more connection of a client, if it may have that."""
        if 0 < self.most <= self._taken[client]:
            return False
        self._taken[client] += 1
        return True

    def leave(self, client: bytes) -> None:
        """One connection has ended."""
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]


def client_of(address: Any) -> bytes | None:
    """Whose connection it is, by the address of its other end as a socket gives it; None: of nobody
    who is counted."""
    if not isinstance(address, tuple):
        return None
    ip = plain_address(address[0])
    return None if ip.is_loopback else ip.packed[:_SUBSCRIBER_BYTES]
