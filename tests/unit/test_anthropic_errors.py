"""Errors in Anthropic's form, and which requests are answered in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import (
    AgentFailed,
    AgentNotFound,
    GatewayError,
    InvalidRequest,
    RateLimited,
)
from gateway.front.anthropic.dialect import AnthropicDialect
from gateway.front.dialect import dialect_of
from gateway.front.native.dialect import NativeDialect
from gateway.front.openai.dialect import OpenAIDialect
from tests.unit.anthropic import VERSION


@pytest.mark.parametrize(
    ("error", "kind", "more"),
    [
        (InvalidRequest("no", param="n", code="unknown_parameter"), "invalid_request_error",
         {"param": "n", "error_code": "unknown_parameter"}),
        (AgentNotFound("no"), "not_found_error", {"error_code": "agent_not_found"}),
        (AgentFailed("no"), "api_error", {"error_code": "agent_error"}),
        (RateLimited("no", retry_after=0.25, setting="s"), "rate_limit_error",
         {"error_code": "rate_limited", "setting": "s"}),
    ],
)  # fmt: skip
def test_an_error_is_in_anthropics_form(error: GatewayError, kind: str, more: Any) -> None:
    response = AnthropicDialect().encode_error(error, "r-1")
    headers = dict(response.headers)
    assert (response.status, headers[b"request-id"]) == (error.status, b"r-1")
    assert headers.get(b"retry-after-ms") == (b"250" if isinstance(error, RateLimited) else None)
    assert json.loads(response.body) == {
        "type": "error",
        "error": {"type": kind, "message": "no", "details": more},
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("path", "fields", "with_openai", "alone"),
    [
        ("/v1/models", VERSION, "anthropic", "anthropic"),
        ("/v1/models", {}, "openai", "anthropic"),
        ("/v1/messages/batches", {}, "anthropic", "anthropic"),
        ("/v1/responses", {}, "openai", "anthropic"),
        ("/v1/nothing", VERSION, "anthropic", "anthropic"),
        ("/v2/nothing", VERSION, "native", "native"),
        ("/v1", {}, "native", "native"),
    ],
)
def test_a_client_is_answered_in_the_dialect_that_it_speaks(
    path: str, fields: Any, with_openai: str, alone: str
) -> None:
    named: dict[str, Any] = {
        "openai": OpenAIDialect(),
        "anthropic": AnthropicDialect(),
        "native": NativeDialect(),
    }
    assert dialect_of(tuple(named.values()), path, fields) is named[with_openai]
    del named["openai"]
    assert dialect_of(tuple(named.values()), path, fields) is named[alone]
