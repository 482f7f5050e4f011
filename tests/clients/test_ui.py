"""What of the UI message stream only pages ask for: approvals, and streams that are found again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest

from tests.clients.clients import AUTHORIZATION, OTHER_KEY, RUN_SECONDS, command
from tests.clients.runners import KEY
from tests.harness import GatewayInThread

pytestmark = pytest.mark.timeout(RUN_SECONDS + 60)  # the first test waits for the pages


@pytest.fixture(scope="module")
def pages(gateway: GatewayInThread, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each page of `ui_pages.mjs` had in the end."""
    program = command("ui_pages.mjs", tmp_path_factory.mktemp("pages"))
    ended = subprocess.run(
        [*program, gateway.url, KEY, OTHER_KEY],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_call_of_the_agents_own_is_approved_by_the_user(pages: Any) -> None:
    asked = ["dynamic-tool", "delete", "approval-requested", "Delete it?"]
    assert pages["allowed"] == {
        "asked": asked,
        "calls": [["output-available", "deleted"]],
        "roles": ["user", "assistant"],
    }
    assert pages["denied"] == {
        "asked": asked,
        "calls": [["output-denied", None]],
        "roles": ["user", "assistant"],
    }


def test_an_agent_is_told_that_a_tool_of_the_page_has_failed(pages: Any) -> None:
    assert pages["failedTool"] == {"roles": ["user", "assistant"]}


def test_an_answer_is_said_again(pages: Any) -> None:
    assert pages["regenerated"] == {"texts": ["hello", "Hello, Wörld!"], "other": True}


def test_a_page_that_is_opened_again_goes_on_with_its_stream(pages: Any) -> None:
    resumed = pages["resumed"]
    assert resumed["again"] == [200, True, "streaming", "ready"]
    assert resumed["texts"] == ["hold", "so far, so good"]
    assert resumed["same"] is True


def test_there_is_no_stream_for_others_nor_one_that_was_read(pages: Any) -> None:
    assert pages["resumed"]["stranger"] == [204, 0]
    assert pages["resumed"]["late"] == [204, "ready"]
    assert pages["resumed"]["nobody"] == [204, "ready"]


def test_a_page_that_leaves_ends_the_agents_work(pages: Any, gateway: GatewayInThread) -> None:
    assert pages["left"] == {"run": None}
    gateway.logged(" cancelled left-by-its-page ")


@pytest.fixture
def client(gateway: GatewayInThread) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, headers=AUTHORIZATION, timeout=30, verify=False)


def chat(text: str, **body: Any) -> dict[str, Any]:
    part = {"type": "text", "text": text}
    return {"messages": [{"id": "u1", "role": "user", "parts": [part]}], **body}


def test_an_answer_that_nobody_has_read_is_there_until_somebody_has(client: httpx.Client) -> None:
    with client:
        begun = client.post(
            "/ui/told", json=chat("hello", id="unread"), headers={"prefer": "respond-async"}
        )
        assert begun.status_code == 202
        run = begun.json()["id"]
        while client.get(f"/runs/{run}").json()["state"] in {"queued", "running"}:
            pass
        first = client.get("/ui/told/unread/stream")
        assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert "data: [DONE]" in first.text
        assert client.get("/ui/told/unread/stream").status_code == 204


def test_an_error_is_a_text_for_people_and_a_header_for_programs(client: httpx.Client) -> None:
    with client:
        lost = client.post("/ui/nobody", json=chat("hello"))
        assert (lost.status_code, lost.text) == (404, "there is no agent 'nobody'")
        assert lost.headers["x-error-type"] == "agent_not_found"
        assert lost.headers["content-type"] == "text/plain; charset=utf-8"
        wrong = client.get("/ui/told")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        wrong = client.post("/ui/told/c1/stream", json={})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
        assert client.get("/ui/nobody/c1/stream").status_code == 404
        keyless = client.get("/ui/told/c1/stream", headers={"authorization": ""})
        assert keyless.status_code == 401
