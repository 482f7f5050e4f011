"""Keys over HTTP, by real clients: who may call what, and whose things are whose."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.config.keys import KEY_VARIABLE, hash_key
from tests.conftest import need
from tests.faults.scene import send_signal
from tests.harness import GatewayInThread, RunningGateway, gateway_in_thread, running_gateway
from tests.http.conftest import AGENTS
from tests.http.raw import connected
from tests.javascript import MODULES, need_package, need_runtime

ALICE, ALICE_NEW, BOB, EXPIRED, WRONG = (
    f"agw_{hashlib.sha256(name).hexdigest()[:43]}"
    for name in (b"alice", b"new", b"bob", b"expired", b"wrong")
)
"""Always the same: they stand in the names of tests."""
COMMAND = json.dumps([sys.executable, str(AGENTS / "remembers.py")])
JSON = {"content-type": "application/json"}
NOBODY = "a key is needed: expected Authorization: Bearer KEY, or X-API-Key: KEY"


def hash_of(key: str) -> str:
    return hash_key(key.encode())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


KEYS = f"""
[keys.alice]
hash = ["{hash_of(ALICE)}", "{hash_of(ALICE_NEW)}"]
[keys.bob]
hash = "{hash_of(BOB)}"
agents = ["mem", "alone", "by-user", "by-key"]
[keys.expired]
hash = "{hash_of(EXPIRED)}"
expires = 2026-01-01
"""


def toml(keys: str = KEYS, *, agents: str = "", more: str = "") -> str:
    """Without a sandbox: whatever does not reach a worker here does not with one."""
    return f"""
{more}
[server]
sandbox = "off"
metrics = true
[defaults]
command = {COMMAND}
workers = {{ min = 0 }}
[agents.mem]
workers = {{ max = 1 }}
{agents}
{keys}
"""


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
ONLY_MEM = KEYS.replace(', "alone", "by-user", "by-key"', "")


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


# Keys reach nobody


async def test_a_key_is_in_no_worker_no_answer_and_no_log(tmp_path: Path) -> None:
    environ = {KEY_VARIABLE: WRONG}
    async with running_gateway(toml=toml(ONLY_MEM), folder=tmp_path, env=environ) as gateway:
        said = ""
        for key, name in ((ALICE, "alice"), (BOB, "bob"), (WRONG, "default")):
            answer = await gateway.client.post(
                "/agent/mem/invoke",
                json={"input": name, "context": {"conversation_id": "c", "custom": {"x": 1}}},
                headers={"x-api-key": key},
            )
            assert answer.json()["output"]["conversation"] == f"{name}/c"
            await gateway.logged(f"request ended .* agent=mem key={name} ")
            said += answer.text
        for key in (ALICE[:-1], ALICE + "x"):
            said += (await gateway.client.get("/agents", headers=bearer(key))).text
        metrics = (await gateway.client.get("/metrics", headers=bearer(ALICE))).text
        for name in ("alice", "bob", "default"):
            assert f'key="{name}"' in metrics
        said += metrics
        status = await gateway.client.get("/agent/mem", headers=bearer(ALICE))
        said += status.text + str(status.headers)
        [worker] = status.json()["workers"]
        proc = Path(f"/proc/{worker['pid']}")
        said += (proc / "environ").read_text() + (proc / "cmdline").read_text()
    said += "\n".join(gateway.log)
    for key in (ALICE, BOB, WRONG):
        assert key not in said
        assert key[4:30] not in said
        assert hash_of(key).partition(":")[2] not in said


GARBLER = """
import json, sys
params = {"protocol": 1, "handlers": ["invoke"], "concurrency": 2}
print(json.dumps({"jsonrpc": "2.0", "method": "ready", "params": params}), flush=True)
for number, line in enumerate(sys.stdin):
    if number:
        print("the secret of alice, who asked first", flush=True)
