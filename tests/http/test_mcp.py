"""MCP through HTTP, by the SDK's client in both of the protocol's eras, in the strict sandbox."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types as types
import openapi_spec_validator
import pytest
import trio
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway.config.keys import hash_key, new_key
from tests.harness import GatewayInThread, gateway_in_thread
from tests.http.conftest import AGENTS
from tests.http.raw import becomes

pytestmark = [
    # The client leaves the generator of a stream that it does not read to its end to the collector.
    pytest.mark.filterwarnings("ignore:Async generator 'httpcore2:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ALICE, BOB = new_key(), new_key()

VERSATILE = [sys.executable, str(AGENTS / "versatile.py")]

JQ = (
    'jq --unbuffered -c \'{id, result: (if .method == "chat"'
    ' then {message: {role: "assistant", content: .params.messages[-1].content}}'
    " else {output: .params.input} end)}'"
)

TOML = f"""
[server]
dialects = ["mcp", "native"]
max_body = "1M"

[defaults]
workers = {{ min = 1, max = 1 }}
restart = {{ failures = 1000, backoff = 0 }}

[agents.versatile]
command = {json.dumps(VERSATILE)}

[agents.fragile]
command = {json.dumps([*VERSATILE, '{"concurrency": 1}'])}

[agents.jq]
command = {json.dumps(shlex.split(JQ))}

[agents.going-on]
command = {json.dumps(VERSATILE)}
on_disconnect = "continue"

[agents.few]
command = {json.dumps(VERSATILE)}
limits = {{ requests_per_minute = 1 }}

[keys.alice]
hash = "{hash_key(ALICE.encode())}"

[keys.bob]
hash = "{hash_key(BOB.encode())}"
agents = ["jq"]
"""

ERAS = ("auto", "legacy")
"""The newest version, and the handshake of those before."""

ACCEPT = "application/json, text/event-stream"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(TOML, tmp_path_factory.mktemp("mcp")) as running:
        for agent in ("versatile", "fragile", "going-on"):  # so that they have declared themselves
            headers = {"authorization": f"Bearer {ALICE}"}
            answer = httpx.post(
                f"{running.url}/agent/{agent}/invoke",
                json={"input": {"task": "hello"}},
                headers=headers,
                timeout=30,
            )
            assert answer.status_code == 200, answer.text
        yield running


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def http(key: str = ALICE) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}", "accept": ACCEPT}
    return httpx.AsyncClient(headers=headers, timeout=30)


@asynccontextmanager
async def connected(
    gateway: GatewayInThread, era: str, key: str = ALICE, **options: Any
) -> AsyncIterator[Client]:
    """The SDK's client, with a key."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as own:
        transport = streamable_http_client(f"{gateway.url}/mcp", http_client=own)
        async with Client(transport, mode=era, **options) as client:
            yield client


def texts(result: types.CallToolResult) -> str:
    return "".join(each.text for each in result.content if isinstance(each, types.TextContent))


def error_of(result: types.CallToolResult) -> str:
    """The gateway's type of a tool's error."""
    assert result.is_error
    assert result.meta is not None
    error = result.meta["agent-gateway/error"]
    last = result.content[-1]
    assert isinstance(last, types.TextContent)
    assert last.text == f"{error['type']}: {error['message']}"
    return str(error["type"])


