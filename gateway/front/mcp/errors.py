"""The gateway's errors in this protocol: of requests, and of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError

INVALID_PARAMS = -32602

_CODES = {400: -32600, 404: -32600, 405: -32600, 413: -32600, 415: -32600}
"""JSON-RPC's code for an error, by its status; any other is the server's, in the range that is for
those (JSON-RPC 2.0, 5.1)."""

_SERVER_ERROR = -32000


def encode_error(error: GatewayError, request_id: str) -> Response:
    """The response to a request that has no other: HTTP's status, and a JSON-RPC error whose id is
    null, since the request may not have been read."""
    data = {**error.details, "type": error.type, "request_id": request_id}
    code = _CODES.get(error.status, _SERVER_ERROR)
    body = {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": code, "message": error.message, "data": data},
    }
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    return Response(error.status, headers, msgspec.json.encode(body, enc_hook=str))