"""


async def test_what_one_was_answered_is_in_no_other_callers_error(tmp_path: Path) -> None:
    (tmp_path / "garbler.py").write_text(GARBLER)
    command = json.dumps([sys.executable, str(tmp_path / "garbler.py")])
    text = toml(ONLY_MEM).replace(COMMAND, command)
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        answers = []

        async def ask(key: str) -> None:
            answers.append(
                await gateway.client.post(
                    "/agent/mem/invoke", json={"input": 1}, headers=bearer(key)
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ALICE)
            nursery.start_soon(ask, BOB)
        for answer in answers:
            assert answer.status_code == 502
            assert answer.json()["error"]["violation"] == "not_json"
            assert "secret" not in answer.text
        status = await gateway.client.get("/agent/mem", headers=bearer(BOB))
        assert "secret" not in status.text
        assert "the agent's answer is invalid" in status.json()["last_failure"]["message"]
        await gateway.logged("a line is not JSON .*the secret of alice")


# Changes


async def reload(gateway: RunningGateway, folder: Path, text: str, outcome: str) -> str:
    (folder / "gateway.toml").write_text(text)
    gateway.log.clear()
    send_signal(gateway, signal.SIGHUP)
    return await gateway.logged(outcome)


async def test_a_revoked_key_ends_with_its_last_request(tmp_path: Path) -> None:
    async with running_gateway(toml=toml(ONLY_MEM), folder=tmp_path) as gateway:
        client, bodies = gateway.client, []
        asked = {"json": {"input": "x"}, "headers": {**bearer(ALICE), "prefer": "respond-async"}}
        where = (await client.post("/agent/mem/invoke", **asked)).headers["location"]  # type: ignore[arg-type]
        slowly = {"messages": [{"role": "user", "content": "slowly"}], "stream": True}
        async with client.stream(
            "POST", "/agent/mem/chat", json=slowly, headers=bearer(ALICE)
        ) as stream:
            lines = stream.aiter_lines()
            bodies.append(await anext(lines))
            only_bob = toml(
                ONLY_MEM[ONLY_MEM.index("[keys.bob]") : ONLY_MEM.index("[keys.expired]")]
            )
            await reload(gateway, tmp_path, only_bob, "keys of callers are now: bob")
            for path in ("/agents", where):
                refused = await client.get(path, headers=bearer(ALICE))
                assert refused.status_code == 401
            # What was admitted was admitted rightly, and goes on.
            bodies += [line async for line in lines if line]
        assert bodies[-1] == "data: [DONE]"
        assert '"slowly"' in bodies[-2]
        assert (await client.get("/agents", headers=bearer(BOB))).status_code == 200
        # Another key with the name reads what belongs to the name.
        back = f'[keys.alice]\nhash = "{hash_of(WRONG)}"\n'
        await reload(gateway, tmp_path, toml(back), "keys of callers are now: alice")
        assert (await client.get(where, headers=bearer(WRONG))).status_code == 200
        assert (await client.get("/agents", headers=bearer(BOB))).status_code == 401
        # And a wrong configuration changes nothing.
        wrong = toml(f'[keys.alice]\nhash = "{ALICE}"\n')
        line = await reload(gateway, tmp_path, wrong, "refused as a whole")
        assert "the key itself" in line
        assert ALICE not in line
        assert (await client.get("/agents", headers=bearer(WRONG))).status_code == 200


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"

    def put(text: str) -> None:
        made = tmp_path / "keys.new"
        made.write_text(text)
        made.chmod(0o640)
        made.rename(file)

    put(f'[keys.alice]\nhash = "{hash_of(ALICE)}"\n')
    text = toml("", more=f'keys_file = "{file}"')
    async with running_gateway(toml=text, folder=tmp_path) as gateway:

        async def status(key: str) -> int:
            return (await gateway.client.get("/agents", headers=bearer(key))).status_code

        assert (await status(ALICE), await status(BOB)) == (200, 401)
        put(f'[keys.bob]\nhash = "{hash_of(BOB)}"\n')
        await gateway.logged("keys of callers are now: bob")
        assert (await status(ALICE), await status(BOB)) == (401, 200)
        put("[keys.bob]\nhash = 'short'\n")
        await gateway.logged("keys: the last ones stay in use: .*keys.bob")
        assert await status(BOB) == 200
        put("")
        await gateway.logged("keys of callers are now: none")
        assert (await status(ALICE), await status(BOB)) == (401, 401)
        assert (await gateway.client.get("/live")).status_code == 200


# Where other machines can connect


ECHO = ["--agent", "echo=agent-worker worker.examples.echo:agent", "--sandbox", "off"]


@pytest.mark.parametrize(("host", "check"), [("0.0.0.0", []), ("::", ["--check"])])
def test_other_machines_need_keys_unless_it_is_said_that_they_do_not(
    host: str, check: list[str]
) -> None:
    command = [sys.executable, "-m", "gateway", *ECHO, "--host", host, "--port", "0", *check]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"gateway: server.host is '{host}', where other machines can connect")
    for words in ("no keys", "gateway key new", "[keys.NAME]", "[server] allow_anonymous = true"):
        assert words in last


@pytest.mark.parametrize(
    ("server", "keys", "status"),
    [("allow_anonymous = true", "", 200), ("", f'[keys.a]\nhash = "{hash_of(ALICE)}"', 401)],
)
async def test_other_machines_can_connect_where_it_is_said_or_there_are_keys(
    tmp_path: Path, server: str, keys: str, status: int
) -> None:
    text = f"""
    [server]
    host = "0.0.0.0"
    sandbox = "off"
    {server}
    [agents.echo]
    command = "agent-worker worker.examples.echo:agent"
    {keys}
    """
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        answer = await gateway.client.get(f"{url}/agents")
        assert answer.status_code == status
        if status == 401:
            # Without the key everybody could call, from everywhere.
            line = await reload(gateway, tmp_path, text.replace(keys, ""), "refused as a whole")
            assert "allow_anonymous" in line
            assert (await gateway.client.get(f"{url}/agents")).status_code == 401


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


async def test_a_new_key_is_printed_once_with_the_table_that_knows_it(tmp_path: Path) -> None:
    made = run("key", "new", "carol")
    key, empty, *table = made.stdout.splitlines()
    assert (made.exit_code, made.stderr, empty) == (0, "", "")
    text = toml("\n".join(table))
    assert key not in text
    async with running_gateway(toml=text, folder=tmp_path) as gateway:
        answer = await gateway.client.get("/health", headers=bearer(key))
        assert answer.status_code == 200
    assert run("key", "new", "carol").stdout.splitlines()[0] != key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["key", "new", "not/a/name"], "letters, digits"),
        (["key", "old"], "No such command 'old'"),
        (["kee"], "No such command 'kee'"),
        ([*ECHO, "key", "new"], "options of serving"),
    ],
)
def test_a_wrong_subcommand_is_named(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(("typed", "completed"), [("k", "key"), ("--sand", "--sandbox")])
def test_a_shell_completes_subcommands_and_options(typed: str, completed: str) -> None:
    environ = {"COMP_WORDS": f"gateway {typed}", "COMP_CWORD": "1"}
    environ["_GATEWAY_COMPLETE"] = "bash_complete"
    done = CliRunner().invoke(main, env=environ, prog_name="gateway")
    assert f"plain,{completed}" in done.stdout.splitlines()


def test_serving_imports_no_subcommand() -> None:
    program = (
        "import sys, gateway.cli, gateway.commands as all\n"
        "print([name for name in sys.modules if name.startswith('gateway.commands.')])\n"
        "print(all.NAMES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found, names = done.stdout.splitlines()
    assert found == "[]"
    assert "'key'" in names
