"""Clients that we did not write, and agents in other languages, served by the same binary."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import trio

from tests.conftest import need
from tests.harness import parse_events, running_gateway
from tests.http.conftest import SCRIPTED, Shared
from tests.http.test_contract import body_for

SECONDS = 30
"""For one run of curl."""


# curl


def curl(*arguments: str) -> str:
    need(shutil.which("curl"), "curl is not installed")
    ended = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", str(SECONDS), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS + 5,
    )
    return ended.stdout


def test_curl_with_its_json_option(shared: Shared) -> None:
    version = curl("--version").split()[1]
    need(tuple(map(int, version.split(".")[:2])) >= (7, 82), "curl has no --json before 7.82")
    invoke = curl("--json", '{"input": {"key": "value"}}', f"{shared.url}/agent/echo/invoke")
    assert invoke == '{"output":{"key":"value"}}'
    messages = '{"messages": [{"role": "user", "content": "Hello!"}]}'
    chat = curl("--json", messages, f"{shared.url}/agent/echo/chat")
    assert json.loads(chat) == {"message": {"role": "assistant", "content": "Hello!"}}


@pytest.mark.parametrize("kind", ["invoke", "chat"])
def test_curl_reads_a_stream(shared: Shared, kind: str) -> None:
    body = body_for(kind if kind == "invoke" else "/chat", "hey you", stream=True)
    header = "Content-Type: application/json"
    url = f"{shared.url}/agent/talker/{kind}"
    stream = curl("-N", "-H", header, "-d", json.dumps(body), url)
    assert stream.startswith('data: {"chunk":')
    assert stream.endswith("data: [DONE]\n\n")


def test_curl_sends_a_large_body_and_is_told_that_it_is_too_large(
    shared: Shared, tmp_path: Path
) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"input": "x" * 5_000_000}))
    url = f"{shared.url}/agent/echo/invoke"
    header = "Content-Type: application/json"  # curl asks first: Expect: 100-continue
    answer = curl("-H", header, "--data-binary", f"@{body}", "-w", " %{http_code}", url)
    assert answer.endswith(" 413")
    assert "request_too_large" in answer


# openai, as a generic client


@pytest.fixture
def oai(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=shared.url,
        api_key="none",
        max_retries=0,
        http_client=httpx.Client(verify=False),
    ) as client:
        yield client


Stream = openai.Stream[dict[str, Any]]


def stream_of(client: openai.OpenAI, path: str, body: dict[str, Any]) -> Stream:
    return client.post(
        path, body={**body, "stream": True}, cast_to=object, stream=True, stream_cls=Stream
    )


def answer_of(client: openai.OpenAI, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return client.post(path, body=body, cast_to=dict[str, Any])


def test_the_openai_client_reads_invoke_and_chat(oai: openai.OpenAI) -> None:
    assert answer_of(oai, "/agent/echo/invoke", {"input": [1]}) == {"output": [1]}
    messages = [{"role": "user", "content": "Hello!"}]
    answer = answer_of(oai, "/agent/echo/chat", {"messages": messages})
    assert answer == {"message": {"role": "assistant", "content": "Hello!"}}


@pytest.mark.parametrize("path", ["/agent/scripted/invoke", "/agents/scripted/chat"])
def test_the_openai_client_reads_a_stream(oai: openai.OpenAI, path: str) -> None:
    script = [["say", "Hello "], ["say", "World!"], ["end"]]
    chunks = list(stream_of(oai, path, body_for(path, script)))
    assert chunks == [{"chunk": "Hello "}, {"chunk": "World!"}]


TYPED_ERRORS = {
    400: ("/agent/scripted/invoke", {}, openai.BadRequestError),
    404: ("/agent/nobody/invoke", {"input": 1}, openai.NotFoundError),
    413: ("/agent/scripted/invoke", {"input": "x" * 2_000_000}, openai.APIStatusError),
    500: (
        "/agent/scripted/invoke",
        {"input": [["error", -32000, "no luck"]]},
        openai.InternalServerError,
    ),
    501: ("/agent/invoke-only/chat", body_for("/chat", "x"), openai.InternalServerError),
    502: (
        "/agent/scripted/invoke",
        {"input": [["raw", '{"id": <id>, "result": 1}']]},
        openai.InternalServerError,
    ),
    504: ("/agent/hasty/invoke", {"input": [["hold"]]}, openai.InternalServerError),
}


@pytest.mark.parametrize("status", TYPED_ERRORS)
def test_the_openai_client_raises_its_typed_errors(oai: openai.OpenAI, status: int) -> None:
    path, body, error = TYPED_ERRORS[status]
    for ask in (stream_of, answer_of):
        with pytest.raises(error) as caught:
            ask(oai, path, body)
        assert caught.value.status_code == status
        assert caught.value.body["message"]
        assert caught.value.response.headers["x-request-id"] == caught.value.request_id


def test_the_openai_client_raises_an_error_in_mid_stream(oai: openai.OpenAI) -> None:
    script = [["say", "so far"], ["burst", 3], ["error", -32000, "no luck"]]
    stream = stream_of(oai, "/agent/scripted/invoke", {"input": script})
    assert next(stream) == {"chunk": "so far"}
    with pytest.raises(openai.APIError, match="no luck") as caught:
        list(stream)
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.body["output_begun"] is True


# Clients that send a request again

FAILURES = {
    500: [["error", -32000, "no luck"]],
    501: [["exit", 3]],
    502: [["raw", '{"id": <id>, "result": 1}']],
    504: [["hold"]],
}
"""What an agent does that fails with each status."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("make_client", [openai.OpenAI, anthropic.Anthropic])
async def test_a_client_that_sends_failed_requests_again_runs_an_agent_once(
    make_client: Callable[..., Any], stream: bool, tmp_path: Path
) -> None:
    words = ", ".join(f"'{word}'" for word in SCRIPTED)
    toml = f"""
        [agents.scripted]
        command = [{words}]
        workers = {{ max = 1 }}
        clocks = {{ first = 0.2, cancel = 1 }}
    """
    failure = (openai.APIStatusError, anthropic.APIStatusError)

    def post(script: list[Any]) -> int:
        body = {"input": [["log", "the agent runs"], *script], "stream": stream}
        with (
            make_client(base_url=gateway.url, api_key="none") as client,
            pytest.raises(failure) as caught,
        ):
            client.post("/agent/scripted/invoke", body=body, cast_to=object)
        return int(caught.value.status_code)

    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        for status, script in FAILURES.items():
            assert await trio.to_thread.run_sync(post, script) == status
        await gateway.post("/agent/scripted/invoke", input=[["log", "all is done"], ["end"]])
        await gateway.logged("all is done")
        runs = [line for line in gateway.log if "INFO the agent runs " in line]
        assert len(runs) == len(FAILURES), gateway.log


