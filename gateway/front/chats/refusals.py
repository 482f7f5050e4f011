"""Refusing what a request for a chat asks for: a 400 that names the parameter, and when to ask
again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gateway.errors import InvalidRequest, RateLimited

if TYPE_CHECKING:
    from gateway.errors import GatewayError


def refuse(message: str, param: str, code: str = InvalidRequest.type) -> InvalidRequest:
    """A 400 that names a parameter of the request, and the kind of the mistake in `code`."""
    return InvalidRequest(message, param=param, code=code)


def unsupported(param: str, why: str) -> InvalidRequest:
    """A 400 for what would change the answer and cannot be honoured."""
    return refuse(f"{param}: {why}", param, "unsupported_parameter")


def cause_of(error: GatewayError) -> tuple[str, dict[str, Any]]:
    """What names the cause of an error for a program, and the other details of the error.

    The number by which an agent has told that it failed is `agent_code` among them: clients take a
    `code` for a name.
    """
    details = dict(error.details)
    code = details.pop("code", None)
    if isinstance(code, str):
        return code, details
    return error.type, details if code is None else {"agent_code": code, **details}


def rate_limit_headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """The field of OpenAI's and Anthropic's own which their clients read first: they need not wait
    for a whole second."""
    if not isinstance(error, RateLimited) or error.retry_after is None:
        return []
    return [(b"retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after * 1000)))]
