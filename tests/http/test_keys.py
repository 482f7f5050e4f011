"""Keys over HTTP, by real clients: who may call what, and whose things are whose."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import need
from tests.harness import (
    GatewayInThread,
    gateway_in_thread,
)
from tests.http.keys import (
    ALICE,
    ALICE_NEW,
    BOB,
    EXPIRED,
    WRONG,
    bearer,
    toml,
)
from tests.http.raw import connected
from tests.javascript import MODULES, need_package, need_runtime

JSON = {"content-type": "application/json"}
NOBODY = "a key is needed: expected Authorization: Bearer KEY, or X-API-Key: KEY"
MORE_AGENTS = """
[agents.alone]
session = "exclusive"
state = true
[agents.by-user]
session = "exclusive"
session_by = "user"
state = true
workers = { max = 8 }
[agents.by-key]
session = "exclusive"
session_by = "key"
state = true
[agents.alices]
"""


@pytest.fixture(scope="module", name="gateway")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(toml(agents=MORE_AGENTS), tmp_path_factory.mktemp("keys")) as gateway:
        yield gateway


def tell(
    gateway: GatewayInThread, agent: str, key: str, value: object, **context: str
) -> dict[str, Any]:
    answer = httpx.post(
        f"{gateway.url}/agent/{agent}/invoke",
        json={"input": value, "context": context},
        headers=bearer(key),
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


# Who may call what


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/agents"),
        ("GET", "/agent/mem"),
        ("GET", "/agent/no-such-agent"),
        ("GET", "/agent/mem/health"),
        ("GET", "/health"),
        ("POST", "/agent/mem/invoke"),
        ("GET", "/agent/mem/invoke"),
        ("POST", "/agents/no-such-agent/chat"),
        ("GET", "/runs/run_1"),
        ("POST", "/runs/run_1/cancel"),
        ("GET", "/nothing"),
        ("GET", "/live/"),
        ("GET", "//live"),
    ],
)
@pytest.mark.parametrize("query", ["", f"?key={ALICE}&api_key={ALICE}&access_token={ALICE}"])
def test_without_a_key_nothing_is_told(
    gateway: GatewayInThread, method: str, path: str, query: str
) -> None:
    answer = httpx.request(method, f"{gateway.url}{path}{query}")
    if path == "//live":
        assert answer.status_code == 404, "no path at all"
        return
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("unauthorized", NOBODY)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/responses")],
)
def test_without_a_key_openais_api_says_so_in_its_own_form(
    gateway: GatewayInThread, method: str, path: str
) -> None:
    answer = httpx.request(method, gateway.url + path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")


@pytest.mark.parametrize("headers", [{}, bearer(WRONG), bearer("é" * 40)])
def test_probes_need_no_key_and_are_shown_no_agent(
    gateway: GatewayInThread, headers: dict[str, str]
) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    assert httpx.get(f"{gateway.url}/live", headers=raw).json() == {"status": "live"}
    ready = httpx.get(f"{gateway.url}/ready", headers=raw)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "agents": {}})


@pytest.mark.parametrize(
    ("key", "agents"),
    [
        (ALICE, {"mem", "alone", "by-user", "by-key", "alices"}),
        (BOB, {"mem", "alone", "by-user", "by-key"}),
    ],
)
def test_a_key_is_shown_what_it_may_call(
    gateway: GatewayInThread, key: str, agents: set[str]
) -> None:
    with httpx.Client(base_url=gateway.url, headers=bearer(key)) as client:
        assert {each["name"] for each in client.get("/agents").json()["agents"]} == agents
        assert {each["id"] for each in client.get("/v1/models").json()["data"]} == agents
        assert client.get("/ready").json()["agents"].keys() == agents
        health = client.get("/health").json()
        assert set(health["agents"]) == health["states"].keys() == agents


def test_an_agent_that_is_not_ones_own_looks_like_one_that_is_not_there(
    gateway: GatewayInThread,
) -> None:
    def asked(key: str, agent: str) -> list[tuple[int, str]]:
        with httpx.Client(base_url=gateway.url, headers=bearer(key)) as client:
            chat = {"model": agent, "messages": [{"role": "user", "content": "x"}]}
            answers = [
                client.get(f"/agent/{agent}"),
                client.get(f"/agents/{agent}/health"),
                client.post(f"/agent/{agent}/invoke", json={"input": 1}),
                client.post(f"/agent/{agent}/invoke", content=b"{"),
                client.get(f"/v1/models/{agent}"),
                client.post("/v1/chat/completions", json=chat),
                client.post("/v1/responses", json={"model": agent, "input": "x"}),
            ]
        errors = [answer.json()["error"]["message"] for answer in answers]
        return [
            (answer.status_code, error.replace(agent, "NAME"))
            for answer, error in zip(answers, errors, strict=True)
        ]

    refused = asked(BOB, "alices")
    assert refused == asked(BOB, "nobodys")
    assert {*refused} == {(403, "the key 'bob' may not be used for the agent 'NAME'")}
    assert {status for status, _ in asked(ALICE, "nobodys")} <= {404}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Authorization", f"Bearer {ALICE}")], 200),
        ([("authorization", f"bEARER   {ALICE_NEW}")], 200),
        ([("X-API-KEY", ALICE)], 200),
        ([("X-API-Key", ALICE), ("Authorization", f"Bearer {ALICE}")], 200),
        ([("X-API-Key", ALICE), ("Authorization", f"Bearer {BOB}")], 401),
        # Two keys of one name are two keys.
        ([("X-API-Key", ALICE), ("Authorization", f"Bearer {ALICE_NEW}")], 401),
        ([("Authorization", f"Bearer {ALICE}"), ("Authorization", f"Bearer {ALICE}")], 401),
        ([("X-API-Key", WRONG), ("X-API-Key", ALICE)], 401),
        ([("X-API-Key", EXPIRED)], 401),
        ([("Authorization", f"Bearer {ALICE}, Bearer {ALICE}")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Bearer ")], 401),
        ([("X-API-Key", "")], 401),
        ([("Authorization", f"Bearer {ALICE}\u00e9")], 401),
        ([("Authorization", f"Bearer \u00ff\u00fe{ALICE}")], 401),
        ([("Authorization", "Bearer " + "x" * 10_000)], 401),
        ([("Cookie", f"key={ALICE}"), ("Proxy-Authorization", f"Bearer {ALICE}")], 401),
    ],
)
async def test_keys_as_raw_bytes(
    gateway: GatewayInThread, fields: list[tuple[str, str]], status: int
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    async with connected(gateway.port) as connection:
        await connection.send(
            f"GET /agents HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode("latin-1")
        )
        answer = await connection.answer()
    assert answer.status == status


async def test_a_megabyte_of_key_is_a_head_that_is_too_large(gateway: GatewayInThread) -> None:
    async with connected(gateway.port) as connection:
        head = b"GET /agents HTTP/1.1\r\nHost: localhost\r\nX-API-Key: "
        with_key = head + b"x" * 1_000_000 + b"\r\n\r\n"
        await connection.send(with_key)
        assert (await connection.answer()).status == 431


def test_a_refused_body_is_not_read(gateway: GatewayInThread) -> None:
    answer = httpx.post(
        f"{gateway.url}/agent/mem/invoke",
        content=iter([b'{"input": ', b"1}"]),
        headers={**JSON, **bearer(WRONG)},
    )
    assert (answer.status_code, answer.headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["-H", f"Authorization: Bearer {ALICE}"], "200"),
        (["--oauth2-bearer", ALICE], "200"),
        (["-H", f"X-API-Key: {BOB}"], "403"),
        (["-H", f"X-API-Key: {WRONG}"], "401"),
        (["--user", f"alice:{ALICE}"], "401"),
        ([], "401"),
    ],
)
def test_curl(gateway: GatewayInThread, options: list[str], status: str) -> None:
    need(shutil.which("curl"), "curl is not installed: apt-get install curl")
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options]
    url = f"{gateway.url}/agent/alices/invoke"
    done = subprocess.run(
        [*command, "--json", '{"input": 1}', url], capture_output=True, check=True, text=True
    )
    assert done.stdout == status


def test_the_openai_client(gateway: GatewayInThread) -> None:
    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)

    messages: Any = [{"role": "user", "content": "hi"}]
    with client(ALICE) as alice, client(BOB) as bob, client(WRONG) as wrong:
        chat = alice.chat.completions.create(model="alices", messages=messages, user="u")
        assert chat.choices[0].message.content == "None alice/u hi"
        assert "alices" not in {model.id for model in bob.models.list()}
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            bob.chat.completions.create(model="alices", messages=messages)
        assert forbidden.value.code == "forbidden"
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.chat.completions.create(model="alices", messages=messages)
        assert refused.value.code == "invalid_api_key"


NODE_CLIENT = """
import OpenAI from "openai";
const [baseURL, ...keys] = process.argv.slice(2);
const messages = [{ role: "user", content: "hi" }];
for (const apiKey of keys) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  try {
    const done = await client.chat.completions.create({ model: "alices", messages, user: "u" });
    console.log(done.choices[0].message.content);
  } catch (error) {
    console.log(error.constructor.name, error.status, error.code);
  }
}
"""


def test_the_openai_client_for_node(gateway: GatewayInThread, tmp_path: Path) -> None:
    node = need_runtime("node22")
    need_package("openai")
    script = tmp_path / "client.mjs"
    script.write_text(NODE_CLIENT)
    (tmp_path / "node_modules").symlink_to(MODULES)
    command = [node, str(script), f"{gateway.url}/v1", ALICE, BOB, WRONG]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "None alice/u hi",
        "PermissionDeniedError 403 forbidden",
        "AuthenticationError 401 invalid_api_key",
    ]


# What a caller names is its own


def test_one_conversation_id_of_two_keys_is_two_conversations(gateway: GatewayInThread) -> None:
    assert tell(gateway, "mem", ALICE, "a1", conversation_id="c", user_id="u")["before"] == []
    bobs = tell(gateway, "mem", BOB, "b1", conversation_id="c", user_id="u")
    assert (bobs["before"], bobs["conversation"], bobs["user"]) == ([], "bob/c", "bob/u")
    again = tell(gateway, "mem", ALICE_NEW, "a2", conversation_id="c")
    assert (again["before"], again["conversation"]) == (["a1"], "alice/c")
    assert again["pid"] == bobs["pid"], "one process, and still they do not meet"
    # An id that looks like another's is not.
    assert tell(gateway, "mem", BOB, "b2", conversation_id="alice/c")["before"] == []


def test_an_exclusive_conversation_has_a_process_and_a_folder_of_its_own_key(
    gateway: GatewayInThread,
) -> None:
    first = tell(gateway, "alone", ALICE, "a1", conversation_id="c")
    other = tell(gateway, "alone", BOB, "b1", conversation_id="c")
    again = tell(gateway, "alone", ALICE_NEW, "a2", conversation_id="c")
    assert (first["lying"], other["lying"], again["lying"]) == ([], [], ["a1"])
    assert first["pid"] == again["pid"] != other["pid"]
    assert first["home"] == again["home"] != other["home"]


def test_a_user_may_be_what_shares_a_process_and_a_folder(gateway: GatewayInThread) -> None:
    first = tell(gateway, "by-user", ALICE, "1", user_id="u", conversation_id="c")
    same = tell(gateway, "by-user", ALICE, "2", user_id="u", conversation_id="d")
    assert (same["pid"], same["lying"], same["before"]) == (first["pid"], ["1"], [])
    others = [
        tell(gateway, "by-user", ALICE, "3", user_id="v", conversation_id="c"),
        tell(gateway, "by-user", BOB, "4", user_id="u", conversation_id="c"),
        tell(gateway, "by-user", ALICE, "5", conversation_id="c"),
        tell(gateway, "by-user", ALICE, "6"),
    ]
    assert len({first["pid"], *(other["pid"] for other in others)}) == 5
    assert all("1" not in other["lying"] for other in others)


def test_a_key_may_be_what_shares_a_process_and_a_folder(gateway: GatewayInThread) -> None:
    first = tell(gateway, "by-key", ALICE, "1", user_id="u", conversation_id="c")
    same = tell(gateway, "by-key", ALICE_NEW, "2", user_id="v", conversation_id="d")
    assert (same["pid"], same["lying"], same["before"]) == (first["pid"], ["1"], [])
    other = tell(gateway, "by-key", BOB, "3", user_id="u", conversation_id="c")
    assert other["pid"] != first["pid"]
    assert other["lying"] == []


def test_a_run_is_read_with_its_keys_name_and_no_other(gateway: GatewayInThread) -> None:
    url = f"{gateway.url}/agent/mem/invoke"
    asked = {"json": {"input": "run"}, "headers": {**bearer(ALICE), "prefer": "respond-async"}}
    where = gateway.url + httpx.post(url, **asked).headers["location"]  # type: ignore[arg-type]
    for key in (ALICE, ALICE_NEW):
        assert httpx.get(where, headers=bearer(key)).status_code == 200
        assert httpx.get(where, headers={"x-api-key": key}).status_code == 200
    assert httpx.get(where, headers=bearer(BOB)).status_code == 404
    assert httpx.post(f"{where}/cancel", headers=bearer(BOB)).status_code == 404
    assert httpx.get(where).status_code == 401


def test_an_idempotency_key_is_of_its_keys_name(gateway: GatewayInThread) -> None:
    def run_of(key: str, value: str) -> str:
        answer = httpx.post(
            f"{gateway.url}/agent/mem/invoke",
            json={"input": value},
            headers={**bearer(key), "idempotency-key": "k-1"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["x-run-id"]

    first = run_of(ALICE, "once")
    assert run_of(ALICE_NEW, "once") == first
    assert run_of(BOB, "another request") != first


def test_a_response_is_gone_on_from_with_its_keys_name_only(gateway: GatewayInThread) -> None:
    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)

    with client(ALICE) as alice, client(ALICE_NEW) as renewed, client(BOB) as bob:
        first = alice.responses.create(model="mem", input="hi", conversation="r")
        assert first.output_text == "alice/r None hi"
        assert first.conversation is not None
        assert first.conversation.id == "r", "the client's own name for it"
        item = first.output[0].id
        with pytest.raises(openai.BadRequestError) as gone:
            bob.responses.create(model="mem", input="hi", previous_response_id=first.id)
        assert gone.value.code == "previous_response_not_found"
        reference: Any = [{"type": "item_reference", "id": item}, {"role": "user", "content": "x"}]
        with pytest.raises(openai.BadRequestError) as unknown:
            bob.responses.create(model="mem", input=reference)
        assert unknown.value.code == "item_not_found"
        assert renewed.responses.create(model="mem", input=reference).output_text
        second = renewed.responses.create(model="mem", input="again", previous_response_id=first.id)
        assert second.output_text == "alice/r None again"
        begun = alice.responses.create(model="mem", input="x", background=True)
        with pytest.raises(openai.NotFoundError):
            bob.responses.retrieve(begun.id)
        assert renewed.responses.retrieve(begun.id).id == begun.id
