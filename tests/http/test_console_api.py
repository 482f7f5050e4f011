"""The console's API at real gateways: what is shown, to whom, and that it costs nobody anything."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import trio

from gateway.config.keys import hash_key
from tests.harness import GatewayInThread, gateway_in_thread, one_process, running_gateway
from tests.http.conftest import SCRIPTED
from tests.http.raw import Connection, connected

ADA, BOB = (f"agw_{hashlib.sha256(name).hexdigest()[:43]}" for name in (b"ada", b"bob"))
"""Always the same: they stand in the names of tests."""
AS_ADA, AS_BOB = ({"authorization": f"Bearer {key}"} for key in (ADA, BOB))
API = "/console/api"
JSON = {"content-type": "application/json"}
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"

AGENTS = f"""
[agents.scripted]
command = {json.dumps([*SCRIPTED, "invoke", "chat"])}
description = {json.dumps(HOSTILE)}
workers = {{ min = 1, max = 2 }}
[agents.other]
command = {json.dumps([*SCRIPTED, "invoke"])}
"""
OPEN = f"[server]\nsandbox = 'off'\n{AGENTS}"
KEYS = f"""
[server]
sandbox = "off"
cors = ["http://app.example"]
[keys.ada]
hash = "{hash_key(ADA.encode())}"
[keys.bob]
hash = "{hash_key(BOB.encode())}"
agents = ["scripted"]
{AGENTS}
"""


WORKER = ("pid", "state", "started", "served", "in_flight", "capacity", "memory")


class Follower:
    """What a page would know that follows a stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._text = b""
        self.agents: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.series: dict[str, list[Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.running = 0
        self.lines: list[dict[str, Any]] = []
        self.hosts: dict[str, dict[str, Any]] = {}
        self.connected: bool | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []

    @property
    def by_host(self) -> dict[str, dict[str, Any]]:
        """The hosts of the fleet by their names."""
        return {each["name"]: each for each in self.hosts.values()}

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Take events until the condition holds; returns what it returned."""
        with trio.fail_after(30):
            while not (found := condition()):
                await self.step()
        return found

    async def step(self) -> str:
        """Take one event; returns its name. Raises EOFError at the end of the stream."""
        while b"\n\n" not in self._text:
            size = int(await self._connection.until(rb"\r\n"), 16)
            if not size:
                raise EOFError
            self._text += (await self._connection.take(size + 2))[:-2]
        event, _, self._text = self._text.partition(b"\n\n")
        if event.startswith(b":"):
            return await self.step()
        name, data = event.decode().split("\n")
        self._take(name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        return name.removeprefix("event: ")

    def _take(self, name: str, data: dict[str, Any]) -> None:
        self.events.append((name, data))
        if name == "agents":
            for change in data["agents"]:
                self.agents[change["name"]] = self.agents.get(change["name"], {}) | change
            for gone in data["removed"]:
                del self.agents[gone]
        elif name == "workers":
            for key, worker in data["workers"].items():
                if worker is None:
                    del self.workers[key]
                else:
                    self.workers[key] = dict(zip(WORKER, worker, strict=True))
        elif name == "series":
            for agent_name, points in data["series"].items():
                self.series.setdefault(agent_name, []).extend(points)
        elif name == "requests":
            self.running = data["running"]
            self.requests |= {each["id"]: each for each in data["requests"]}
            for gone in data["gone"]:
                self.requests.pop(gone, None)
        elif name == "hosts":
            self.connected = data["connected"]
            for gone in data["removed"]:
                del self.hosts[gone]
            for change in data["hosts"]:
                known = self.hosts.get(change["id"], {})
                agents = {**known.get("agents", {}), **change["agents"]}
                agents = {key: place for key, place in agents.items() if place is not None}
                self.hosts[change["id"]] = known | change | {"agents": agents}
        elif name == "log":
            self.lines += data["lines"]

    def request(self, request_id: str, *states: str) -> dict[str, Any] | None:
        """The request with this id, once it is in one of the states."""
        for each in self.requests.values():
            if each["request_id"] == request_id and each["state"] in states:
                return each
        return None

    def line(self, text: str) -> dict[str, Any] | None:
        return next((each for each in self.lines if text in each["message"]), None)


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Follower]:
    port = client.base_url.port
    assert port is not None
    async with connected(port, host=client.base_url.host) as connection:
        fields = tuple(f"{name}: {value}" for name, value in (headers or {}).items())
        await connection.request(f"{API}/live{query}", method="GET", headers=fields)
        head = await connection.until(rb"\r\n\r\n")
        assert b" 200 " in head, head
        assert b"content-type: text/event-stream" in head
        yield Follower(connection)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(OPEN, tmp_path_factory.mktemp("open")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    with gateway_in_thread(KEYS, tmp_path_factory.mktemp("keys")) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: GatewayInThread) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        yield client


@pytest.fixture
async def keyed(with_keys: GatewayInThread) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=with_keys.url, timeout=60) as client:
        yield client


async def invoke(
    client: httpx.AsyncClient,
    script: Any,
    name: str,
    *,
    agent: str = "scripted",
    headers: dict[str, str] | None = None,
    stream: bool = False,
) -> httpx.Response:
    """Invoke with a request id."""
    return await client.post(
        f"/agent/{agent}/invoke",
        json={"input": script, "stream": stream, "events": stream},
        headers={"x-request-id": name, **(headers or {})},
    )


# What is shown


@one_process("its console says so")
async def test_a_page_is_told_everything_at_first_and_then_what_changes(
    client: httpx.AsyncClient,
) -> None:
    hello = (await client.get(f"{API}/hello")).json()
    assert (hello["keys"], hello["key"], hello["payloads"]) == (False, None, False)
    assert hello["hosts"][0]["draining"] is False
    assert hello["fleet"] is False
    assert (await client.get(f"{API}/live?topics=hosts")).status_code == 400
    query = "?topics=agents,requests,workers&agent=scripted"
    async with following(client, query) as page:
        await page.until(lambda: {name for name, _ in page.events} >= {"requests", "workers"})
        assert [name for name, data in page.events if data.get("reset")] == [
            "agents",
            "series",
            "requests",
            "workers",
        ]
        assert list(page.agents) == ["scripted"]
        await page.until(lambda: page.agents["scripted"]["state"] == "ready")
        assert page.agents["scripted"]["max_workers"] == 2
        # Each topic tells what it has found at a moment of its own.
        await page.until(lambda: [each["state"] for each in page.workers.values()] == ["ready"])
        [worker] = page.workers.values()
        assert page.agents["scripted"]["cells"] == "r"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke, client, [["say", "a"], ["hold"]], "first-1")
            told = await page.until(lambda: page.request("first-1", "speaking"))
            assert told["agent"] == "scripted"
            assert told["pid"] == worker["pid"]
            assert told["words"] == 1
            assert told["queue"] is not None
            assert told["first"] >= told["queue"]
            await page.until(lambda: page.agents["scripted"]["in_flight"] == 1)
            assert page.agents["scripted"]["cells"] == "b"
            [key] = page.workers
            await page.until(lambda: page.workers[key]["state"] == "busy")
            assert page.workers[key]["in_flight"] == 1
            await invoke(client, [["answer", 1]], "first-2")
            nursery.cancel_scope.cancel()
        await page.until(lambda: page.request("first-1", "cancelled"))
        ended = await page.until(lambda: page.request("first-2", "completed"))
        assert (ended["status"], ended["dialect"], ended["error"]) == (200, "native", None)
        assert ended["total"] >= ended["first"] >= ended["queue"] >= 0
        await page.until(lambda: all(each["memory"] for each in page.workers.values()))
        steps = [data["agents"] for name, data in page.events if name == "agents"]
        told = [each for step in steps for each in step if each["name"] == "scripted"]
        assert len(told) > 1
        assert ["description" in each for each in told] == [True, *[False] * (len(told) - 1)]


async def test_points_of_rates_and_latencies_come_when_their_bucket_is_over(
    client: httpx.AsyncClient,
) -> None:
    async with following(client, "?topics=agents") as page:
        for number in range(3):
            await invoke(client, [["answer", 1]], f"rate-{number}", agent="other")
        await page.until(lambda: sum(point[1] for point in page.series.get("other", [])) >= 3)
        assert all(point[0] % 5 == 0 and point[3] <= point[4] for point in page.series["other"])


@one_process("the ends of workers are in the logs of hosts")
async def test_a_crash_is_told_with_what_became_of_its_worker(client: httpx.AsyncClient) -> None:
    async with following(client) as page:
        await page.until(lambda: page.agents)
        assert (await invoke(client, [["exit", 3]], "crash-1")).status_code == 501
        failed = await page.until(lambda: page.request("crash-1", "failed"))
        assert failed["error"]["type"] == "worker_crashed"
        assert failed["status"] == 501
        await page.until(lambda: page.line("worker ended"))
        await page.until(lambda: page.agents["scripted"]["state"] == "ready")


@one_process("what workers write is in the logs of hosts")
async def test_a_request_is_opened_with_its_events_and_what_its_worker_wrote(
    client: httpx.AsyncClient,
) -> None:
    script = [
        ["log", "looking into it"],
        ["event", {"type": "status", "text": HOSTILE}],
        ["burst", 3],
        ["end", {}],
    ]
    async with following(client, "?topics=requests,log") as page:
        await page.until(lambda: page.events)
        response = await invoke(client, script, "open-1", stream=True)
        assert response.status_code == 200
        ended = await page.until(lambda: page.request("open-1", "completed"))
        await page.until(lambda: page.line("looking into it"))
    opened = (await client.get(f"{API}/requests/{ended['id']}")).json()
    assert opened["request"] == ended
    kinds = [event["kind"] for event in opened["events"]]
    assert kinds[:2] == ["admitted", "given"]
    assert kinds[-1] == "completed"
    assert {"chunk", "status"} <= set(kinds)
    assert sum(each["count"] for each in opened["events"] if each["kind"] == "chunk") == 3
    assert [each["t"] for each in opened["events"]] == sorted(e["t"] for e in opened["events"])
    assert not any(event["text"] for event in opened["events"])
    assert opened["payloads"] is None
    assert "looking into it" in [line["message"] for line in opened["stderr"]]


async def test_a_request_that_runs_is_opened_and_cancelled(client: httpx.AsyncClient) -> None:
    responses: list[httpx.Response] = []

    async def ask() -> None:
        responses.append(await invoke(client, [["say", "a"], ["hold"]], "cancel-1"))

    async with following(client, "?topics=requests") as page, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        told = await page.until(lambda: page.request("cancel-1", "speaking"))
        opened = (await client.get(f"{API}/requests/{told['id']}")).json()
        assert opened["request"]["ended"] is None
        path = f"{API}/requests/{told['id']}/cancel"
        assert (await client.post(path)).status_code == 415
        assert (await client.post(path, json={})).status_code == 200
        await page.until(lambda: page.request("cancel-1", "cancelled"))
    assert responses[0].json()["error"]["type"] == "cancelled"
    again = await client.post(path, json={})
    assert again.json()["request"]["state"] == "cancelled"


@one_process("a run that outlives its front is no request of that")
async def test_a_run_without_a_client_is_one_request_and_can_be_cancelled(
    client: httpx.AsyncClient,
) -> None:
    async with following(client, "?topics=requests") as page:
        started = await invoke(client, [["hold"]], "run-1", headers={"prefer": "respond-async"})
        assert started.status_code == 202
        told = await page.until(lambda: page.request("run-1", "given"))
        await client.post(f"{API}/requests/{told['id']}/cancel", json={})
        ended = await page.until(lambda: page.request("run-1", "cancelled"))
        assert ended["run"] == started.headers["x-run-id"]
    state = (await client.get(started.headers["location"])).json()["state"]
    assert state == "cancelled"


async def test_a_request_that_was_refused_is_told_with_the_reason(
    client: httpx.AsyncClient,
) -> None:
    async with following(client, "?topics=requests") as page:
        refused = await client.post(
            "/agent/scripted/invoke", json={"in": 1}, headers={"x-request-id": "refused-1"}
        )
        assert refused.status_code == 400
        told = await page.until(lambda: page.request("refused-1", "refused"))
        assert told["error"]["type"] == "invalid_request"
        opened = (await client.get(f"{API}/requests/{told['id']}")).json()
        assert opened["events"] == []


@one_process("what workers write is in the logs of hosts")
async def test_the_log_is_filtered(client: httpx.AsyncClient) -> None:
    await invoke(client, [["log", "one of two"], ["answer", 1]], "log-1")
    await invoke(client, [["log", "two of two"], ["answer", 1]], "log-2", agent="other")
    async with following(client, "?topics=log") as page:
        await page.until(lambda: page.line("one of two") and page.line("two of two"))
    async with following(client, "?topics=log&agent=other") as page:
        await page.until(lambda: page.line("two of two"))
        assert {line["agent"] for line in page.lines} == {"other"}
    async with following(client, "?topics=log&request=log-1") as page:
        await page.until(lambda: page.line("one of two"))
        assert {line["request"] for line in page.lines} == {"log-1"}
        assert page.line("one of two")["stderr"]  # type: ignore[index]
    async with following(client, "?topics=log&level=warning") as page:
        await page.step()
        assert {line["level"] for line in page.lines} <= {"warning", "error"}


async def test_a_wrong_question_is_answered_with_what_was_expected(
    client: httpx.AsyncClient,
) -> None:
    wrong = (("topics=agents,x", "topics"), ("level=loud", "level"), ("topics=workers", "agent="))
    for query, word in wrong:
        response = await client.get(f"{API}/live?{query}")
        assert response.status_code == 400
        assert word in response.json()["error"]["message"]
    assert (await client.get(f"{API}/requests/1-1")).status_code == 404
    assert (await client.get(f"{API}/agents/nobody")).status_code == 404
    assert (await client.head(f"{API}/live")).status_code == 405


@one_process("clocks and sandboxes are those of hosts")
async def test_an_agent_is_told_with_its_settings_and_what_holds_it(
    client: httpx.AsyncClient,
) -> None:
    told = (await client.get(f"{API}/agents/scripted")).json()
    assert told["settings"]["clocks"]["first"] == 300
    assert told["settings"]["workers"] == {"min": 1, "max": 2, "spare": 0}
    assert "scripted.py" in told["settings"]["command"]
    assert told["in_words"]["can reach"]
    assert told["description"] == HOSTILE  # as `GET /agent/scripted`: data
    async with following(client, "?topics=agents") as page:
        await page.until(lambda: page.agents)
        assert page.agents["scripted"]["description"].startswith("<script>")
        assert page.agents["scripted"]["description"].isprintable()


async def test_payloads_are_shown_where_that_is_switched_on(tmp_path: Path) -> None:
    toml = OPEN.replace("[server]", "[server]\nlog_payloads = true")
    async with (
        running_gateway(toml=toml, folder=tmp_path) as gateway,
        following(gateway.client, "?topics=requests") as page,
    ):
        await page.step()
        await invoke(gateway.client, [["say", "a secret"], ["end", {}]], "p-1", stream=True)
        told = await page.until(lambda: page.request("p-1", "completed"))
        opened = (await gateway.client.get(f"{API}/requests/{told['id']}")).json()
        assert "a secret" in opened["payloads"]["request"]
        assert "a secret" in opened["payloads"]["response"]
        assert "a secret" in [event["text"] for event in opened["events"]]


# Under whose rights


@one_process("what workers write is in the logs of hosts")
async def test_a_key_sees_its_own_requests_and_lines_alone(keyed: httpx.AsyncClient) -> None:
    async with (
        following(keyed, headers=AS_ADA) as ada,
        following(keyed, headers=AS_BOB) as bob,
    ):
        await ada.until(lambda: ada.agents)
        await bob.until(lambda: bob.agents)
        assert set(ada.agents) == {"scripted", "other"}
        assert set(bob.agents) == {"scripted"}
        # The same id, chosen by both.
        for headers, words in ((AS_ADA, "what ada said"), (AS_BOB, "what bob said")):
            script = [["log", words], ["answer", words]]
            assert (await invoke(keyed, script, "same", headers=headers)).status_code == 200
        hers = await ada.until(lambda: ada.request("same", "completed"))
        his = await bob.until(lambda: bob.request("same", "completed"))
        await ada.until(lambda: ada.line("what ada said"))
        await bob.until(lambda: bob.line("what bob said"))
        assert (hers["key"], his["key"]) == ("ada", "bob")
        assert {each["key"] for each in bob.requests.values()} == {"bob"}
        assert not ada.line("what bob said")
        assert not bob.line("what ada said")
        assert not any("ada" in json.dumps(line) for line in bob.lines)
        for path in (f"{API}/requests/{hers['id']}", f"{API}/agents/other"):
            assert (await keyed.get(path, headers=AS_BOB)).status_code in {403, 404}
        opened = (await keyed.get(f"{API}/requests/{his['id']}", headers=AS_BOB)).json()
        assert [line["message"] for line in opened["stderr"]] == ["what bob said"]


async def test_a_key_cannot_cancel_what_another_runs(keyed: httpx.AsyncClient) -> None:
    async with (
        following(keyed, "?topics=requests", AS_ADA) as ada,
        following(keyed, "?topics=requests", AS_BOB) as bob,
        trio.open_nursery() as nursery,
    ):
        await bob.step()

        async def ask() -> None:
            await invoke(keyed, [["say", "a"], ["hold"]], "hers", headers=AS_ADA)

        nursery.start_soon(ask)
        told = await ada.until(lambda: ada.request("hers", "speaking"))
        path = f"{API}/requests/{told['id']}/cancel"
        assert (await keyed.post(path, json={}, headers=AS_BOB)).status_code == 404
        assert (await keyed.get(path.removesuffix("/cancel"), headers=AS_BOB)).status_code == 404
        await invoke(keyed, [["answer", 1]], "his", headers=AS_BOB)
        await bob.until(lambda: bob.request("his", "completed"))
        assert not bob.request("hers", "speaking", "cancelled")
        assert bob.running == 0
        assert (await keyed.post(path, json={}, headers=AS_ADA)).status_code == 200
        await ada.until(lambda: ada.request("hers", "cancelled"))


async def test_the_page_needs_no_key_and_everything_that_it_shows_does(
    keyed: httpx.AsyncClient,
) -> None:
    for path in ("hello", "live", "agents/scripted", "requests/1-1"):
        assert (await keyed.get(f"{API}/{path}")).status_code == 401
    assert (await keyed.post(f"{API}/requests/1-1/cancel", json={})).status_code == 401
    hello = (await keyed.get(f"{API}/hello", headers=AS_ADA)).json()
    assert (hello["keys"], hello["key"]) == (True, "ada")
    for query in ("agent=other", "topics=workers&agent=other"):
        assert (await keyed.get(f"{API}/live?{query}", headers=AS_BOB)).status_code == 403
    details = (await keyed.get(f"{API}/agents/scripted", headers=AS_BOB)).json()
    assert details["settings"]["command"] is None


async def test_one_key_cannot_take_all_streams(keyed: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as opened:
        for _ in range(8):
            page = await opened.enter_async_context(following(keyed, headers=AS_BOB))
            await page.step()
        refused = await keyed.get(f"{API}/live", headers=AS_BOB)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        async with following(keyed, headers=AS_ADA) as ada:
            await ada.until(lambda: ada.agents)


# Pages of other origins


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://app.example"},  # of `cors`: its pages may call agents
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("fields", FOREIGN)
async def test_a_page_of_another_origin_gets_nothing(
    keyed: httpx.AsyncClient, fields: dict[str, str]
) -> None:
    headers = {**AS_ADA, **fields}
    assert (await keyed.get(f"{API}/hello", headers=headers)).status_code == 403
    assert (await keyed.get(f"{API}/live", headers=headers)).status_code == 403
    cancel = await keyed.post(f"{API}/requests/1-1/cancel", json={}, headers=headers)
    assert cancel.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_what_a_form_can_send_cancels_nothing(
    client: httpx.AsyncClient, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = await client.post(f"{API}/requests/1-1/cancel", content=b"{}", headers=headers)
    assert response.status_code == 415


async def test_the_pages_own_origin_is_none_other(client: httpx.AsyncClient) -> None:
    origin = str(client.base_url).rstrip("/")
    for fields in ({"origin": origin}, {"sec-fetch-site": "same-origin", "origin": "https://x"}):
        assert (await client.get(f"{API}/hello", headers=fields)).status_code == 200


async def test_a_page_that_has_its_name_resolve_to_this_gateway_gets_nothing(
    client: httpx.AsyncClient,
) -> None:
    fields = {"host": "evil.example", "origin": "http://evil.example"}
    assert (await client.get(f"{API}/hello", headers=fields)).status_code == 421


async def test_the_page_comes_with_a_policy_that_makes_no_text_markup(
    keyed: httpx.AsyncClient,
) -> None:
    page = await keyed.get("/console")  # without a key
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    for directive in ("default-src 'none'", "script-src 'self'", "trusted-types 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    slashed = await keyed.get("/console/")
    assert slashed.status_code == 308
    assert urljoin("/console/", slashed.headers["location"]) == "/console"
    assert slashed.headers["content-security-policy"] == policy
    known = {"if-none-match": page.headers["etag"]}
    assert (await keyed.get("/console", headers=known)).status_code == 304
    linked = re.findall(r'(?:href|src)="([^"#]+\.\w+)"', page.text)
    assert linked
    for path in linked:
        file = await keyed.get(urljoin("/console", path))
        assert file.status_code == 200, path
        assert file.headers["content-security-policy"] == policy
    for path in ("nothing.js", "..%2froutes.py", "routes.py", "index.html/"):
        assert (await keyed.get(f"/console/page/{path}")).status_code == 404


# When it is there


STRANGERS = "host = '0.0.0.0'\nlame_duck = 0\nallow_anonymous = true"


@pytest.mark.parametrize("server", ["console = false", STRANGERS])
async def test_it_is_not_there_where_it_is_off_or_strangers_would_see_it(
    tmp_path: Path, server: str
) -> None:
    toml = OPEN.replace("[server]", f"[server]\n{server}")
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        for path in ("/console", "/console/page/main.js", f"{API}/hello"):
            response = await gateway.client.get(f"http://127.0.0.1:{gateway.port}{path}")
            assert response.status_code == 404


def test_what_is_off_is_not_imported(tmp_path: Path) -> None:
    program = (
        "import sys, trio\n"
        "from gateway.composition.observers import make_console\n"
        "from gateway.config import CallerKeys, ServerSettings, Settings\n"
        "told = []\n"
        "settings = Settings(server=ServerSettings(console=False))\n"
        "assert make_console(told, None, settings, CallerKeys(), ['127.0.0.1']) is None\n"
        "print(told, [name for name in sys.modules if 'front.console' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["[]", "[]"]


async def test_a_reload_that_takes_the_keys_away_closes_it_to_strangers(tmp_path: Path) -> None:
    toml = KEYS.replace("[server]", "[server]\nhost = '0.0.0.0'\nlame_duck = 0")
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        url = f"http://127.0.0.1:{gateway.port}{API}/"
        assert (await gateway.client.get(f"{url}hello", headers=AS_ADA)).status_code == 200
        async with following(gateway.client, headers=AS_ADA) as page:
            await page.until(lambda: page.agents)
            without = OPEN.replace("[server]", f"[server]\n{STRANGERS}")
            (tmp_path / "gateway.toml").write_text(without)
            gateway.process.send_signal(signal.SIGHUP)
            with pytest.raises(EOFError):
                await page.until(lambda: False)
        assert (await gateway.client.get(f"{url}hello")).status_code == 404


# The end, and readers that do not read


async def test_a_stream_is_not_opened_for_whoever_asks_for_its_head(
    client: httpx.AsyncClient,
) -> None:
    response = await client.head(f"{API}/live")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET"


async def test_an_open_console_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with (
        running_gateway(toml=OPEN, folder=tmp_path) as gateway,
        following(gateway.client) as page,
    ):
        await page.until(lambda: page.agents)
        gateway.process.send_signal(signal.SIGTERM)
        with pytest.raises(EOFError):
            await page.until(lambda: False)
        with trio.fail_after(20):
            await gateway.process.wait()


async def test_whoever_reads_nothing_makes_nobody_wait(tmp_path: Path) -> None:
    async with (
        running_gateway(toml=OPEN, folder=tmp_path) as gateway,
        connected(gateway.port) as deaf,
        following(gateway.client, "?topics=requests,log") as page,
    ):
        await deaf.request(f"{API}/live", method="GET")
        await page.step()
        for number in range(40):
            script = [["log", "x" * 4000], ["answer", 1]]
            await invoke(gateway.client, script, f"deaf-{number}")
        await page.until(lambda: page.request("deaf-39", "completed"))