def test_a_client_is_not_told_to_ask_again_for_a_handler_that_is_not_there(shared: Shared) -> None:
    sent: list[Any] = []
    http_client = httpx.Client(verify=False, event_hooks={"request": [sent.append]})
    with (
        openai.OpenAI(base_url=shared.url, api_key="none", http_client=http_client) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.post("/agent/invoke-only/chat", body=body_for("/chat", "x"), cast_to=object)
    assert len(sent) == 1


# Agents without our SDK


async def test_one_line_of_jq_is_an_agent(client: httpx.AsyncClient) -> None:
    need(shutil.which("jq"), "jq is not installed")
    for _ in range(3):
        answer = await client.post("/agent/upper/invoke", json={"input": "hello"})
        assert answer.json() == {"output": "HELLO"}
    answer = await client.post("/agent/upper/invoke", json={"input": "hello", "stream": True})
    assert list(parse_events(answer.text)) == ['{"chunk":"HELLO"}', "[DONE]"]


@pytest.mark.parametrize(
    ("agent", "needed"), [("echo", ()), ("plain", ()), ("shell", ("jq",)), ("node", ("node",))]
)
async def test_the_same_agent_in_every_language(
    client: httpx.AsyncClient, agent: str, needed: tuple[str, ...]
) -> None:
    for program in needed:
        need(shutil.which(program), f"{program} is not installed")
    for value in ({"a": [1, None, "é💡\u2028"]}, "text", None, 1.5):
        answer = await client.post(f"/agent/{agent}/invoke", json={"input": value})
        assert answer.json() == {"output": value}
    messages = [{"role": "user", "content": "Hello!"}]
    answer = await client.post(f"/agent/{agent}/chat", json={"messages": messages})
    assert answer.json() == {"message": {"role": "assistant", "content": "Hello!"}}
    body = {"messages": messages, "stream": True}
    answer = await client.post(f"/agents/{agent}/chat", json=body)
    assert list(parse_events(answer.text)) == ['{"chunk":"Hello!"}', "[DONE]"]
    body = {"messages": [{"role": "system", "content": "x"}]}
    assert (await client.post(f"/agent/{agent}/chat", json=body)).status_code == 400
