"""Anthropic's Messages over HTTP: models, errors without an agent, keys, limits, runs.

What the clients make of answers is tested in `tests/clients`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.config.keys import hash_key, new_key
from tests.harness import GatewayInThread, gateway_in_thread
from tests.http.conftest import SCRIPTED

ADA, BOB, WRONG = (new_key() for _ in range(3))
JSON = {"content-type": "application/json"}
VERSION = {"anthropic-version": "2026-10-21"}
BOTH = {**JSON, **VERSION}
TEXT = {"content-type": "text/plain"}
EVIL = {"host": "evil.example"}
MESSAGES = "/v1/messages"
INVALID, NOT_FOUND = "invalid_request_error", "not_found_error"

TOML = f"""
[server]
sandbox = "off"
max_body = "1M"
dialects = ["native", "openai", "anthropic"]

[defaults]
command = {json.dumps([*SCRIPTED, "chat", "+tools"])}
workers = {{ min = 0, max = 1 }}
restart = {{ failures = 1000, backoff = 0 }}

[agents.able]
[agents.other]
[agents.paced.limits]
requests_per_second = 1
[agents.hasty]
clocks = {{ first = 0.2, cancel = 1 }}
[agents.invoke-only]
command = {json.dumps([*SCRIPTED, "invoke"])}

