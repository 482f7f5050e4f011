"""The AI SDK's UI message stream."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import STREAMS_ONLY, asked_apart, attached, showed_its_search

UI = Api(
    "AI SDK UI v1",
    checks={
        "search": showed_its_search,
        "draw": attached,
        "ask": asked_apart,
        **STREAMS_ONLY,
    },
)

CLIENTS = (
    Client("ai, DefaultChatTransport", UI, "with_ui.mjs", "ai", way="transport"),
    Client("@ai-sdk/react, useChat", UI, "with_ui.mjs", "@ai-sdk/react", way="chat"),
)
