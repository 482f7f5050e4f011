"""A page with `useChat` of another origin, in a browser: what a person sees there."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Tab, chromium, needs_chromium
from tests.clients.clients import NODE, RUN_SECONDS
from tests.clients.runners import KEY
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(RUN_SECONDS),
]

SOURCE = Path(__file__).parent / "pages" / "chat.jsx"
PAGE = '<!doctype html><meta charset="utf-8"><div id="root"></div><script src="chat.js"></script>'


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a web site with the page, bundled."""
    folder = tmp_path_factory.mktemp("site")
    need_package("react-dom")
    source = folder / "source"
    source.mkdir()
    shutil.copy(SOURCE, source)
    (source / "node_modules").symlink_to(MODULES)
    esbuild = need_package("esbuild") / "bin" / "esbuild"
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="production"']
    subprocess.run(
        [need_runtime(NODE), esbuild, "chat.jsx", *options, f"--outfile={folder / 'chat.js'}"],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=RUN_SECONDS,
    )
    (folder / "index.html").write_text(PAGE)
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def page(site: str, gateway: GatewayInThread) -> Iterator[Page]:
    with chromium() as browser:
        page = Tab(browser, f"{site}/#api={gateway.url}/ui/told&key={KEY}").page
        expect(page.locator("main[data-status=ready] input")).to_be_visible()
        yield page


def say(page: Page, text: str) -> None:
    """Write what the user says, and send it."""
    page.get_by_role("textbox").fill(text)
    page.get_by_role("textbox").press("Enter")


def see(page: Page, text: str) -> None:
    """Wait until the last answer has that text and is whole."""
    expect(page.locator(".assistant").last).to_have_text(text)
    expect(page.locator("[data-status=ready]")).to_be_visible()
    expect(page.locator(".assistant").last).to_have_text(text)


def test_a_person_chats_with_an_agent(page: Page) -> None:
    say(page, "hello")
    see(page, "Hello, Wörld!")
    say(page, "think")
    see(page, "First this, then that.Done.")
    expect(page.locator("i").first).to_have_text("First this, then that.")
    say(page, "work")
    see(page, "Done.")
    expect(page.locator("output")).to_have_text("Writing")


def test_the_page_runs_its_tool_and_the_person_answers_and_allows(page: Page) -> None:
    say(page, "weather")
    see(page, "It is 12 °C.")
    say(page, "ask-when")
    page.locator("button.answer").click()
    see(page, "On Tuesday, then.")
    say(page, "ask-leave")
    page.locator("button.allow").click()
    see(page, "It is gone.")


def test_a_person_sees_what_went_wrong(page: Page) -> None:
    say(page, "refuse")
    expect(page.get_by_role("alert")).to_have_text("no such city")
    say(page, "fail-later")
    expect(page.get_by_role("alert")).to_have_text("no luck")


def test_a_page_that_is_loaded_again_shows_the_answer_that_goes_on(page: Page) -> None:
    say(page, "hold")
    expect(page.locator(".assistant").last).to_have_text("so far, so good")
    page.evaluate("window.isOld = true")
    page.reload()
    expect(page.locator(".assistant").last).to_have_text("so far, so good")
    expect(page.locator("[data-status=streaming]")).to_be_visible()
    assert page.evaluate("window.isOld") is None
    expect(page.locator("p")).to_have_count(1)
    page.locator("#stop").click()
    see(page, "so far, so good")
