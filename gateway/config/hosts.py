"""Hosts as URLs and settings name them: one grammar for both, and patterns for many names.

Pure: no name is resolved here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Host: TypeAlias = str | Address

ANY_HOST = "*"
"""The pattern that every name and address matches."""

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
"""Labels of RFC 1035, 2.3.4, with the underscore, which container networks allow in their names.
RFC 3986 allows more characters, none of which a DNS name has."""

_MOST_NAME = 253
"""Longest DNS name, in characters."""


def parse_host(text: str) -> Host:
    """Read a name, or an IP address without brackets; equal hosts are equal values.

    A name is returned in lower case and without the dot of the root, an IPv6 address without its
    zone, and one that maps an IPv4 address (RFC 4291, 2.5.5.2) as that address. Raises ValueError.
    """
    name = text.lower().removesuffix(".")
    try:
        return plain_address(name)
    except ValueError:
        pass
    if len(name) > _MOST_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not the name of a host")
    return name


def plain_address(text: str) -> Address:
    """Read an IP address, as `parse_host` does. Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_address(text: str) -> bool:
    """Whether the text is an IP address, without brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_host_pattern(pattern: str) -> None:
    """Raises ValueError unless the pattern is a name, an address, `*.` and a name, or `*`."""
    if pattern == ANY_HOST:
        return
    if isinstance(parse_host(pattern.removeprefix("*.")), Address) and pattern.startswith("*."):
        raise ValueError(f"{pattern!r} is not the name of a host")
