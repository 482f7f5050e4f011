"""AG-UI's errors: `{"message", "code", "metadata"}`, the members of a RUN_ERROR event.

The protocol leaves the body of an HTTP error open. Its client shows the whole body in the message
of the exception, and hands it over as `payload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError


def refuse(message: str, field: str) -> InvalidRequest:
    """A 400 that names a member of the request by its place in the body."""
    return InvalidRequest(f"{field}: {message}", field=field)


def encode_error(
    error: GatewayError, request_id: str, output_begun: bool | None = None
) -> Response:
    """The error response. `output_begun` is the exchange's; None: there was no exchange."""
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    members = error_members(error, request_id, output_begun)
    return Response(error.status, headers, msgspec.json.encode(members))


def error_members(
    error: GatewayError, request_id: str, output_begun: bool | None = None
) -> dict[str, Any]:
    """What is told of an error, in a response or in a stream. An agent's errors have a `code` of
    their own, a number, among the details."""
    details = {**error.details, "request_id": request_id}
    if output_begun is not None:
        details["output_begun"] = output_begun
    return {"message": error.message, "code": error.type, "metadata": details}
