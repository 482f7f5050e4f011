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

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
"""An `X-Request-Id` that is taken over from the client: visible ASCII, so that it can stand in a
header and in a line of the log."""

_OWN_IDS = itertools.count(1)
_OWN_PREFIX = secrets.token_hex(4)


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Look through the headers once. Never fails: each is checked where it is used."""
    head = RequestHead(request_id="")
    for name, value in headers:
        if name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            head.content_length = int(value) if value.isdigit() else 0
            head.has_body = head.content_length > 0
        elif name == b"transfer-encoding":
            head.has_body = True
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name == b"x-request-id":
            if _REQUEST_ID.match(value):
                head.request_id = value.decode("ascii")
        elif name == b"x-timeout":
            head.timeout = value
    if not head.request_id:
        head.request_id = new_request_id()
    return head


def new_request_id() -> str:
    """An id that no other request of this or of another gateway has."""
    return f"{_OWN_PREFIX}-{next(_OWN_IDS):x}"


def check_media_type(head: RequestHead) -> None:
    """Raises UnsupportedMediaType for anything but JSON.

    The type is mandatory: a browser sends a form or plain text to any address, including this one,
    without asking first, and JSON only after a preflight (Fetch standard, "CORS-safelisted
    request-header").
    """
    if head.content_encoding is not None and head.content_encoding.strip() != b"identity":
        raise UnsupportedMediaType(
            f"Content-Encoding {shown(head.content_encoding)} is not supported; send plain JSON"
        )
    if head.content_type is None:
        raise UnsupportedMediaType("no Content-Type; expected application/json")
    kind, _, parameters = head.content_type.lower().partition(b";")
    kind = kind.strip()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise UnsupportedMediaType(
            f"Content-Type is {shown(head.content_type)}, expected application/json"
        )
    charset = parameters.strip().replace(b'"', b"")
    if charset.startswith(b"charset=") and charset not in {b"charset=utf-8", b"charset=us-ascii"}:
        raise UnsupportedMediaType(f"{shown(charset)} is not supported, expected charset=utf-8")
