"""What a request is for: its method, its path and its host, read the same for every route.

RFC 9112, 3.2: a target is a path (origin form), a whole URL (absolute form, as a proxy is asked),
or `*`. No path is rewritten: not every proxy in front would rewrite it in the same way, and what
was allowed by one path would then reach another. So `//agents` and `/agents/` are not `/agents`,
dot segments are names like others, and a slash that is percent-encoded separates nothing. Other
characters mean the same when they are percent-encoded (RFC 3986, 6.2.2.2).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from gateway.errors import InvalidRequest, NotFound
from gateway.front.dialect import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SENT_METHOD = "method"
"""The key of `scope["state"]` under which a connection puts the method as it was sent: Hypercorn
gives it in upper case."""

WEBSOCKET = "websocket"
"""The key of `scope["state"]` under which a connection puts whether the request is a WebSocket's
handshake. It is made a request like others, which can be refused like others."""

SERVER_WIDE = "*"
"""The path of a request that is for the server as a whole; its method is OPTIONS."""

_ABSOLUTE = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE)
"""The authority and the path of an absolute form; the query was taken off before."""

_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)


class Target(NamedTuple):
    path: str
    """Decoded: it begins with a slash, or is `SERVER_WIDE`."""
    authority: bytes | None
    """Of an absolute form, which counts more than the Host field (RFC 9112, 3.2.2)."""


def read_target(scope: Mapping[str, Any]) -> Target:
    """Read the target of a request from its ASGI scope. Raises InvalidRequest and NotFound."""
    method: str = scope["method"]
    sent = scope.get("state", {}).get(SENT_METHOD, method)
    if sent != method:
        raise InvalidRequest(
            f"the method is {shown(sent.encode())}, expected {method}: methods are case-sensitive"
        )
    raw: bytes = scope["raw_path"]
    if raw[:1] == b"/":
        target = Target(scope["path"], None)
    elif raw == b"*" and method == "OPTIONS":
        return Target(SERVER_WIDE, None)
    elif (absolute := _ABSOLUTE.fullmatch(raw)) is not None:
        target = Target(unquote((absolute[2] or b"/").decode("ascii")), absolute[1])
    else:
        raise InvalidRequest(f"the request target is {shown(raw)}, expected a path or a URL")
    if b"%" in raw and _ENCODED_SLASH.search(raw) is not None:
        raise NotFound(f"there is nothing at {shown(raw)}: a slash in it is percent-encoded")
    if target.path.startswith("//"):  # Werkzeug would take it for one slash
        raise NotFound(f"there is nothing at {shown(raw)}: it begins with two slashes")
    return target
