"""The Model Context Protocol: its newest version, and the handshake of those before."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import (
    FRAGILE,
    HELLO,
    JQ,
    OWN,
    REASONING,
    STATE,
    Reply,
    attached,
    broke_off,
    is_told,
)


def was_cancelled(reply: Reply) -> bool:
    """Nothing of a result is there before its end."""
    return reply["error"] is None and reply["cancelled"]


def has_come(reply: Reply) -> bool:
    """Whole: a tool's result has no pieces."""
    return is_told(reply, HELLO)


MID_ANSWER = f"mid-stream-error-answer-crash-later-of-{FRAGILE}"

LACKS = {
    "stream": "a tool's result is one whole",
    "tools": "a client has tools from its servers, and none for them",
    OWN: "a message of progress",
    REASONING: "a message of progress",
    STATE: "there is no place for it",
    "image": "a tool's arguments are text",
}
CHECKS = {
    "draw": attached,
    "hold": was_cancelled,
    f"{JQ}-stream-hello-of-{JQ}": has_come,
    # Every result is whole, and one that has failed has in it what the agent had begun.
    MID_ANSWER: broke_off,
}
NEWEST = Api("MCP 2026-07-28", LACKS, CHECKS, has_statuses=False)
OLDER = Api("MCP 2025-11-25", LACKS, CHECKS, has_statuses=False)

CLIENTS = (
    Client("mcp (Python)", NEWEST, "with_mcp.py", "mcp", way="auto"),
    Client("mcp (Python)", OLDER, "with_mcp.py", "mcp", way="legacy"),
    Client(
        "@modelcontextprotocol/client",
        NEWEST,
        "with_mcp.mjs",
        "@modelcontextprotocol/client",
        way="newest",
    ),
    Client(
        "@modelcontextprotocol/sdk",
        OLDER,
        "with_mcp.mjs",
        "@modelcontextprotocol/sdk",
        way="older",
    ),
)
