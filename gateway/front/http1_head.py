"""The head of a request: its method, its target and its fields.

Nearly every head is *plain*: HTTP/1.1 with CRLF line ends, visible characters, one host, a length
or none, and no transfer coding. A plain head is matched by one regular expression, at a sixth of
what h11 costs. Anything else is h11's to read or to refuse, so nothing here has to know what is
wrong with a head; and what is read here, h11 would read in the same way (a test compares them).
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Request(NamedTuple):
    """A head that could be read."""

    method: bytes
    target: bytes
    http_version: bytes
    fields: list[tuple[bytes, bytes]]
    """In the order in which they came. Names are in lower case."""


_PLAIN = re.compile(
    rb"([A-Z]++) ([\x21-\x7e]++) HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)++)"
    rb"\r\n"
)
"""RFC 9112, 3 and 5, without what is obsolete there. Possessive, so that a match takes linear time
whatever the head is."""

_LONGEST_LENGTH = 20
"""Digits of a Content-Length, as for h11."""


def read_plain_head(head: bytes) -> Request | None:
    """Read a whole head, the empty line included; None if it is not plain."""
    match = _PLAIN.fullmatch(head)
    if match is None:
        return None
    method, target, lines = match.groups()
    fields = []
    hosts = lengths = 0
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b"\t ")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            if not value.isdigit() or len(value) > _LONGEST_LENGTH:
                return None
        elif name == b"transfer-encoding":
            return None
        fields.append((name, value))
    return Request(method, target, b"1.1", fields) if hosts == 1 and lengths <= 1 else None