async def test_each_handler_of_an_agent_is_a_tool_with_what_it_declares(
    gateway: GatewayInThread, era: str
) -> None:
    async with connected(gateway, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    agents = ("few", "fragile", "going-on", "jq", "versatile")
    assert list(tools) == [f"{name}_{method}" for name in agents for method in ("chat", "invoke")]
    tool = tools["versatile_invoke"]
    assert tool.description == "An agent that does what it is told."
    assert tool.input_schema["required"] == ["task"]
    assert tool.output_schema is not None
    assert tool.output_schema["additionalProperties"] is False
    assert tools["versatile_chat"].output_schema is None
    assert tools["jq_invoke"].input_schema["required"] == ["input"]


async def test_a_tool_is_answered_with_text_and_structured_output(
    gateway: GatewayInThread, era: str
) -> None:
    async with connected(gateway, era) as client:
        invoked = await client.call_tool("versatile_invoke", {"task": "hello"})
        said = await client.call_tool("versatile_chat", {"message": "hello"})
        jq = await client.call_tool("jq_invoke", {"input": [1, {"a": None}]})
        chat = await client.call_tool("jq_chat", {"message": "hi ☃"})
    assert invoked.structured_content == {"done": "whole"}
    assert json.loads(texts(invoked)) == {"done": "whole"}
    assert invoked.meta is not None
    assert invoked.meta["agent-gateway/usage"] == {"input_tokens": 7, "output_tokens": 3}
    assert (texts(said), said.structured_content) == ("Hello, Wörld!", None)
    assert json.loads(texts(jq)) == [1, {"a": None}]
    assert texts(chat) == "hi ☃"


async def test_events_are_progress_and_files_are_content(
    gateway: GatewayInThread, era: str
) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async with connected(gateway, era) as client:
        result = await client.call_tool(
            "versatile_chat", {"message": "work"}, progress_callback=progress
        )
    kinds = [each.type for each in result.content]
    files = ["image", "text", "audio", "resource", "resource", "resource_link"]
    assert kinds == ["text", *files]
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
    assert (2.0, 3.0, "nearly") in told
    assert any("First this." in str(message) for _, _, message in told)


async def test_history_and_conversation_reach_the_agent(gateway: GatewayInThread, era: str) -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    arguments = {"message": "echo", "messages": before, "conversation_id": "c1"}
    async with connected(gateway, era) as client:
        result = await client.call_tool("versatile_chat", arguments)
    assert json.loads(texts(result)) == [{"conversation_id": "alice/c1"}, before]


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("versatile_invoke", {}, "invalid_request"),
        ("versatile_invoke", {"task": "wrong"}, "invalid_agent_response"),
        ("versatile_invoke", {"task": "refuse"}, "invalid_request"),
        ("versatile_invoke", {"task": "fail"}, "agent_error"),
        ("versatile_chat", {"text": "x"}, "invalid_request"),
        ("jq_invoke", {"other": 1}, "invalid_request"),
        ("fragile_invoke", {"task": "crash"}, "worker_crashed"),
        ("fragile_chat", {"message": "crash-later"}, "worker_crashed"),
    ],
)
async def test_what_an_agent_fails_at_is_a_tools_error(
    gateway: GatewayInThread, era: str, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    async with connected(gateway, era) as client:
        assert error_of(await client.call_tool(tool, arguments)) == expected


async def test_what_was_said_before_a_failure_is_in_the_result_that_says_so(
    gateway: GatewayInThread, era: str
) -> None:
    async with connected(gateway, era) as client:
        result = await client.call_tool("fragile_chat", {"message": "crash-later"})
    assert error_of(result) == "worker_crashed"
    assert texts(result).startswith("so far")


async def test_what_there_is_not_is_the_protocols_error(gateway: GatewayInThread, era: str) -> None:
    async with connected(gateway, era, BOB) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["jq_chat", "jq_invoke"]
        for name in ("versatile_chat", "nobody_chat", "jq_other", "jq", ""):
            with pytest.raises(MCPError, match="Unknown tool") as caught:
                await client.call_tool(name, {"message": "hello"})
            assert caught.value.error.code == -32602


ANSWERS = {
    "Which day?": types.ElicitResult(action="accept", content={"answer": "Monday"}),
    "How?": types.ElicitResult(action="accept", content={"fast": True, "seats": 2}),
}


async def test_questions_are_asked_and_the_call_goes_on_with_the_answers(
    gateway: GatewayInThread, era: str
) -> None:
    async def answer(_: object, params: types.ElicitRequestFormParams) -> types.ElicitResult:
        return ANSWERS[params.message]

    async def cancel(_: object, params: types.ElicitRequestFormParams) -> types.ElicitResult:
        return types.ElicitResult(action="decline" if params.message == "How?" else "cancel")

    async with connected(gateway, era, elicitation_callback=answer) as client:
        given = json.loads(texts(await client.call_tool("versatile_chat", {"message": "ask"})))
    assert given == [
        {"id": "day", "status": "resolved", "payload": "Monday"},
        {"id": "how", "status": "resolved", "payload": {"fast": True, "seats": 2}},
    ]
    async with connected(gateway, era, elicitation_callback=cancel) as client:
        given = json.loads(texts(await client.call_tool("versatile_chat", {"message": "ask"})))
    assert [each["status"] for each in given] == ["cancelled", "cancelled"]


async def test_a_client_without_forms_is_told_the_questions(
    gateway: GatewayInThread, era: str
) -> None:
    async with connected(gateway, era) as client:
        result = await client.call_tool("versatile_chat", {"message": "ask"})
    assert texts(result) == "One thing. Which day?\n\nHow?"
    assert result.meta is not None
    assert result.meta["agent-gateway/finish"] == "input_required"


@pytest.mark.parametrize(
    ("era", "agent"),
    [
        ("auto", "versatile"),
        ("legacy", "versatile"),
        # In the newest version a client cancels by leaving, which does not end this agent's work.
        ("legacy", "going-on"),
    ],
)
async def test_a_client_that_cancels_ends_the_agents_work(
    gateway: GatewayInThread, era: str, agent: str
) -> None:
    began = trio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        del done, total, message
        began.set()

    async def call(client: Client) -> None:
        await client.call_tool(f"{agent}_chat", {"message": "hold"}, progress_callback=progress)

    async def is_told() -> bool:
        return sum("was cancelled" in line for line in gateway.log()) > before

    before = sum("was cancelled" in line for line in gateway.log())
    async with connected(gateway, era) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, client)
            await began.wait()
            nursery.cancel_scope.cancel()
        # Before the client ends: it takes what it has not sent by then with it.
        await becomes(is_told)


