"""Who may read the console's API, and cancel by it: no page of another origin.

A browser sends whatever a page asks for to any address, with what the network lets the browser
reach: the loopback device above all. Where callers need keys, such a page has none. Where they do
not, it could read the log (if `[server] cors` shared responses with it) and cancel requests. So the
API is for pages of the gateway's own origin, whatever `cors` says, and for whoever is no browser.

Browsers say where a request comes from in fields that a page cannot set (Fetch Metadata; WHATWG
Fetch, 3.2 for `Origin`). `Sec-Fetch-Site` counts where it is sent, which is to trustworthy
addresses alone: a proxy may have changed `Host`, and this field is still true. Else `Origin` does,
which has to be the host and the port that the request was sent to; that the host is one of ours,
`hosts` has checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import Forbidden, UnsupportedMediaType

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

_OWN = frozenset({"same-origin", "none"})
"""Of `Sec-Fetch-Site`; `none`: a person has typed the address."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def check_origin(fields: Headers) -> None:
    """Raises Forbidden."""
    site = fields.get("Sec-Fetch-Site")
    if site is not None:
        if site not in _OWN:
            raise Forbidden("the console is not for pages of other origins")
        return
    origin = fields.get("Origin")
    if origin is not None and not _is_at(origin, fields.get("Host", "")):
        raise Forbidden(f"the console is not for pages of other origins, such as {origin[:80]!r}")


def check_change(fields: Headers) -> None:
    """The same for a request that changes something, which also must be what no form can send.
    Raises Forbidden and UnsupportedMediaType."""
    check_origin(fields)
    kind = fields.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType(f"Content-Type is {kind[:80]!r}, expected application/json")


def _is_at(origin: str, host: str) -> bool:
    scheme, separator, authority = origin.lower().partition("://")
    if not separator or not authority:
        return False
    port = _DEFAULT_PORTS.get(scheme, "")
    return host.lower() in {authority, authority.removesuffix(port), authority + port}
