"""What the console shows of agents in the strict sandbox: what holds them, what they have used, how
their requests fare, and what nobody is to see."""

from __future__ import annotations

import json
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, needs_chromium
from tests.harness import GatewayInThread, gateway_in_thread, one_process
from tests.http.conftest import SCRIPTED
from tests.http.console_axe import in_both_schemes
from tests.http.test_console_use import opened, row_of, spotless
from tests.sandbox.users import available_users, need_sandbox

pytestmark = [needs_chromium, one_process("sandboxes, services and workers are those of hosts")]

KEY = f"sk-{secrets.token_hex(10)}"
"""In no file that an agent may see."""
NOTING = [sys.executable, str(Path(__file__).parent / "agents" / "noting.py")]


class _Notes(BaseHTTPRequestHandler):
    """A service that tells its notes to whoever has the key."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        known = self.headers["authorization"] == f"Bearer {KEY}" and self.path == "/v1/today"
        body = b"buy milk" if known else b"none of yours"
        self.send_response(200 if known else 403)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def _closed_tabs(browser: Browser) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def notes() -> Iterator[str]:
    """The URL of the service."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Notes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, notes: str) -> Iterator[GatewayInThread]:
    need_sandbox(available_users()[0])
    folder = tmp_path_factory.mktemp("strict")
    (folder / "key").write_text(KEY)
    toml = f"""
        [server]
        sandbox = "strict"
        [services.notes]
        url = "{notes}"
        header = {{ Authorization = "Bearer file:{folder}/key" }}
        allow = ["GET /today"]
        [defaults]
        workers = {{ min = 1, max = 1 }}
        restart = {{ failures = 1000, backoff = 0 }}
        [agents.noting]
        command = {json.dumps(NOTING)}
        services = ["notes"]
        [agents.noting.sandbox]
        nofile = 77
        memory = "333M"
        [agents.scripted]
        command = {json.dumps(SCRIPTED)}
        [agents.other]
        command = {json.dumps(SCRIPTED)}
    """
    with gateway_in_thread(toml, folder) as gateway:
        yield gateway


def invoke(gateway: GatewayInThread, agent: str, script: Any, **more: Any) -> httpx.Response:
    url = f"{gateway.url}/agent/{agent}/invoke"
    return httpx.post(url, json={"input": script, **more}, timeout=60)


def test_traffic_is_drawn_as_sparklines_beside_figures_that_can_be_heard(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "agents")
    page = tab.page
    row = row_of(page, "scripted")
    rates = row.locator(".spark").filter(has=page.locator(".rate"))
    latencies = row.locator(".spark").filter(has=page.locator(".median"))
    expect(rates).to_have_class(re.compile("at-rest"))
    for _ in range(3):
        assert invoke(gateway, "scripted", [["answer", 1]]).status_code == 200
    assert invoke(gateway, "scripted", [["error", -32000, "on purpose"]]).status_code != 200
    expect(rates).not_to_have_class(re.compile("at-rest"))
    expect(rates.locator(".marks")).to_have_attribute("d", re.compile("^M"))  # of the error
    for line in ("median", "high"):
        expect(latencies.locator(f".line.{line}")).to_have_attribute("d", re.compile("^M"))
    for drawn in (rates, latencies):
        box = drawn.locator(".line").last.bounding_box()
        assert box is not None
        assert box["width"] > 0
    heard = row.aria_snapshot()
    assert re.search(r"Rate: \d\.\d/s 1 error", heard), heard
    assert re.search(r"percentile: [\d.]+ (µs|ms|s) [\d.]+ (µs|ms|s)", heard), heard
    page.get_by_role("link", name="scripted").click()
    panel = page.get_by_role("region", name="Requests")
    expect(panel.locator(".spark")).to_have_count(2)
    expect(panel.locator(".spark.at-rest")).to_have_count(0)
    expect(panel).to_contain_text(re.compile(r"Rate\d\.\d/s"))
    expect(panel).to_contain_text(re.compile(r"percentile[\d.]+ (µs|ms|s) · "))
    spotless(tab, gateway.url)