# Keys and limits


async def test_a_request_without_a_good_key_is_refused_before_all_else(
    gateway: GatewayInThread,
) -> None:
    async with httpx.AsyncClient(headers={"accept": ACCEPT}, timeout=30) as client:
        for method in ("POST", "GET", "DELETE"):
            response = await client.request(method, f"{gateway.url}/mcp")
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["data"]["type"] == "unauthorized"


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


HANDSHAKE = rpc(
    "initialize",
    protocolVersion="2025-11-25",
    capabilities={},
    clientInfo={"name": "t", "version": "1"},
)

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}


async def modern(
    client: httpx.AsyncClient, gateway: GatewayInThread, method: str, **params: Any
) -> httpx.Response:
    """One request of the newest version, by hand."""
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    body = rpc(method, **params, _meta=META)
    return await client.post(f"{gateway.url}/mcp", json=body, headers=headers)


async def test_a_session_belongs_to_the_key_that_has_opened_it(gateway: GatewayInThread) -> None:
    url = f"{gateway.url}/mcp"
    async with http() as alice, http(BOB) as bob:
        opened = await alice.post(url, json=HANDSHAKE)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        ping = rpc("ping")
        assert (await alice.post(url, json=ping, headers=session)).status_code == 200
        for method in ("POST", "GET", "DELETE"):
            body = {"json": ping} if method == "POST" else {}
            response = await bob.request(method, url, headers=session, **body)
            assert response.status_code == 404
        assert (await alice.post(url, json=ping, headers=session)).status_code == 200
        assert (await alice.delete(url, headers=session)).status_code == 200
        assert (await alice.post(url, json=ping, headers=session)).status_code == 404


async def test_a_state_of_questions_is_of_one_call_by_one_key(gateway: GatewayInThread) -> None:
    asks = {"name": "versatile_chat", "arguments": {"message": "ask"}}
    async with http() as alice:
        first = (await modern(alice, gateway, "tools/call", **asks)).json()["result"]
        assert first["resultType"] == "input_required"
        answers = {
            "day": {"action": "accept", "content": {"answer": "Monday"}},
            "how": {"action": "cancel"},
        }
        state = first["requestState"]
        given = {"inputResponses": answers, "requestState": state}
        whole = (await modern(alice, gateway, "tools/call", **asks, **given)).json()
        assert whole["result"]["resultType"] == "complete"
        changed = state[:-2] + ("A" if state[-2] != "A" else "B") + state[-1]
        others: list[dict[str, Any]] = [
            {**asks, **given, "requestState": changed},
            {**asks, **given, "requestState": "x"},
            {**asks, **given, "arguments": {"message": "ask again"}},
            {**asks, **given, "name": "going-on_chat"},
            {**asks, **given, "inputResponses": {"day": answers["day"]}},
            {**asks, **given, "inputResponses": {**answers, "other": {"action": "cancel"}}},
            {**asks, **given, "inputResponses": {**answers, "day": {"action": "accept"}}},
        ]
        for each in others:
            response = await modern(alice, gateway, "tools/call", **each)
            assert response.json()["error"]["code"] == -32602, each


