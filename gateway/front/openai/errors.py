"""OpenAI's errors: `{"error": {"message", "type", "param", "code", …}}`.

Its clients make a typed exception of the status (400 BadRequestError, 404 NotFoundError, 429
RateLimitError, …), and show the message. `code` is this gateway's own name of the error, which is
what a program should look at, except where OpenAI has a name of its own. All that the native API
tells beside that follows as more members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import AgentNotFound, RateLimited, Unauthorized
from gateway.front.chats.refusals import cause_of, rate_limit_headers
from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError

_TYPES = {
    403: "permission_error",
    429: "rate_limit_error",
}
"""An error's `type` by its status. Any other error is the request's fault if its status is below
500, and otherwise the server's."""


def encode_error(
    error: GatewayError,
    request_id: str,
    output_begun: bool | None = None,
    *,
    messages: str = "messages",
) -> Response:
    """The error response. `output_begun` is the exchange's; None: there was no exchange. `messages`
    is what the parameter is called that holds them."""
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    headers += rate_limit_headers(error)
    members = error_members(error, request_id, output_begun, messages=messages)
    body = msgspec.json.encode({"error": members})
    return Response(error.status, headers, body)


def error_members(
    error: GatewayError,
    request_id: str,
    output_begun: bool | None = None,
    *,
    messages: str = "messages",
) -> dict[str, Any]:
    """What `error` holds, in a response or in a stream. See `encode_error`."""
    cause, details = cause_of(error)
    param = details.pop("param", details.pop("field", None))
    members: dict[str, Any] = {
        "message": error.message,
        "type": _TYPES.get(
            error.status, "invalid_request_error" if error.status < 500 else "server_error"
        ),
        "param": messages if param == "messages" else param,
        "code": cause,
        **details,
        "request_id": request_id,
    }
    if isinstance(error, Unauthorized):
        members["code"] = "invalid_api_key"
    elif isinstance(error, AgentNotFound):
        members |= {"param": "model", "code": "model_not_found"}
    elif isinstance(error, RateLimited):
        members["code"] = "rate_limit_exceeded"
    if output_begun is not None:
        members["output_begun"] = output_begun
    return members
