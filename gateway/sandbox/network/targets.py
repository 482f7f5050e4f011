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
    """The `host:port` patterns of an agent's settings."""

    hosts: tuple[str, ...]

    def match(self, host: str, port: int) -> str | None:
        """The pattern that allows this host and port by name, or None. Exact patterns come first.

        `host` is as `parse_connect` returns it.
        """
        matching = [
            pattern
            for pattern in self.hosts
            if _matches(pattern.rpartition(":")[0].lower(), host.lower().rstrip("."))
            and pattern.rpartition(":")[2] in {"*", str(port)}
        ]
        return min(matching, key=lambda pattern: not without_wildcard(pattern), default=None)


def without_wildcard(pattern: str) -> bool:
    """Whether a `host:port` pattern names its host."""
    return "*" not in pattern.rpartition(":")[0]


def not_allowed(host: str, port: int) -> str:
    """Why a host that no pattern matches is refused."""
    return f"{host}:{port} is not in the agent's network setting"


def _matches(pattern: str, host: str) -> bool:
    return pattern == host or ("*" in pattern and fnmatch.fnmatchcase(host, pattern))


def parse_connect(head: bytes) -> tuple[str, int]:
    """The host and the port of a CONNECT request (RFC 9110, 9.3.6), from its whole head.

    `head` ends before the empty line. The host is a name in lower case (RFC 1123, 2.1) without a
    trailing dot, or an IP address in its canonical form. Raises ProxyRefusal for everything else.
    """
    line, *fields = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None or not all(map(_FIELD.fullmatch, fields)):
        raise ProxyRefusal(400, "this is no request of HTTP/1.1")
    method, target = request.groups()
    if method != b"CONNECT":
        raise ProxyRefusal(405, "only https is passed on, by CONNECT")
    authority = _AUTHORITY.fullmatch(target)
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
