"""The console's API at real gateways: what is shown, and to whom."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import trio

from tests.harness import GatewayInThread, gateway_in_thread, one_process, running_gateway
from tests.http.console_follower import (
    API,
    AS_ADA,
    AS_BOB,
    HOSTILE,
    KEYS,
    OPEN,
    following,
    invoke,
)


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


async def test_a_stream_is_not_opened_for_whoever_asks_for_its_head(
    client: httpx.AsyncClient,
) -> None:
    response = await client.head(f"{API}/live")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET"


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