[keys.ada]
hash = "{hash_key(ADA.encode())}"
[keys.bob]
hash = "{hash_key(BOB.encode())}"
agents = ["other"]
"""


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(TOML, tmp_path_factory.mktemp("anthropic"), key=ADA) as gateway:
        yield gateway


def client_of(gateway: GatewayInThread, key: str = ADA, **settings: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=key, **settings)


def script(*steps: Any, model: str = "able", **members: Any) -> dict[str, Any]:
    """What an agent is to do, as members of a request."""
    content = json.dumps(steps) if steps else "hi"
    messages = [{"role": "user", "content": content}]
    return {"model": model, "max_tokens": 9, "messages": messages, **members}


def test_the_agents_are_models_in_the_form_that_the_client_reads(gateway: GatewayInThread) -> None:
    with client_of(gateway) as client:
        client.messages.create(**script(["say", "x"], ["end"], model="other"))
        invoked = f"{gateway.url}/agent/invoke-only/invoke"
        httpx.post(invoked, json={"input": [["end"]]}, headers={"x-api-key": ADA})
        models = {model.id: model for model in client.models.list(limit=2)}  # in pages
        assert set(models) == {"able", "other", "paced", "hasty"}
        assert client.models.retrieve("able") == models["able"]
        assert (models["able"].type, models["able"].lifecycle) == ("model", "active")
        assert models["able"].created_at.tzinfo is not None
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("nobody")
        with pytest.raises(anthropic.BadRequestError):
            client.models.list(limit=0)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=ADA) as other:
        assert {model.id for model in other.models.list()} == set(models)
        with pytest.raises(openai.NotFoundError) as caught:
            other.models.retrieve("nobody")
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "status", "kind", "code"),
    [
        (("GET", "/v1/nothing", VERSION, b""), 404, NOT_FOUND, "not_found"),
        (("POST", f"{MESSAGES}/count_tokens", JSON, b"{}"), 404, NOT_FOUND, "not_found"),
        (("POST", f"{MESSAGES}/batches", JSON, b"{}"), 404, NOT_FOUND, "not_found"),
        (("POST", "/v1/models", BOTH, b"{}"), 405, INVALID, "method_not_allowed"),
        (("GET", MESSAGES, {}, b""), 405, INVALID, "method_not_allowed"),
        (("POST", MESSAGES, TEXT, b"{}"), 415, INVALID, "unsupported_media_type"),
        (("POST", MESSAGES, JSON, b"x" * 1_100_000), 413, "request_too_large", "request_too_large"),
        (("POST", MESSAGES, {**JSON, **EVIL}, b"{}"), 421, INVALID, "misdirected_request"),
        (("GET", "/v1/models", {**VERSION, **EVIL}, b""), 421, INVALID, "misdirected_request"),
        (("POST", MESSAGES, BOTH, b"{"), 400, INVALID, "invalid_request"),
        (("POST", MESSAGES, BOTH, b"{}"), 400, INVALID, "missing_required_parameter"),
        (("POST", MESSAGES, JSON, b"{}"), 400, INVALID, "invalid_request"),
    ],
)
def test_every_error_of_its_paths_is_in_anthropics_form(
    gateway: GatewayInThread,
    asked: tuple[str, str, dict[str, str], bytes],
    status: int,
    kind: str,
    code: str,
) -> None:
    method, path, headers, content = asked
    answer = httpx.request(
        method, gateway.url + path, headers={"x-api-key": ADA, **headers}, content=content
    )
    told = answer.json()
    assert answer.status_code == status
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert told["error"]["details"]["error_code"] == code
    assert told["error"]["message"]
    assert told["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/v1/models", {}, "invalid_request_error"),
        ("/v1/nothing", {}, "invalid_request_error"),
        ("/nothing", VERSION, "not_found"),
    ],
)
def test_errors_for_other_clients_are_in_theirs(
    gateway: GatewayInThread, path: str, headers: dict[str, str], kind: str
) -> None:
    answer = httpx.post(gateway.url + path, headers={"x-api-key": ADA, **headers}, json={})
    assert "request_id" in answer.json()["error"]
    assert answer.json()["error"]["type"] == kind


def test_a_key_is_presented_in_either_header(gateway: GatewayInThread) -> None:
    asked = script(["say", "Hi"], ["end"])
    with client_of(gateway) as client:
        message = client.messages.create(**asked)
        assert message.content[0].text == "Hi"
        assert message._request_id
    with anthropic.Anthropic(base_url=gateway.url, api_key=None, auth_token=ADA) as client:
        assert client.messages.create(**asked).content[0].text == "Hi"


def test_a_wrong_key_and_one_for_other_agents_are_told_apart(gateway: GatewayInThread) -> None:
    with client_of(gateway, WRONG) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client.messages.create(**script())
        with pytest.raises(anthropic.AuthenticationError):
            client.models.list()
    assert (refused.value.type, refused.value.error_code) == (
        "authentication_error",
        "unauthorized",
    )
    with client_of(gateway, BOB) as client:
        assert [model.id for model in client.models.list()] == ["other"]
        for agent in ("able", "nobody"):
            with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
                client.messages.create(**script(model=agent))
            assert (forbidden.value.type, forbidden.value.error_code) == (
                "permission_error",
                "forbidden",
            )
        assert client.messages.create(**script(["say", "x"], ["end"], model="other")).content


@pytest.mark.parametrize(
    ("steps", "model", "kind", "said"),
    [
        ([["error", -32602, "no"]], "able", anthropic.BadRequestError, INVALID),
        ([["error", -32000, "no"]], "able", anthropic.InternalServerError, "api_error"),
        ([["exit", 3]], "able", anthropic.HTTPNotImplementedError, "api_error"),
        ([["raw", "nonsense"]], "able", anthropic.InternalServerError, "api_error"),
        ([["hold"]], "hasty", anthropic.GatewayTimeoutError, "timeout_error"),
        ([], "nobody", anthropic.NotFoundError, NOT_FOUND),
        ([], "invoke-only", anthropic.HTTPNotImplementedError, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_an_exception_of_its_own_and_not_asked_again(
    gateway: GatewayInThread, steps: Any, model: str, kind: Any, said: str, *, stream: bool
) -> None:
    sent: list[Any] = []
    http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with client_of(gateway, http_client=http_client) as client, pytest.raises(kind) as caught:
        client.messages.create(**script(*steps, model=model), stream=stream)
    error = caught.value
    assert error.type == said
    assert error.error_code
    assert error.request_id == error.body["request_id"]
    assert len(sent) == 1


def test_what_may_be_asked_again_is_after_the_time_that_it_is_told(
    gateway: GatewayInThread,
) -> None:
    asked = script(["say", "x"], ["end"], model="paced")
    with client_of(gateway, max_retries=0) as client:
        client.messages.create(**asked)
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(**asked)
    assert caught.value.type == "rate_limit_error"
    assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 1000
    with client_of(gateway) as client:
        assert client.messages.create(**asked).content


def test_an_error_in_a_stream_is_raised_with_what_was_said_before(gateway: GatewayInThread) -> None:
    steps = [["say", "so far"], ["exit", 3]]
    with client_of(gateway) as client, client.messages.stream(**script(*steps)) as stream:
        texts = stream.text_stream
        assert next(texts) == "so far"
        with pytest.raises(anthropic.APIStatusError) as caught:
            next(texts)
    assert (caught.value.type, caught.value.error_code) == ("api_error", "worker_crashed")


def test_a_request_may_be_a_run(gateway: GatewayInThread) -> None:
    headers = {"x-api-key": ADA, **VERSION, "idempotency-key": "once"}
    asked = script(["say", "Hi"], ["end"])
    first, again = (
        httpx.post(gateway.url + MESSAGES, json=asked, headers=headers) for _ in range(2)
    )
    assert first.json() == again.json()
    assert first.json()["type"] == "message"
    assert first.headers["request-id"] == first.headers["x-request-id"]
    run = httpx.get(f"{gateway.url}/runs/{first.headers['x-run-id']}", headers=headers).json()
    assert run["state"] == "completed"
    assert run["answer"]["body"] == first.json()


def test_a_stream_that_is_a_run_goes_on_where_it_was_left(gateway: GatewayInThread) -> None:
    headers = {"x-api-key": ADA, **VERSION, "idempotency-key": "streamed"}
    asked = script(["say", "a"], ["say", "b"], ["end"], stream=True)
    whole = httpx.post(gateway.url + MESSAGES, json=asked, headers=headers).text
    events = whole.split("\n\n")
    rest = httpx.post(
        gateway.url + MESSAGES, json=asked, headers={**headers, "last-event-id": "1"}
    ).text
    assert rest.split("\n\n") == events[2:]
    assert "message_stop" in events[-2]


def test_a_request_is_measured_by_its_dialect(tmp_path: Path) -> None:
    toml = TOML.replace("[server]", "[server]\nmetrics = true\n", 1)
    with gateway_in_thread(toml, tmp_path, key=ADA) as gateway:
        with client_of(gateway) as client:
            client.messages.create(**script(["say", "x"], ["end"]))
        text = httpx.get(f"{gateway.url}/metrics", headers={"x-api-key": ADA}).text
        assert 'agent="able",dialect="anthropic",handler="chat",status="200"' in text
