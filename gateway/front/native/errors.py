"""The native dialect's errors: `{"error": {"type", "message", "request_id", …}}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError


def encode_error(
    error: GatewayError, request_id: str, output_begun: bool | None = None
) -> Response:
    """The error response. `output_begun` is the exchange's; None: there was no exchange."""
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    return Response(error.status, headers, error_body(error, request_id, output_begun))


def error_body(error: GatewayError, request_id: str, output_begun: bool | None = None) -> bytes:
    """The JSON text of an error: one line, with the details beside what every error has."""
    members: dict[str, Any] = {
        "type": error.type,
        "message": error.message,
        "request_id": request_id,
        **error.details,
    }
    if output_begun is not None:
        members["output_begun"] = output_begun
    return msgspec.json.encode({"error": members})
