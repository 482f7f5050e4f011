"""OpenAI's API over HTTP: models, errors of requests that call no agent, and the client's errors.

What the clients of others make of it is tested with those.
"""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.http.conftest import Shared

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


@pytest.fixture(name="client")
def client_fixture(shared: Shared) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any", max_retries=0)


def body_of(path: str, **members: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"input": "hi"}
    return {"model": "talker", **asked, **members}


def test_the_models_are_the_agents_that_chat(shared: Shared, client: openai.OpenAI) -> None:
    httpx.post(f"{shared.url}/agent/invoke-only/invoke", json={"input": {"say": "x"}})
    models = {model.id: model for model in client.models.list()}
    assert {"scripted", "echo", "talker"} <= models.keys()
    assert "invoke-only" not in models
    assert client.models.retrieve("talker") == models["talker"]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (("GET", "/v1/nothing", {}, b""), 404, "not_found"),
        (("POST", "/v1/embeddings", JSON, b"{}"), 404, "not_found"),
        (("POST", "/v1/models", JSON, b"{}"), 405, "method_not_allowed"),
        (("GET", CHAT, {}, b""), 405, "method_not_allowed"),
        (("POST", CHAT, {"content-type": "text/plain"}, b"{}"), 415, "unsupported_media_type"),
        (("POST", CHAT, JSON, b"x" * 1_100_000), 413, "request_too_large"),
        (("POST", CHAT, {**JSON, "host": "evil.example"}, b"{}"), 421, "misdirected_request"),
        (("GET", "/v1/models", {"host": "evil.example"}, b""), 421, "misdirected_request"),
        (("POST", RESPONSES, JSON, b"{"), 400, "invalid_request"),
        (("POST", RESPONSES, JSON, b"{}"), 400, "missing_required_parameter"),
    ],
)
def test_every_error_below_v1_is_in_openais_form(
    shared: Shared, asked: tuple[str, str, dict[str, str], bytes], status: int, code: str
) -> None:
    method, path, headers, content = asked
    answer = httpx.request(method, shared.url + path, headers=headers, content=content)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (
        status,
        code,
        "invalid_request_error",
    )
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1", "/v10/models", "/agents/v1/x"])
def test_errors_elsewhere_are_native(shared: Shared, path: str) -> None:
    assert httpx.get(shared.url + path).json()["error"]["type"] == "not_found"


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_not_served_is_404(shared: Shared, path: str, stream: bool) -> None:
    body = body_of(path, model="gpt-4o", stream=stream)
    answer = httpx.post(shared.url + path, json=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "gpt-4o" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_agent_that_declares_no_tools_is_given_none(shared: Shared, path: str) -> None:
    tool = {"type": "function", "name": "t", "function": {"name": "t"}}
    answer = httpx.post(shared.url + path, json=body_of(path, tools=[tool]))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "tools"
    assert '"tools": true' in error["message"]


def test_an_agent_without_a_chat_handler_is_501_and_not_asked_again(
    client: openai.OpenAI,
) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="invoke-only", messages=messages)
    assert (caught.value.status_code, caught.value.code) == (501, "handler_not_implemented")
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_the_code_of_an_error_is_a_name_and_the_agents_own_number_stands_beside_it(
    client: openai.OpenAI,
) -> None:
    messages: Any = [{"role": "user", "content": '[["error", -32000, "no luck"]]'}]
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="scripted", messages=messages)
    assert caught.value.code == "agent_error"
    body: Any = caught.value.body
    assert body["agent_code"] == -32000


def test_a_stream_is_the_agents(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello there"}]
    chunks = client.chat.completions.create(model="talker", messages=messages, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = client.chat.completions.create(model="talker", messages=messages)
    assert text == whole.choices[0].message.content
    assert client.responses.create(model="talker", input=messages).output_text == text
    with client.responses.stream(model="talker", input=messages) as stream:
        assert stream.get_final_response().output_text == text


def test_the_last_response_of_a_conversation_can_be_gone_on_from(client: openai.OpenAI) -> None:
    first = client.responses.create(model="talker", input="a", conversation="gone-on-from")
    second = client.responses.create(model="talker", input="b", previous_response_id=first.id)
    assert second.conversation is not None
    assert second.conversation.id == "gone-on-from"
    for known in (first.id, "resp_never"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="talker", input="c", previous_response_id=known)
        assert caught.value.code == "previous_response_not_found"