def test_what_holds_an_agent_is_told_as_it_is_inside_and_what_it_has_used(
    browser: Browser, gateway: GatewayInThread, notes: str
) -> None:
    tab = opened(browser, gateway, "agents/noting")
    page = tab.page
    sandbox = page.get_by_role("region", name="What the sandbox enforces")
    expect(sandbox).to_contain_text(f"The service notes at {notes} (GET /today below it)")
    expect(sandbox).to_contain_text("They cannot read the key")
    expect(sandbox).to_contain_text("No other network")
    expect(sandbox).to_contain_text("Memory: 333 MiB")
    expect(sandbox).to_contain_text("Open files: 77 in each process")
    sandbox.get_by_text("As settings").click()
    level = sandbox.locator("dt", has_text=re.compile("^level$")).locator("+ dd")
    expect(level).to_have_text("strict")
    services = page.get_by_role("region", name="Services")
    expect(services).to_have_count(0)  # nothing has been used
    answer = invoke(gateway, "noting", 1).json()["output"]
    assert (answer["note"], answer["files"]) == ("buy milk", 77)
    variables = sandbox.get_by_text("These environment variables")
    for name in {*answer["environment"]} - {"PWD"}:  # which bubblewrap adds: where it starts them
        expect(variables).to_contain_text(name)
    expect(services).to_contain_text("notes")  # without a reload of the page
    used = services.locator("dt", has_text=re.compile("^requests$")).locator("+ dd")
    expect(used).to_have_text("1")
    expect(level).to_be_visible()  # what was unfolded still is
    assert in_both_schemes(tab) == {}
    assert KEY not in page.content()
    spotless(tab, gateway.url)


SECRET = "the combination of the safe"


def request_of(browser: Browser, gateway: GatewayInThread) -> tuple[Any, Page]:
    """A request that is opened after it has ended, with a secret in question and answer."""
    tab = opened(browser, gateway, "requests")
    page = tab.page
    script = [["say", f"{SECRET} is 12345"], ["end", {}]]
    told = invoke(gateway, "scripted", script, stream=True)
    assert "12345" in told.text
    row = page.locator(".request-table tbody").get_by_role("row").filter(has_text="stream")
    expect(row.locator(".badge")).to_have_text("completed")
    row.get_by_role("link").click()
    expect(page.get_by_role("region", name="Table of the events")).to_contain_text("completed")
    return tab, page


def test_what_was_asked_and_answered_is_not_shown_unless_that_is_switched_on_by_name(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab, page = request_of(browser, gateway)
    expect(page.get_by_text("is shown only with [server] log_payloads = true")).to_be_visible()
    expect(page.get_by_role("region", name="What was")).to_have_count(0)
    expect(page.get_by_role("region", name="Table of the events")).to_contain_text("text")
    assert SECRET not in page.content()
    page.get_by_role("link", name="Its lines in the log").click()
    expect(page.get_by_role("list", name="Lines of the log")).to_contain_text("scripted")
    assert SECRET not in page.content()
    spotless(tab, gateway.url)


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    """A gateway that is to show payloads."""
    toml = f"""
        [server]
        sandbox = "off"
        log_payloads = true
        [agents.scripted]
        command = {json.dumps(SCRIPTED)}
    """
    with gateway_in_thread(toml, tmp_path_factory.mktemp("telling")) as gateway:
        yield gateway


def test_what_was_asked_and_answered_is_shown_where_that_is_switched_on(
    browser: Browser, telling: GatewayInThread
) -> None:
    tab, page = request_of(browser, telling)
    expect(page.get_by_role("region", name="What was asked")).to_contain_text(SECRET)
    expect(page.get_by_role("region", name="What was answered")).to_contain_text(SECRET)
    events = page.get_by_role("region", name="Table of the events")
    expect(events.locator(".payload")).to_have_text(f"{SECRET} is 12345")
    assert in_both_schemes(tab) == {}
    spotless(tab, telling.url)


def test_the_log_is_filtered_by_agent_and_by_level_while_it_is_followed(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "log")
    page = tab.page
    lines = page.get_by_role("list", name="Lines of the log").get_by_role("listitem")
    written = lines.and_(page.locator("[data-stderr]"))

    def both(number: int) -> None:
        """Have each of two agents write a line, and fail."""
        for agent in ("scripted", "other"):
            failed = invoke(gateway, agent, [["log", f"{agent} writes {number}"], ["exit", 7]])
            assert failed.status_code == 501

    both(1)
    for agent in ("scripted", "other"):
        expect(written.filter(has_text=f"{agent} writes 1")).to_have_count(1)
    page.get_by_label("Agent").fill("other")
    page.get_by_label("Agent").press("Enter")
    expect(written.filter(has_text="scripted writes 1")).to_have_count(0)
    expect(written.filter(has_text="other writes 1")).to_have_count(1)
    both(2)
    expect(written.filter(has_text="other writes 2")).to_have_count(1)
    of_other = page.get_by_role("link", name="other", exact=True)
    expect(lines.filter(has_not=of_other)).to_have_count(0)
    page.get_by_label("From level").select_option("warning")
    expect(written).to_have_count(0)
    expect(lines.filter(has_text="worker ended")).to_have_count(2)
    page.get_by_label("Agent").fill("")
    page.get_by_label("Agent").press("Enter")
    expect(lines.filter(has_text="worker ended")).to_have_count(4)
    both(3)
    expect(lines.filter(has_text="worker ended")).to_have_count(6)
    assert page.locator(".log-line:not([data-level=warning], [data-level=error])").count() == 0
    spotless(tab, gateway.url)
