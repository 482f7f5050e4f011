"""Web pages of other origins: what a real browser lets them do, and what is on the wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from gateway.config.keys import hash_key, new_key
from tests.browser import Tab, chromium, needs_chromium
from tests.harness import GatewayInThread, gateway_in_thread
from tests.http.conftest import SCRIPTED

KEY = new_key()


class _Page(BaseHTTPRequestHandler):
    """A page of nothing, for every request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>page</title>")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def site() -> Iterator[str]:
    """A web site of its own; its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def allowed() -> Iterator[str]:
    with site() as origin:
        yield origin


@pytest.fixture(scope="module")
def gateway(allowed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    toml = f"""
    [server]
    sandbox = "off"
    cors = ["{allowed}"]
    [agents.a]
    command = {json.dumps(SCRIPTED)}
    limits = {{ requests_per_minute = 100 }}
    [keys.page]
    hash = "{hash_key(KEY.encode())}"
    """
    with gateway_in_thread(toml, tmp_path_factory.mktemp("cors")) as running:
        yield running


CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}

ROUTES = [
    ("GET", "/live", None, 200),
    ("GET", "/agents", None, 200),
    ("GET", "/v1/models", None, 200),
    ("GET", "/nothing", None, 404),
    ("GET", "/runs/run_none", None, 404),
    ("POST", "/agent/a/invoke", {"input": 1}, 200),
    ("POST", "/agent/a/invoke", {"input": [["say", "x"], ["end"]], "stream": True}, 200),
    ("POST", "/agent/a/chat", {}, 400),
    ("POST", "/v1/chat/completions", CHAT, 200),
    ("GET", "/v1/chat/completions", None, 405),
]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
def test_every_route_is_shared_with_the_page_and_answers_its_preflight(
    gateway: GatewayInThread, allowed: str, route: tuple[str, str, Any, int]
) -> None:
    method, path, body, status = route
    page = {"origin": allowed}
    with httpx.Client(base_url=gateway.url, headers=page, timeout=30) as client:
        asked = {
            "access-control-request-method": method,
            "access-control-request-headers": "content-type,x-api-key",
        }
        granted = client.options(path, headers=asked)
        assert (granted.status_code, granted.content) == (204, b"")
        assert granted.headers["access-control-allow-headers"] == "content-type,x-api-key"
        answer = client.request(method, path, json=body, headers={"x-api-key": KEY})
        assert answer.status_code == status
        refused = client.request(method, path, json=body)
        assert refused.status_code == (200 if path == "/live" else 401)
        for response in (granted, answer, refused):
            assert response.headers["access-control-allow-origin"] == allowed
            assert "Origin" in response.headers["vary"]
            assert "access-control-allow-credentials" not in response.headers
        other = client.request(
            method, path, json=body, headers={"x-api-key": KEY, "origin": f"{allowed}0"}
        )
        assert other.status_code == status
        assert "access-control-allow-origin" not in other.headers


INVOKE = """
fetch('%s/agent/a/invoke', {
    method: 'POST',
    headers: {'content-type': 'application/json', 'x-api-key': '%s', 'x-stainless-os': 'web'},
    body: JSON.stringify(%s),
}).then(
    async (response) => ({
        status: response.status,
        text: await response.text(),
        id: response.headers.get('x-request-id'),
        left: response.headers.get('ratelimit-policy'),
    }),
    (error) => ({failed: error.name}),
)
"""


@needs_chromium
def test_a_browser_lets_only_pages_of_the_named_origin_call(
    gateway: GatewayInThread, allowed: str
) -> None:
    good = INVOKE % (gateway.url, KEY, json.dumps({"input": 1}))
    streamed = {"input": [["say", "one"], ["end"]], "stream": True}
    with chromium() as browser, site() as stranger:
        page = Tab(browser, allowed).page
        expect(page).to_have_title("page")
        answer = page.evaluate(good)
        assert (answer["status"], json.loads(answer["text"])) == (200, {"output": 1})
        assert answer["id"]
        assert answer["left"] == '"agent-per-minute";q=100;w=60'
        stream = page.evaluate(INVOKE % (gateway.url, KEY, json.dumps(streamed)))
        assert stream["text"].endswith("data: [DONE]\n\n")
        wrong = page.evaluate(INVOKE % (gateway.url, "wrong", "{}"))
        assert wrong["status"] == 401  # which the page can read
        # A frame without an origin, on the same page.
        in_frame = page.evaluate(_in_sandboxed_frame(good))
        assert in_frame == {"failed": "TypeError"}
        other = Tab(browser, stranger)
        expect(other.page).to_have_title("page")
        assert other.page.evaluate(good) == {"failed": "TypeError"}
        assert any("CORS" in complaint for complaint in other.complaints)


def _in_sandboxed_frame(expression: str) -> str:
    """The value of an expression in a frame whose origin is `null`."""
    script = f"<script>({expression}).then((found) => parent.postMessage(found, '*'))</script>"
    escaped = json.dumps(script).replace("</", "<\\/")
    return (
        "new Promise((found) => { addEventListener('message', (event) => found(event.data)); "
        "const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts'; "
        f"frame.srcdoc = {escaped}; document.body.append(frame); }})"
    )
