"""Errors as a page gets to see them.

`useChat` shows the whole body of an error response as the message of its error, and nothing else of
the response but the status: so the body is that message. What programs look at stands in headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.front.chats.refusals import rate_limit_headers
from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError

TYPE = b"x-error-type"
"""The header with the error's type, as the native API has it."""


def encode_error(error: GatewayError, request_id: str) -> Response:
    """The error response; the request's id is in a header of every response."""
    del request_id
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (TYPE, str(error.type).encode("ascii", "replace")),
        *error_headers(error),
        *rate_limit_headers(error),
    ]
    message = error.message.encode("utf-8", "replace")
    event = msgspec.json.encode({"type": "error", "errorText": message.decode()})
    return Response(error.status, headers, message, event)
