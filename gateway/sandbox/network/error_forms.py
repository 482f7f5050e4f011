"""Errors in the form of the service that was asked, so that its clients show the message: pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config.presets import ErrorForm

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def encode_error(form: ErrorForm, status: int, message: str) -> bytes:
    """The body, `application/json`, of an error that the gateway answers in a service's place."""
    return json.dumps(_error(form, status, message)).encode("ascii")


def _error(form: ErrorForm, status: int, message: str) -> dict[str, Any]:
    ours = "invalid_request_error" if status < 500 else "server_error"
    match form:
        case "anthropic":
            kind = _ANTHROPIC_TYPES.get(status, ours if status < 500 else "api_error")
            return {"type": "error", "error": {"type": kind, "message": message}}
        case "google":
            name = _GOOGLE_STATUSES.get(
                status, "FAILED_PRECONDITION" if status < 500 else "INTERNAL"
            )
            return {"error": {"code": status, "message": message, "status": name}}
        case "mistral":
            return {"object": "error", "message": message, "type": ours, "code": str(status)}
        case "github":
            return {"message": message, "status": str(status)}
        case "plain":
            return {"error": message}
        case "openai":
            kind = _OPENAI_TYPES.get(status, ours)
            return {"error": {"message": message, "type": kind, "param": None, "code": None}}
