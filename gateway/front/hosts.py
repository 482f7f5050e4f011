"""Which hosts the gateway answers for: the defence against DNS rebinding.

Theory of operation
-------------------

A page of `evil.example` may have its own name resolve to 127.0.0.1, or to an address of the local
network, and then read the gateway through its visitor's browser as if it were its own site. The
browser still says which name it believes to talk to. So a request is answered only if its host is
one that belongs to where the gateway listens, which no stranger can have resolved anew:

- `localhost` and the names below it (RFC 6761, 6.3), and the `host` of the settings;
- the IP address that the connection came in on; on the loopback interface, any of its addresses;
- where the gateway listens on all addresses, any IP address, since rebinding needs a name, and the
  machine's own name;
- what `[server] hosts` adds.

Ports do not matter: another port is often one that is forwarded. A request without a host
(HTTP/1.0) is answered: no browser sends one.

The refusal is 421 (RFC 9110, 15.5.20: "directed at a server that is unable or unwilling to produce
an authoritative response for the target URI"). 403 would say that the request was understood and
that this client may not; here it is the address that is wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.config import ANY_HOST, Address, Host, parse_host, plain_address
from gateway.errors import InvalidRequest, MisdirectedRequest
from gateway.front.dialect import shown

if TYPE_CHECKING:
    from gateway.config import ServerSettings

_AUTHORITY = re.compile(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^\[\]:]*))(?::([0-9]{0,5}))?")
"""RFC 3986, 3.2, without userinfo: an IPv6 address in brackets, or anything else, and a port."""

_MOST_AUTHORITY = 300
"""Characters: a DNS name, its port, and some more."""

_MOST_ACCEPTED = 256
"""Verdicts that are kept. More hosts than that ask in turn only behind `hosts = ["*"]`."""

_MOST_SHOWN = 8
"""Hosts that an error lists as expected."""


class KnownHosts:
    """The hosts that belong to where the gateway listens, and those that the settings add.

    `machine` is the machine's own name.
    """

    def __init__(self, server: ServerSettings, machine: str) -> None:
        self._hosts: dict[Host, None] = {"localhost": None}
        self._any = ANY_HOST in server.hosts
        self._any_address = False
        listens_on = _host_or_none(server.host)
        if isinstance(listens_on, Address) and listens_on.is_unspecified:
            self._any_address = True
            listens_on = _host_or_none(machine)
        if listens_on is not None:
            self._hosts[listens_on] = None
        suffixes = [".localhost"]
        for pattern in server.hosts:
            if pattern.startswith("*."):
                suffixes.append(f".{parse_host(pattern[2:])}")
            elif pattern != ANY_HOST:
                self._hosts[parse_host(pattern)] = None
        self._suffixes = tuple(suffixes)
        self._accepted: set[tuple[bytes, str]] = set()

    def check(self, authority: bytes, own: str) -> None:
        """Whether the gateway answers for a host; `own` is the address that the request came to.

        Raises InvalidRequest for what is not the authority of a URL, and MisdirectedRequest.
        """
        asked = (authority, own)
        if asked in self._accepted:
            return
        host = parse_authority(authority)
        if not self._belongs(host, own):
            raise MisdirectedRequest(
                f"Host is {shown(authority)}, expected {self._expected(own)}; "
                "other names must be added to [server] hosts"
            )
        if len(self._accepted) >= _MOST_ACCEPTED:
            self._accepted.clear()
        self._accepted.add(asked)

    def _belongs(self, host: Host, own: str) -> bool:
        if self._any or host in self._hosts:
            return True
        if isinstance(host, str):
            return host.endswith(self._suffixes)
        if self._any_address:
            return True
        address = _host_or_none(own)
        return address == host or (
            isinstance(address, Address) and address.is_loopback and host.is_loopback
        )

    def _expected(self, own: str) -> str:
        addresses = ["any IP address"] if self._any_address else [own] if own else []
        names = [f"*{suffix}" for suffix in self._suffixes[1:]]
        known = dict.fromkeys([*addresses, *map(str, self._hosts), *names])
        rest = ["…"] if len(known) > _MOST_SHOWN else []
        return " or ".join([*list(known)[:_MOST_SHOWN], *rest])


def parse_authority(authority: bytes) -> Host:
    """The host of `host:port`. Raises InvalidRequest."""
    text = authority.decode("latin-1")
    match = _AUTHORITY.fullmatch(text) if len(text) <= _MOST_AUTHORITY else None
    try:
        if match is None or int(match[3] or 0) > 65535:
            raise ValueError
        return parse_host(match[2]) if match[1] is None else plain_address(match[1])
    except ValueError:
        raise InvalidRequest(
            f"Host is {shown(authority)}, expected a name or an IP address, and a port"
        ) from None


def _host_or_none(text: str) -> Host | None:
    try:
        return parse_host(text)
    except ValueError:
        return None
