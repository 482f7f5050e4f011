"""OpenAI's API."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import ANSWERED, REASONING, STATE, STATUS

LACKS = {
    STATUS: "a comment in the stream, which clients skip",
    STATE: "there is no place for it",
    ANSWERED: "a question is text, and what the user says next is a message like others",
}
CHAT = Api("chat", LACKS)
RESPONSES = Api("responses", LACKS)

UNREAD = {REASONING: "it does not read `reasoning_content`"}

CLIENTS = (
    Client("openai (Python)", CHAT, "with_openai.py", "openai"),
    Client("openai (Python)", RESPONSES, "with_openai.py", "openai"),
    Client("openai (Node)", CHAT, "with_openai.mjs", "openai"),
    Client("openai (Node)", RESPONSES, "with_openai.mjs", "openai"),
    Client("langchain-openai", CHAT, "with_langchain.py", "langchain-openai", lacks=UNREAD),
    Client("langchain-openai", RESPONSES, "with_langchain.py", "langchain-openai"),
    Client("litellm", CHAT, "with_litellm.py", "litellm"),
    Client("litellm", RESPONSES, "with_litellm.py", "litellm"),
    # Its chat does not; openai-compatible does.
    Client("AI SDK, openai", CHAT, "with_ai_sdk.mjs", "@ai-sdk/openai", lacks=UNREAD),
    Client("AI SDK, openai", RESPONSES, "with_ai_sdk.mjs", "@ai-sdk/openai"),
    Client(
        "AI SDK, openai-compatible",
        CHAT,
        "with_ai_sdk.mjs",
        "@ai-sdk/openai-compatible",
        way="compatible",
    ),
    Client(
        "@openai/agents",
        CHAT,
        "with_agents.mjs",
        "@openai/agents",
        lacks={REASONING: "it reads `reasoning`, another service's name of it"},
    ),
    Client("@openai/agents", RESPONSES, "with_agents.mjs", "@openai/agents"),
)
