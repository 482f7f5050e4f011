"""A2A as it is served here, described: see `gateway.front.described`.

The messages are A2A's own, whose specification describes them; here is what all of them have in
common, and what the cards hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.described import (
    CALL,
    AgentView,
    Json,
    Part,
    error_responses,
    errors_of,
    headers,
    parameters,
    ref,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX = "A2AError"

METHODS = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "GetExtendedAgentCard",
)


def describe(agents: Sequence[AgentView]) -> Part:
    """The paths of the dialect."""
    tags: Json = {"tags": ["a2a"]}
    names = [agent.name for agent in agents]
    named: Json = {"type": "string", "minLength": 1}
    if names:
        named["examples"] = names
    name = [{"name": "name", "in": "path", "required": True, "schema": named}]
    return Part(
        paths={
            "/.well-known/agent-card.json": {
                "get": _card("Show the gateway's card", "get_gateway_card", tags)
            },
            "/a2a/{name}/.well-known/agent-card.json": {
                "get": {
                    **_card("Show an agent's card", "get_agent_card", tags),
                    # A stranger is told how to get in, and nothing else.
                    "security": [],
                },
                "parameters": name,
            },
            "/a2a/{name}": {"post": _call(tags), "parameters": name},
        },
        schemas={"A2ARequest": _REQUEST, "A2AResponse": _RESPONSE, "A2ACard": _CARD},
        responses=errors_of(_PREFIX, _error),
        tags=({"name": "a2a", "description": "A2A 1.0, bound to JSON-RPC."},),
    )


def _card(summary: str, name: str, tags: Json) -> Json:
    return {
        "summary": summary,
        "operationId": name,
        **tags,
        "parameters": parameters("X-Request-Id"),
        "responses": {
            "200": {
                "description": "An `AgentCard` of A2A 1.0.",
                "headers": headers("X-Request-Id"),
                "content": {"application/json": {"schema": ref("A2ACard")}},
            },
            **error_responses(_PREFIX, (400, 401, 403, 404, 405, 421, 429, 431, 500, 505)),
        },
    }


def _call(tags: Json) -> Json:
    return {
        "summary": "Call an agent, or ask for a task of it, by A2A",
        "operationId": "call_by_a2a",
        **tags,
        "parameters": [
            {
                "name": "A2A-Version",
                "in": "header",
                "description": "`1.0`; anything else, and nothing, is the error -32009.",
                "schema": {"type": "string"},
            },
            *parameters("X-Request-Id", "traceparent"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": ref("A2ARequest"),
                    "example": {
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "SendMessage",
                        "params": {
                            "message": {
                                "messageId": "m1",
                                "role": "ROLE_USER",
                                "parts": [{"text": "Hello"}],
                            }
                        },
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "A JSON-RPC response, which may be an error, or a stream of them.",
                "headers": headers("X-Request-Id", "X-Run-Id"),
                "content": {
                    "application/json": {"schema": ref("A2AResponse")},
                    "text/event-stream": {
                        "schema": {"description": "Each event's data is a JSON-RPC response."}
                    },
                },
            },
            **error_responses(_PREFIX, CALL),
        },
    }


_REQUEST: Json = {
    "title": "A JSON-RPC request",
    "description": "`jsonrpc`, `id`, `method` and `params`, where the method is one of "
    + ", ".join(f"`{method}`" for method in METHODS)
    + ". What is not as it should be has status 200, as JSON-RPC has it, and a code.",
}
"""Without constraints: what a schema forbids is expected to have a status of its own."""

_ERROR_OBJECT: Json = {
    "type": "object",
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "data": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["code", "message", "data"],
}

_RESPONSE: Json = {
    "type": "object",
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "number", "null"]},
        "result": {"type": "object"},
        "error": _ERROR_OBJECT,
    },
    "required": ["jsonrpc", "id"],
}

_CARD: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "version": {"type": "string"},
        "supportedInterfaces": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "capabilities": {"type": "object"},
        "skills": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
    "required": [
        "name",
        "description",
        "version",
        "supportedInterfaces",
        "capabilities",
        "defaultInputModes",
        "defaultOutputModes",
        "skills",
    ],
}


def _error(types: Sequence[str]) -> Json:
    del types  # the reason in `data` may be one of A2A's
    return ref("A2AResponse")
