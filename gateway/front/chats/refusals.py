"""Refusing what a request for a chat asks for: a 400 that names the parameter."""

from __future__ import annotations

from gateway.errors import InvalidRequest


def refuse(message: str, param: str, code: str = InvalidRequest.type) -> InvalidRequest:
    """A 400 that names a parameter of the request, and the kind of the mistake in `code`."""
    return InvalidRequest(message, param=param, code=code)


def unsupported(param: str, why: str) -> InvalidRequest:
    """A 400 for what would change the answer and cannot be honoured."""
    return refuse(f"{param}: {why}", param, "unsupported_parameter")
