"""Anthropic's errors: `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`.

Its clients make a typed exception of the status, or of the type where an error comes in a stream.
The statuses are those of the native API. `details` are for programs: `error_code` is what names the
cause, by this gateway's own name of the error unless Anthropic has one, and all that the native API
tells beside that stands next to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front.chats.refusals import cause_of, rate_limit_headers
from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError

REQUEST_ID = b"request-id"
"""The header field in which the clients look for a request's id."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""An error's `type` by its status. Any other error is the request's fault if its status is below
500, and otherwise the server's."""


def encode_error(
    error: GatewayError, request_id: str, output_begun: bool | None = None
) -> Response:
    """The error response. `output_begun` is the exchange's; None: there was no exchange."""
    headers = [
        (b"content-type", b"application/json"),
        (REQUEST_ID, request_id.encode()),
        *error_headers(error),
        *rate_limit_headers(error),
    ]
    members = error_members(error, request_id, output_begun)
    return Response(error.status, headers, msgspec.json.encode({"type": "error", **members}))


def error_members(
    error: GatewayError, request_id: str, output_begun: bool | None = None
) -> dict[str, Any]:
    """What an error holds beside its type, in a response or in a stream. See `encode_error`."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    cause, more = cause_of(error)
    details = {"error_code": cause, **more}
    if output_begun is not None:
        details["output_begun"] = output_begun
    members = {"type": kind, "message": error.message, "details": details}
    return {"error": members, "request_id": request_id}
