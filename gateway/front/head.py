"""From a request's headers to what is used of them; the same for every dialect.

Pure: knows nothing of ASGI but that headers are pairs of bytes.
"""

from __future__ import annotations

import itertools
import re
import secrets
from typing import TYPE_CHECKING

from gateway.errors import UnsupportedMediaType
from gateway.front.dialect import RequestHead, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

_USED = frozenset(
    {
        b"a2a-version",
        b"accept",
        b"anthropic-version",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"last-event-id",
        b"prefer",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-api-key",
        b"x-conversation-id",
        b"x-forwarded-proto",
        b"x-request-id",
        b"x-timeout",
    }
)

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
"""An `X-Request-Id` that is taken over from the client: visible ASCII, so that it can stand in a
header and in a line of the log."""

_OWN_IDS = itertools.count(1)
_OWN_PREFIX = secrets.token_hex(4)

_JSON_TYPE = re.compile(
    rb"application/json|[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+\+json", re.IGNORECASE
)
"""`application/json`, or any type with the suffix `+json` (RFC 6839, 3.1)."""

_PARAMETER = re.compile(
    rb"[ \t]*;[ \t]*"
    rb"(?:([\w!#$%&'*+.^`|~-]+)="
    rb"(?:([\w!#$%&'*+.^`|~-]+)|\"((?:[^\"\\]|\\.)*)\"))?",
    re.DOTALL,
)
"""RFC 9110, 5.6.6: a name with a token or a quoted string, or nothing at all."""

_MOST_TYPE_BYTES = 1024
"""Of a Content-Type: a type, and parameters that nobody reads but for `charset`."""

_UTF_8 = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
"""The encoding of JSON (RFC 8259, 8.1), the name by which many send it, and its subset."""


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Look through the headers once. Never fails: each is checked where it is used.

    A field that was sent more than once is given as its values with newlines between them, which no
    value can hold.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _USED:
            found[name] = value if name not in found else b"%b\n%b" % (found[name], value)
    length = found.get(b"content-length", b"")
    chunked = b"transfer-encoding" in found
    # A transfer coding overrides a length that was sent beside it (RFC 9112, 6.3).
    content_length = int(length) if length.isdigit() and not chunked else 0
    request_id = found.get(b"x-request-id", b"")
    own = _REQUEST_ID.match(request_id) is None
    return RequestHead(
        request_id=new_request_id() if own else request_id.decode("ascii"),
        host=found.get(b"host"),
        content_type=found.get(b"content-type"),
        content_encoding=found.get(b"content-encoding"),
        content_length=content_length,
        has_body=content_length > 0 or chunked,
        conversation=found.get(b"x-conversation-id"),
        timeout=found.get(b"x-timeout"),
        fields=found,
    )


def new_request_id() -> str:
    """An id that no other request of this or of another gateway has."""
    return f"{_OWN_PREFIX}-{next(_OWN_IDS):x}"


def check_media_type(head: RequestHead) -> None:
    """Raises UnsupportedMediaType for anything but JSON in UTF-8.

    The type is mandatory: a browser sends a form or plain text to any address, including this one,
    without asking first, and JSON only after a preflight (Fetch standard, "CORS-safelisted
    request-header").
    """
    if head.content_encoding is not None:
        _check_content_coding(head.content_encoding)
    if head.content_type is None:
        raise UnsupportedMediaType("no Content-Type; expected application/json")
    if head.content_type != b"application/json":
        _check_content_type(head.content_type)


def _check_content_coding(codings: bytes) -> None:
    """A list (RFC 9110, 8.4), of which `identity` means nothing."""
    for coding in codings.replace(b"\n", b",").split(b","):
        if coding.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedMediaType(
                f"Content-Encoding {shown(codings)} is not supported; send plain JSON"
            )


def _check_content_type(content_type: bytes) -> None:
    value = content_type.strip()
    kind = _JSON_TYPE.match(value) if len(value) <= _MOST_TYPE_BYTES else None
    # `jsonp`, or a field that was sent twice
    if kind is None or value[kind.end() : kind.end() + 1] not in {b"", b";", b" ", b"\t"}:
        raise UnsupportedMediaType(
            f"Content-Type is {shown(content_type)}, expected application/json"
        )
    position = kind.end()
    while position < len(value):
        parameter = _PARAMETER.match(value, position)
        if parameter is None:
            raise UnsupportedMediaType(
                f"Content-Type is {shown(content_type)}, whose parameters cannot be read"
            )
        position = parameter.end()
        name, token, quoted = parameter.groups()
        if name is not None and name.lower() == b"charset":
            _check_charset(token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted))


def _check_charset(charset: bytes) -> None:
    if charset.lower() not in _UTF_8:
        raise UnsupportedMediaType(
            f"{shown(b'charset=' + charset)} is not supported, expected charset=utf-8"
        )
