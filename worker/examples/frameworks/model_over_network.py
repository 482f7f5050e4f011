"""A model over the network, by OpenAI's client, which streams what the model says.

    [agents.poet]
    command = "agent-worker worker/examples/frameworks/model_over_network.py:agent"

    [agents.poet.sandbox]
    network = ["api.openai.com:443"]    # everything else is out of reach
    env_allow = ["OPENAI_API_KEY"]      # OPENAI_BASE_URL, too, for another server

The sandbox has no network but a proxy, which the client finds by itself (`HTTPS_PROXY`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import openai

from worker import Agent

agent = Agent("poet", description="Speaks for a model.", concurrency=50)
client = openai.AsyncOpenAI(max_retries=2)


@agent.chat
async def chat(messages: list[dict[str, Any]]) -> AsyncIterator[Any]:
    model = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
    return await client.chat.completions.create(model=model, messages=messages, stream=True)


if __name__ == "__main__":
    agent.run()
