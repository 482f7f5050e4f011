"""Origins of web pages, as browsers write them in `Origin` (RFC 6454, 6.2; WHATWG HTML, 7.1.1)."""

from __future__ import annotations

import re

from gateway.config.hosts import Address, parse_host

ANY_ORIGIN = "*"
"""Every page, of every site."""

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^\[\]:/]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)

_DEFAULT_PORTS = {"http": "80", "https": "443"}
"""Left out of an origin."""


def check_origin(text: str) -> None:
    """Raises ValueError unless a browser would write this origin so, to the last character."""
    match = _ORIGIN.fullmatch(text)
    host = None if match is None else match["address"] or match["name"]
    if match is None or host is None or not _is_plain(host, is_address=bool(match["address"])):
        raise ValueError(
            f"{text!r} is not an origin as browsers send it: a scheme, a host in lower case and "
            "perhaps a port, without a path, such as 'https://app.example'"
        )
    if match["port"] is not None and match["port"] == _DEFAULT_PORTS.get(match["scheme"]):
        raise ValueError(
            f"{text!r} has the port that browsers leave out, expected "
            f"{text.removesuffix(':' + match['port'])!r}"
        )


def _is_plain(host: str, *, is_address: bool) -> bool:
    """Whether the host is written as it is compared: in lower case, an address in its shortest
    form."""
    try:
        parsed = parse_host(host)
    except ValueError:
        return False
    in_brackets = isinstance(parsed, Address) and parsed.version == 6
    return str(parsed) == host and in_brackets == is_address
