"""The protocol's path in the OpenAPI document. What the bodies say is the protocol's to describe:
clients ask there for the tools that agents are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.described import ANY_ROUTE, REASONS, Json, Part, error_types
from gateway.front.mcp.codec import PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.described import AgentView

_TAG = "MCP"

_BODY: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/McpMessage"}}}
_STREAM: Json = {
    "text/event-stream": {"schema": {"description": "The data of each event is a message."}}
}
_REFUSED = (*ANY_ROUTE, 406, 408, 413, 415, 503)

_EXAMPLE: Json = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "me", "version": "1"},
    },
}
"""What needs no session yet."""

SCHEMAS: Json = {
    "McpMessage": {
        "type": "object",
        "description": "One message of JSON-RPC 2.0, as the Model Context Protocol has it.",
        "properties": {"jsonrpc": {"const": "2.0"}},
        "required": ["jsonrpc"],
    }
}


def describe(agents: Sequence[AgentView]) -> Part:
    """The path; nothing of the agents."""
    del agents
    post = _operation("Send a message", {"200": ("The answer.", {**_BODY, **_STREAM})})
    post["responses"]["202"] = {"description": "A notification was taken."}
    body = {"application/json": {**_BODY["application/json"], "example": _EXAMPLE}}
    post["requestBody"] = {"required": True, "content": body}
    get = _operation("Read what a session is told", {"200": ("A stream.", _STREAM)})
    delete = _operation("End a session", {"200": ("It has ended.", {})})
    tag = {"name": _TAG, "description": "The Model Context Protocol: agents as tools."}
    path = {"post": post, "get": get, "delete": delete}
    return Part(paths={PATH: path}, schemas=SCHEMAS, tags=[tag])


def _operation(summary: str, good: dict[str, tuple[str, Json]]) -> Json:
    responses: Json = {
        status: {"description": text, **({"content": content} if content else {})}
        for status, (text, content) in good.items()
    }
    known = error_types()
    for status in sorted(_REFUSED):
        if status in known or status == 406:
            about = REASONS.get(status, "The client would not accept what there is.")
            responses[str(status)] = {"description": about, "content": _BODY}
    name = f"mcp_{summary.partition(' ')[0].lower()}"
    return {"tags": [_TAG], "operationId": name, "summary": summary, "responses": responses}
