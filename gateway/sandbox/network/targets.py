"""What an agent asks the proxy for, and whether its settings allow that by name: no I/O.

This module owns the grammar of a request and the patterns of an agent's `network` setting. It does
not know what a name resolves to (`egress` does).

The name that is matched must be the name that is resolved, character by character: a resolver stops
at a NUL byte, and `fnmatch` does not. So nothing is matched before the whole request fits a strict
grammar, in which a host is made of letters, digits, hyphens and dots, or is an IP address.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from dataclasses import dataclass

MAX_HOST = 253
"""Characters of a host name (RFC 1035, 2.3.4, without the lengths and the root)."""
MAX_REASON = 200
"""Characters of a reason in a status line: it may quote the request."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/1\.[0-9]" % _TOKEN)
_FIELD = re.compile(rb"%b:[\t -~\x80-\xff]*" % _TOKEN)
_PLAIN = "http://"
"""What the patterns of hosts begin with that are asked without TLS, in the proxy's own form."""
_ABSOLUTE = re.compile(rb"http://([^/?#]+)(/[!-~]*|\?[!-~]*)?")
_OF_THE_CONNECTION = frozenset((b"connection", b"host", b"keep-alive", b"te", b"upgrade"))
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+)):([1-9][0-9]{0,4})")
_LABEL = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?")
_UNPRINTABLE = re.compile(r"[^ -~]")


class ProxyRefusal(Exception):  # noqa: N818 - what the proxy answers with, no failure of it
    """A request that gets no tunnel: `status` is HTTP's code, and the message is the reason.

    The message is one line of printable ASCII, fit for a status line and for a log. `rule` names
    what decided.
    """

    def __init__(self, status: int, message: str, *, rule: str = "request") -> None:
        super().__init__(_UNPRINTABLE.sub("?", message[:MAX_REASON]))
        self.status = status
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Policy:
    """What an agent's settings allow."""

    hosts: tuple[str, ...]
    """Patterns `host:port` or `http://host:port`."""
    allow_local: bool = False
    """Whether a host that is named without a wildcard may be this machine."""
    own_ports: frozenset[int] = frozenset()
    """Those of this machine on which the gateway listens."""

    def match(self, host: str, port: int, *, plain: bool = False) -> str | None:
        """The pattern that allows this host and port by name, or None. Exact patterns come first.

        `host` is as `parse_request` returns it; `plain`: without a tunnel, which only the patterns
        with a scheme allow.
        """
        matching = [
            pattern
            for pattern in self.hosts
            if (pattern.startswith(_PLAIN) or not plain)
            and _matches(_host_of(pattern).lower(), host.lower().rstrip("."))
            and pattern.rpartition(":")[2] in {"*", str(port)}
        ]
        return min(matching, key=lambda pattern: not without_wildcard(pattern), default=None)


def _host_of(pattern: str) -> str:
    return pattern.removeprefix(_PLAIN).rpartition(":")[0]


def without_wildcard(pattern: str) -> bool:
    """Whether a `host:port` pattern names its host."""
    return "*" not in _host_of(pattern)


def not_allowed(host: str, port: int, *, plain: bool = False) -> str:
    """Why a host that no pattern matches is refused."""
    return f"{_PLAIN if plain else ''}{host}:{port} is not in the agent's network setting"


def _matches(pattern: str, host: str) -> bool:
    return pattern == host or ("*" in pattern and fnmatch.fnmatchcase(host, pattern))


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent has asked the proxy for."""

    method: str
    host: str
    """A name in lower case (RFC 1123, 2.1) without a trailing dot, or an IP address in its
    canonical form."""
    port: int
    head: bytes = b""
    """The head of the request that is sent to the host, which a tunnel has none of."""


def parse_request(head: bytes) -> Asked:
    """A request to the proxy, from its whole head, which ends before the empty line.

    It is CONNECT (RFC 9110, 9.3.6), or any other with an absolute `http` URL (RFC 9112, 3.2.2).
    Raises ProxyRefusal for everything else.
    """
    line, *fields = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None or not all(map(_FIELD.fullmatch, fields)):
        raise ProxyRefusal(400, "this is no request of HTTP/1.1")
    method, target = request.groups()
    if method == b"CONNECT":
        return Asked("CONNECT", *_authority(target, target))
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProxyRefusal(405, "only https, by CONNECT, and http:// are passed on")
    authority, path = absolute[1], absolute[2] or b"/"
    named = authority if _AUTHORITY.fullmatch(authority) else authority + b":80"
    host, port = _authority(named, target)
    kept = [
        field
        for field in fields
        if (name := field.partition(b":")[0].lower()) not in _OF_THE_CONNECTION
        and not name.startswith(b"proxy-")
    ]
    path = path if path.startswith(b"/") else b"/" + path
    # One request: the next on the agent's connection may be meant for another host.
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: " + authority, *kept, b"Connection: close"]
    return Asked(method.decode("ascii"), host, port, b"\r\n".join(lines) + b"\r\n\r\n")


def _authority(text: bytes, target: bytes) -> tuple[str, int]:
    authority = _AUTHORITY.fullmatch(text)
    if authority is None or int(authority[3]) > 65535:
        raise ProxyRefusal(400, f"{target.decode('ascii')} is not host:port")
    try:
        if authority[1] is not None:
            host = str(ipaddress.IPv6Address(authority[1].decode("ascii")))
        else:
            host = _host_name(authority[2].decode("ascii").lower())
    except ValueError as error:
        raise ProxyRefusal(400, f"{target.decode('ascii')} names no host: {error}") from None
    return host, int(authority[3])


def _host_name(name: str) -> str:
    name = name.removesuffix(".")
    if len(name) > MAX_HOST:
        raise ValueError(f"it has more than {MAX_HOST} characters")
    if not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError("a label has 1 to 63 letters, digits and hyphens, and no hyphen at an end")
    return name
