"""The description of the API and the page that shows it: a real gateway and a real browser."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import pytest
from openapi_spec_validator import validate
from playwright.sync_api import Page, expect

from tests.browser import Tab, chromium, needs_chromium
from tests.harness import AGENTS, GatewayInThread, gateway_in_thread

KEY = "agw_a-key-that-is-long-enough-to-be-one"
CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}},
    "required": ["city"],
    "$defs": {"City": {"type": "string", "description": "![x](http://elsewhere.example/x.png)"}},
}
HOSTILE = (
    {"type": 5},
    {"$ref": "http://elsewhere.example/schema.json"},
    {"properties": {"a": {"$ref": "#anchor"}}},
    {"$id": "http://elsewhere.example/", "required": "all"},
    json.loads('{"items":' * 200 + "{}" + "}" * 200),
    {"properties": {"a/b": {"$ref": "#/nowhere"}}},
)


def agents(*schemas: Any) -> str:
    toml = """
        [agents.echo]
        command = "python -m worker.examples.echo"
    """
    for number, schema in enumerate(schemas):
        command = [sys.executable, "-u", str(AGENTS / "declaring.py"), json.dumps(schema)]
        toml += f"""
            [agents.agent{number}]
            command = {json.dumps(command)}
        """
    return toml


def greet(client: httpx.Client, *names: str) -> None:
    """Have agents declare themselves."""
    for name in names:
        spoken = {"messages": [{"role": "user", "content": "hello"}]}
        assert client.post(f"/agent/{name}/chat", json=spoken).status_code == 200


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    toml = f'[server]\nsandbox = "off"\n{agents(CITY, *HOSTILE)}'
    with gateway_in_thread(toml, tmp_path_factory.mktemp("docs")) as gateway:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            greet(client, "echo", *(f"agent{number}" for number in range(1 + len(HOSTILE))))
        yield gateway


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    toml = f"""
        [server]
        sandbox = "off"
        [keys.ada]
        hash = "sha256:{digest}"
        agents = ["echo"]
        {agents(CITY)}
    """
    with gateway_in_thread(toml, tmp_path_factory.mktemp("keys")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: GatewayInThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def test_the_description_is_valid_whatever_agents_declare(client: httpx.Client) -> None:
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert {
        "/agent/echo/invoke",
        "/agent/agent0/chat",
        "/v1/chat/completions",
        "/v1/responses",
        "/runs/{run}",
        "/health",
    } <= set(document["paths"])
    assert "elsewhere.example/schema.json" not in response.text
    for number in range(1, 1 + len(HOSTILE)):
        assert f"/agent/agent{number}/invoke" in document["paths"]


def test_an_agents_own_schema_stands_at_its_path(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/agent/agent0/invoke"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    checker = jsonschema_rs.validator_for({**body, "components": document["components"]})
    assert checker.is_valid({"input": {"city": "Oslo"}})
    assert not checker.is_valid({"input": {"city": 7}})
    assert not checker.is_valid({"input": {}})
    assert not checker.is_valid({"input": {"city": "Oslo"}, "unknown": 1})


def test_a_caller_is_shown_the_agents_that_its_key_may_call(with_keys: GatewayInThread) -> None:
    with httpx.Client(base_url=with_keys.url, timeout=60) as client:
        assert client.get("/openapi.json").status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        response = client.get("/openapi.json", headers=headers)
        document = response.json()
        validate(document)
        assert "/agent/echo/invoke" in document["paths"]
        assert "agent0" not in response.text
        schemes = document["components"]["securitySchemes"]
        assert schemes["bearer"] == {**schemes["bearer"], "type": "http", "scheme": "bearer"}
        assert document["security"] == [{"bearer": []}, {"key": []}]
        assert client.get("/docs").status_code == 200


def test_the_page_has_a_strict_policy_and_its_files_come_compressed_or_not(
    client: httpx.Client,
) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "http" not in page.text.replace("http-equiv", "")
    assert "<script>" not in page.text
    name = "/docs/swagger-ui-bundle.js"
    packed = client.get(name, headers={"accept-encoding": "gzip"})
    plain = client.get(name, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert packed.headers["x-content-type-options"] == "nosniff"
    for missing in ("/docs/", "/docs/routes.py", "/docs/..", "/docs/swagger-ui.LICENSE"):
        assert client.get(missing).status_code == 404
    assert client.get("/docs", headers={"host": "elsewhere.example"}).status_code == 421


def test_without_docs_neither_is_there(tmp_path: Path) -> None:
    toml = f'[server]\nsandbox = "off"\ndocs = false\n{agents()}'
    with gateway_in_thread(toml, tmp_path) as gateway:
        for path in ("/docs", "/openapi.json", "/docs/docs.js"):
            assert httpx.get(gateway.url + path).status_code == 404


def test_what_is_off_is_not_imported() -> None:
    script = (
        "import sys, gateway.composition.server; "
        "print([n for n in sys.modules if 'front.docs' in n])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@needs_chromium
def test_a_call_is_made_from_the_page(gateway: GatewayInThread, tmp_path: Path) -> None:
    with chromium() as browser:
        tab = Tab(browser, f"{gateway.url}/docs")
        page = tab.page
        assert try_out(page, "invoke_echo") == "200"
        # What an agent writes is shown, and cannot have the browser go anywhere.
        operation = page.locator("#operations-agents-invoke_agent0")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("tab", name="Schema").first.click()
        expect(operation.get_by_role("tabpanel").first).to_contain_text("input")
        assert try_out(page, "chat_echo") == "200"
        page.locator(".live-responses-table").first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "docs.png")
        assert (tmp_path / "docs.png").read_bytes().startswith(b"\x89PNG")
        assert not foreign(tab.requests, gateway.url)
        assert tab.complaints == []


@needs_chromium
def test_the_page_asks_for_a_key_and_calls_with_it(
    with_keys: GatewayInThread, tmp_path: Path
) -> None:
    with chromium() as browser:
        tab = Tab(browser, f"{with_keys.url}/docs")
        page = tab.page
        enter_key(page, "agw_another-key-that-is-long-enough-too")
        expect(page.locator("#refusal")).to_contain_text("not good")
        enter_key(page, KEY)
        assert try_out(page, "invoke_echo") == "200"
        assert "agent0" not in page.locator("body").inner_text()
        page.locator(".live-responses-table").first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "keys.png")
        assert not foreign(tab.requests, with_keys.url)
        # The browser itself tells of what was refused.
        assert all("401" in complaint for complaint in tab.complaints)
        assert len(tab.complaints) == 2


def enter_key(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.locator("#key").press("Enter")


def try_out(page: Page, operation: str) -> str:
    """Execute an operation with the body that the page proposes; the status that it shows."""
    block = page.locator(f"#operations-agents-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    status = block.locator(".live-responses-table .response .response-col_status")
    expect(status).not_to_be_empty()
    return status.inner_text().strip()[:3]


def foreign(requests: list[str], url: str) -> list[str]:
    own = urlsplit(url).netloc
    return [
        each
        for each in requests
        if urlsplit(each).scheme != "data" and urlsplit(each).netloc != own
    ]
