"""Which web pages may call the gateway: cross-origin resource sharing (WHATWG Fetch, 3.3).

A browser lets a page read the responses of another origin only if they name the page's origin, and
sends what a form could not send (a POST of JSON, a field with a key) only after a *preflight*: an
OPTIONS request that asks whether it may. Nothing of this protects the gateway from anybody but
browsers; keys do.

Origins are compared to the byte with those that the settings name, which `config.origins` has
checked to be as browsers write them. So `null` (a sandboxed frame, a file), another port or
another case of a host is another origin. Nothing is derived from what was sent.

**Credentials** are never allowed: that is, no page may have the browser add cookies or certificates
of its user's. The gateway has none; a key is put into a field by the page itself, which must know
it. That is why `*` can be allowed at all. A page is also not let from the internet into a private
network by `*` (Private Network Access), but only if its origin is named.

A preflight carries no key, and is answered before any is asked for: all that it tells is that this
origin is allowed. What may be sent is whatever the page asks for, because client libraries add
fields of their own, and one that the gateway does not know is ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gateway.config.origins import ANY_ORIGIN
from gateway.errors import Forbidden
from gateway.front.dialect import Headers, Response, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.front.client import Message, Send

MAX_AGE_SECONDS = 600
"""For which a browser need not ask again: a change of the settings is noticed after that."""

METHODS = b"DELETE, GET, HEAD, POST"
"""All that any route takes."""

EXPOSED = b", ".join(
    (
        b"Location",
        b"Mcp-Session-Id",
        b"Preference-Applied",
        b"RateLimit",
        b"RateLimit-Policy",
        b"Request-Id",
        b"Retry-After",
        b"Retry-After-Ms",
        b"WWW-Authenticate",
        b"X-Agent-Session",
        b"X-Request-Id",
        b"X-Run-Id",
        b"X-Should-Retry",
    )
)
"""Fields of responses that pages may read besides those that they always may."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAMES = re.compile(rb"%b(?:[ \t]*,[ \t]*%b){0,99}\Z" % (_TOKEN, _TOKEN))
"""Names of fields, as a browser lists them."""


class Cors:
    """The origins whose pages may call the gateway."""

    def __init__(self, origins: Sequence[str]) -> None:
        """`origins` are `["*"]`, or as `config.origins` has them; at least one."""
        self._any = ANY_ORIGIN in origins
        self._fields: dict[bytes, Headers] = {
            origin: _sharing(origin, varies=not self._any) for origin in map(str.encode, origins)
        }

    def __repr__(self) -> str:
        return f"<Cors {b', '.join(self._fields).decode()}>"

    def sharing(self, scope: Any, send: Send) -> Send:
        """`send` for a request, whose response is shared with the page if its origin is allowed."""
        if scope["type"] != "http":
            return send
        fields = self._find(_field(scope["headers"], b"origin")) or _NOT_SHARED

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *fields]}
            await send(message)

        return send_shared

    def answer_preflight(self, scope: Any) -> Response | None:
        """The response to a request that is a preflight; None: it is none. Raises Forbidden."""
        if scope["method"] != "OPTIONS":
            return None
        headers = scope["headers"]
        origin = _field(headers, b"origin")
        if origin is None or _field(headers, b"access-control-request-method") is None:
            return None
        if self._find(origin) is None:
            raise Forbidden(f"the origin {shown(origin)} is not one of [server] cors")
        fields = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
            (b"vary", b"Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
        ]
        names = _field(headers, b"access-control-request-headers")
        if names is not None and _NAMES.match(names):
            fields.append((b"access-control-allow-headers", names))
        if _field(headers, b"access-control-request-private-network") == b"true" and not self._any:
            fields.append((b"access-control-allow-private-network", b"true"))
        return Response(204, fields, b"")

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may call."""
        return self._find(origin) is not None

    def _find(self, origin: bytes | None) -> Headers | None:
        if self._any:
            return self._fields[ANY_ORIGIN.encode()]
        return None if origin is None else self._fields.get(origin)


_VARY = (b"vary", b"Origin")
"""A cache must not give one origin what was for another."""

_NOT_SHARED: Headers = (_VARY,)


def _sharing(origin: bytes, *, varies: bool) -> Headers:
    fields = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
    ]
    return (*fields, _VARY) if varies else tuple(fields)


def _field(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of a field; values of one that was sent more than once with newlines between them,
    which no origin has."""
    values = [value for each, value in headers if each == name]
    return b"\n".join(values) if values else None


def make_cors(origins: Sequence[str]) -> Cors | None:
    """What shares responses with pages of these origins; None where there are none."""
    return Cors(origins) if origins else None
