"""Tasks and cards of A2A, as its own clients see them: during a task, after a cut, at its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.clients import NODE, ROOT, RUNNERS
from tests.clients.runners import KEY
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime

SECONDS = 60

TASKS = {
    "while it runs": ["WORKING", "so far"],
    "followed": [True, "WORKING", "so far"],
    "cancelled": "CANCELED",
    "the stream's end": "CANCELED",
    "afterwards": "CANCELED",
    "cancelled again": "TaskNotCancelableError",
    "followed again": "UnsupportedOperationError",
    "listed": True,
    "another": "TaskNotFoundError",
    "push": "PushNotificationNotSupportedError",
}


def in_python(url: str, folder: Path) -> list[str]:
    del folder
    return [sys.executable, "-m", "tests.clients.runners.a2a_tasks", url]


def in_javascript(url: str, folder: Path) -> list[str]:
    need_package("@a2a-js/sdk")
    (folder / "node_modules").symlink_to(MODULES)
    shutil.copy(RUNNERS / "a2a_tasks.mjs", folder)
    return [need_runtime(NODE), str(folder / "a2a_tasks.mjs"), url, KEY]


@pytest.mark.parametrize("command", [in_python, in_javascript])
def test_a_client_follows_cancels_polls_and_lists_its_tasks(
    gateway: GatewayInThread, tmp_path: Path, command: Callable[[str, Path], list[str]]
) -> None:
    ended = subprocess.run(
        command(gateway.url, tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["tasks"] == TASKS
    assert told["polled"] == ["COMPLETED", "Hello, Wörld!"]
    assert told["cards"] == {
        "strangers_skills": ["extended-card"],
        "skills": ["chat"],
        "modes": ["text/plain", "application/json", "image/*"],
        "url": f"{gateway.url}/a2a/told",
    }


def get(gateway: GatewayInThread, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}{path}", headers=headers, timeout=30)


def card(gateway: GatewayInThread, path: str = "/a2a/told", **headers: str) -> Any:
    response = get(gateway, f"{path}/.well-known/agent-card.json", **headers)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_stranger_cannot_tell_which_agents_there_are(gateway: GatewayInThread) -> None:
    known, unknown = card(gateway), card(gateway, "/a2a/nobody")
    assert json.dumps(known).replace("told", "nobody") == json.dumps(unknown).replace(
        "told", "nobody"
    )
    for path in ("", "/a2a"):
        response = get(gateway, f"{path}/.well-known/agent-card.json")
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert get(gateway, "/a2a/no.such.name/.well-known/agent-card.json").status_code == 404


def test_a_card_has_the_host_by_which_it_was_asked_for_if_that_is_the_gateways(
    gateway: GatewayInThread,
) -> None:
    key = {"x-api-key": KEY}

    def url(**headers: str) -> Any:
        return card(gateway, **key, **headers)["supportedInterfaces"][0]["url"]

    assert url(host="localhost:99") == "http://localhost:99/a2a/told"
    assert url(host="localhost", **{"x-forwarded-proto": "https"}) == "https://localhost/a2a/told"
    assert url(host="localhost", **{"x-forwarded-proto": "evil://"}) == "http://localhost/a2a/told"
    for evil in ("evil.example", "localhost@evil.example", 'a"b', "localhost/x"):
        path = "/a2a/told/.well-known/agent-card.json"
        assert get(gateway, path, host=evil, **key).status_code in {400, 421}


def test_a_card_is_kept_by_its_tag(gateway: GatewayInThread) -> None:
    path, key = "/a2a/jq/.well-known/agent-card.json", {"x-api-key": KEY}
    first = get(gateway, path, **key)
    assert "private" in first.headers["cache-control"]
    again = get(gateway, path, **key, **{"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_gateways_card_names_every_agent(gateway: GatewayInThread) -> None:
    told = card(gateway, "", **{"x-api-key": KEY})
    names = [each["tenant"] for each in told["supportedInterfaces"]]
    assert names == [skill["id"] for skill in told["skills"]]
    assert {"told", "fragile", "plain", "jq"} <= set(names)
    several = get(gateway, "/a2a/.well-known/agent-card.json", **{"x-api-key": KEY})
    assert several.status_code == 404
    assert "slash at its end" in several.json()["error"]["message"]


def test_errors_that_are_http_have_its_status(gateway: GatewayInThread) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    headers = {"a2a-version": "1.0"}

    def post(path: str, **more: str) -> httpx.Response:
        return httpx.post(
            f"{gateway.url}{path}", json=body, headers={**headers, **more}, timeout=30
        )

    assert post("/a2a/told").status_code == 401
    for response, status, code in (
        (post("/a2a/told"), 401, -32000),
        (post("/a2a/nobody", **{"x-api-key": KEY}), 404, -32000),
        (post("/a2a/told", **{"x-api-key": KEY}), 200, -32001),
        (post("/a2a/told", **{"x-api-key": KEY, "content-type": "text/plain"}), 415, -32005),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.skipif("A2A_TCK" not in os.environ, reason="A2A_TCK names no checkout of the kit")
def test_the_conformance_kit_finds_what_the_readme_says(tmp_path: Path) -> None:
    from tests.clients.a2a_tck import run

    assert run(Path(os.environ["A2A_TCK"]), tmp_path) == {
        "DM-MSG-001",
        "CORE-SEND-003",
        "CARD-CACHE-003",
    }
