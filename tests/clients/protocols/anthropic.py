"""Anthropic's Messages."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import ANSWERED, STATE, STATUS

MESSAGES = Api(
    "messages",
    {
        STATUS: "a ping in the stream, which clients skip",
        STATE: "there is no place for it",
        ANSWERED: "a question is text, and what the user says next is a message like others",
    },
)

CLIENTS = (
    Client("anthropic (Python)", MESSAGES, "with_anthropic.py", "anthropic"),
    Client("anthropic (Node)", MESSAGES, "with_anthropic.mjs", "@anthropic-ai/sdk"),
    Client("langchain-anthropic", MESSAGES, "with_langchain_anthropic.py", "langchain-anthropic"),
    Client("litellm", MESSAGES, "with_litellm.py", "litellm"),
    Client("AI SDK, anthropic", MESSAGES, "with_ai_sdk.mjs", "@ai-sdk/anthropic"),
)
