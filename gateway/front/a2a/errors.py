"""A2A's errors: JSON-RPC error objects, with codes by A2A 1.0, 5.4 and 9.5.

A request that the protocol refuses has status 200, as JSON-RPC over HTTP has it: the clients read
the code. What keeps a request from being looked at (no key, a limit, a gateway that ends) has its
HTTP status, which proxies and clients know, with a JSON-RPC error as its body. Failures of an agent
are no errors here, but states of its task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import (
    InvalidAgentResponse,
    InvalidRequest,
    NotFound,
    RunGone,
    UnsupportedMediaType,
)
from gateway.front.dialect import Response, error_headers

if TYPE_CHECKING:
    from gateway.errors import GatewayError

PARSE_ERROR = "PARSE_ERROR"
INVALID_RPC = "INVALID_RPC_REQUEST"
METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
INVALID_PARAMS = "INVALID_PARAMS"
TASK_NOT_FOUND = "TASK_NOT_FOUND"
TASK_NOT_CANCELABLE = "TASK_NOT_CANCELABLE"
PUSH_NOT_SUPPORTED = "PUSH_NOTIFICATION_NOT_SUPPORTED"
UNSUPPORTED_OPERATION = "UNSUPPORTED_OPERATION"
CONTENT_TYPE_NOT_SUPPORTED = "CONTENT_TYPE_NOT_SUPPORTED"
INVALID_AGENT_RESPONSE = "INVALID_AGENT_RESPONSE"
VERSION_NOT_SUPPORTED = "VERSION_NOT_SUPPORTED"

_RPC_CODES = {
    PARSE_ERROR: -32700,
    INVALID_RPC: -32600,
    METHOD_NOT_FOUND: -32601,
    INVALID_PARAMS: -32602,
}
_A2A_CODES = {
    TASK_NOT_FOUND: -32001,
    TASK_NOT_CANCELABLE: -32002,
    PUSH_NOT_SUPPORTED: -32003,
    UNSUPPORTED_OPERATION: -32004,
    CONTENT_TYPE_NOT_SUPPORTED: -32005,
    INVALID_AGENT_RESPONSE: -32006,
    VERSION_NOT_SUPPORTED: -32009,
}
CODES = _RPC_CODES | _A2A_CODES

INTERNAL = -32603
REFUSED = -32000
"""Of what A2A has no code for, and is not the gateway's fault: keys, limits, paths."""

_TYPE = "type.googleapis.com/google.rpc."
_A2A_DOMAIN = "a2a-protocol.org"
_OWN_DOMAIN = "agent-gateway"

NO_ID = b"null"

_JSON = (b"content-type", b"application/json")


def refuse(reason: str, message: str, field: str | None = None) -> InvalidRequest:
    """An error that is told by the code of its reason. `field` is the member of the parameters that
    is wrong, as A2A names it."""
    if field is None:
        return InvalidRequest(message, reason=reason)
    return InvalidRequest(message, reason=reason, field=field)


def invalid(message: str, field: str) -> InvalidRequest:
    """An error in a member of the parameters."""
    return refuse(INVALID_PARAMS, message, field)


def encode_error(
    error: GatewayError, request_id: str, rpc_id: bytes = NO_ID, *, was_read: bool = False
) -> Response:
    """The error response; `rpc_id` is the JSON-RPC request's, a JSON text, and `was_read` whether
    its method is known: until then nothing speaks of a task."""
    reason = _reason_of(error) if was_read else _given_reason(error)
    status = 200 if reason in CODES else error.status
    if isinstance(error, UnsupportedMediaType):
        reason = CONTENT_TYPE_NOT_SUPPORTED
    code = CODES.get(reason, REFUSED if error.status < 500 else INTERNAL)
    told = {"code": code, "message": error.message, "data": _details(error, reason, request_id)}
    body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (rpc_id, msgspec.json.encode(told))
    return Response(status, [_JSON, *error_headers(error)], body)


def _reason_of(error: GatewayError) -> str:
    """The reason, in capitals as `google.rpc.ErrorInfo` has it."""
    if "reason" in error.details:
        return _given_reason(error)
    if isinstance(error, NotFound | RunGone):
        return TASK_NOT_FOUND
    if isinstance(error, InvalidAgentResponse):
        return INVALID_AGENT_RESPONSE
    if isinstance(error, InvalidRequest):
        return CONTENT_TYPE_NOT_SUPPORTED if _is_of_content(error) else INVALID_PARAMS
    return error.type.upper()


def _given_reason(error: GatewayError) -> str:
    return str(error.details.get("reason", error.type.upper()))


def _is_of_content(error: GatewayError) -> bool:
    """Whether the agent does not take content of this kind (`gateway.needs`)."""
    return error.details.get("field") == "messages" and "content of the kind" in error.message


def _details(error: GatewayError, reason: str, request_id: str) -> list[dict[str, Any]]:
    details = {name: value for name, value in error.details.items() if name != "reason"}
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in details.items()
    }
    info = {
        "@type": f"{_TYPE}ErrorInfo",
        "reason": reason,
        "domain": _A2A_DOMAIN if reason in _A2A_CODES else _OWN_DOMAIN,
        "metadata": {**texts, "requestId": request_id},
    }
    if reason != INVALID_PARAMS or "field" not in details:
        return [info]
    violation = {"field": details["field"], "description": error.message}
    return [info, {"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]}]
