"""What of OpenAI's API only its own client asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.clients.runners import KEY
from tests.harness import GatewayInThread


@pytest.fixture(scope="module")
def client(gateway: GatewayInThread) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=KEY, http_client=httpx.Client(verify=False)
    ) as client:
        yield client


def say(client: openai.OpenAI, text: str, **options: Any) -> str:
    messages: Any = [{"role": "user", "content": text}]
    completion = client.chat.completions.create(model="told", messages=messages, **options)
    return completion.choices[0].message.content or ""


def test_agents_are_listed_as_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"told", "fragile", "plain", "jq"}
    assert client.models.retrieve("told").id == "told"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_developer_is_the_system_for_an_agent(client: openai.OpenAI) -> None:
    developer, user = ({"role": role, "content": "roles"} for role in ("developer", "user"))
    messages: Any = [developer, user]
    completion = client.chat.completions.create(model="told", messages=messages)
    assert completion.choices[0].message.content == "system user"
    response = client.responses.create(model="told", input=messages, store=False)
    assert response.output_text == "system user"
    response = client.responses.create(
        model="told", input="roles", instructions="Be kind.", store=False
    )
    assert response.output_text == "system user"


def test_an_agent_is_told_who_asks_and_how(client: openai.OpenAI) -> None:
    shown = json.loads(say(client, "show", user="ann", metadata={"a": "b"}, temperature=0.5))
    # The name of the key stands before what its holder says of a user.
    told = {"user_id": "tests/ann", "custom": {"a": "b"}, "parameters": {"temperature": 0.5}}
    assert shown["context"] == told


@pytest.mark.parametrize(
    ("name", "value"), [("n", 2), ("logprobs", True), ("modalities", ["text", "audio"])]
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    client: openai.OpenAI, name: str, value: Any
) -> None:
    with pytest.raises(openai.BadRequestError, match=name):
        say(client, "hello", **{name: value})