async def test_a_limit_of_an_agent_is_a_tools_error(gateway: GatewayInThread) -> None:
    async with connected(gateway, "auto") as client:
        first = await client.call_tool("few_chat", {"message": "hello"})
        assert not first.is_error
        assert error_of(await client.call_tool("few_chat", {"message": "hello"})) == "rate_limited"


async def test_a_repetition_with_the_same_idempotency_key_is_answered_alike(
    gateway: GatewayInThread,
) -> None:
    call = {"name": "going-on_chat", "arguments": {"message": "hello"}}
    async with http() as client:
        client.headers["idempotency-key"] = "once"
        one, two = [await modern(client, gateway, "tools/call", **call) for _ in range(2)]
        assert one.json()["result"]["content"] == two.json()["result"]["content"]
        assert one.json()["result"]["content"][0]["text"] == "Hello, Wörld!"
        other = {**call, "arguments": {"message": "echo"}}
        refused = (await modern(client, gateway, "tools/call", **other)).json()["result"]
    assert refused["_meta"]["agent-gateway/error"]["type"] == "idempotency_key_reused"


async def test_a_call_with_an_idempotency_key_goes_on_with_the_answers_to_its_questions(
    gateway: GatewayInThread,
) -> None:
    asked: list[str] = []

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        del context
        asked.append(params.message)
        return types.ElicitResult(action="decline")

    headers = {"authorization": f"Bearer {ALICE}", "idempotency-key": "asked"}
    async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as own:
        transport = streamable_http_client(f"{gateway.url}/mcp", http_client=own)
        async with Client(transport, mode="legacy", elicitation_callback=answer) as client:
            result = await client.call_tool("versatile_chat", {"message": "ask"})
    assert (result.is_error, len(asked)) == (False, 2)
    assert '"cancelled"' in texts(result)

    asks = {"name": "versatile_chat", "arguments": {"message": "ask"}}
    answers = {each: {"action": "cancel"} for each in ("day", "how")}
    async with http() as alice:
        alice.headers["idempotency-key"] = "asked in requests of their own"
        first = (await modern(alice, gateway, "tools/call", **asks)).json()["result"]
        given = {"inputResponses": answers, "requestState": first["requestState"]}
        one, two = [
            (await modern(alice, gateway, "tools/call", **asks, **given)).json()["result"]
            for _ in range(2)
        ]
    assert '"cancelled"' in one["content"][0]["text"]
    assert one["content"] == two["content"]


async def test_a_call_is_logged_as_the_agents_and_its_error_is(gateway: GatewayInThread) -> None:
    async with http() as client:
        client.headers["x-request-id"] = "logged-1"
        call = {"name": "fragile_invoke", "arguments": {"task": "fail"}}
        assert (await modern(client, gateway, "tools/call", **call)).status_code == 200
    line = await trio.to_thread.run_sync(gateway.logged, "request ended.*request=logged-1")
    for part in (
        "route=/mcp", "dialect=mcp", "handler=invoke", "agent=fragile", "key=alice",
        "error=agent_error",
    ):  # fmt: skip
        assert f" {part}" in line


async def test_the_path_is_in_the_description_of_the_api(gateway: GatewayInThread) -> None:
    async with http() as client:
        described = (await client.get(f"{gateway.url}/openapi.json")).json()
    openapi_spec_validator.validate(described)
    assert {"delete", "get", "post"} == set(described["paths"]["/mcp"])


WITHOUT = """
import sys
sys.modules["mcp_types"] = None
from gateway.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("more", [(), ("--check",)])
def test_without_the_extra_the_error_names_it(tmp_path: Path, more: tuple[str, ...]) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[server]\ndialects = ['mcp']\n[agents.x]\ncommand = 'cat'\n")
    command = [sys.executable, "-c", WITHOUT, *more, "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "server.dialects has 'mcp'" in done.stderr
    assert "agent-gateway[mcp]" in done.stderr
