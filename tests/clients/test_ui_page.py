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

from tests.browser import CHROMIUM, Page, browser
from tests.clients.clients import NODE, RUN_SECONDS
from tests.clients.runners import KEY
from tests.harness import GatewayInThread
from tests.javascript import MODULES, need_package, need_runtime

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed"),
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
def page(
    site: str, gateway: GatewayInThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as chromium:
        page = chromium.open(f"{site}/#api={gateway.url}/ui/told&key={KEY}")
        page.wait_for("document.querySelector('main[data-status=ready] input')")
        yield page


def say(page: Page, text: str) -> None:
    """Write what the user says, and send it."""
    page.evaluate("document.querySelector('input').focus()")
    page.type(text)
    page.press("Enter")


def see(page: Page, text: str) -> None:
    """Wait until the last answer has that text and is whole."""
    last = "[...document.querySelectorAll('.assistant')].at(-1).textContent"
    page.wait_for(f"{last} === {text!r} && document.querySelector('[data-status=ready]')")


def test_a_person_chats_with_an_agent(page: Page) -> None:
    say(page, "hello")
    see(page, "Hello, Wörld!")
    say(page, "think")
    see(page, "First this, then that.Done.")
    assert page.text("i") == "First this, then that."
    say(page, "work")
    see(page, "Done.")
    assert page.text("output") == "Writing"


def test_the_page_runs_its_tool_and_the_person_answers_and_allows(page: Page) -> None:
    say(page, "weather")
    see(page, "It is 12 °C.")
    say(page, "ask-when")
    page.click(".answer")
    see(page, "On Tuesday, then.")
    say(page, "ask-leave")
    page.click(".allow")
    see(page, "It is gone.")


def test_a_person_sees_what_went_wrong(page: Page) -> None:
    say(page, "refuse")
    page.wait_for("document.querySelector('[role=alert]').textContent === 'no such city'")
    say(page, "fail-later")
    page.wait_for("document.querySelector('[role=alert]').textContent === 'no luck'")


def test_a_page_that_is_loaded_again_shows_the_answer_that_goes_on(page: Page) -> None:
    say(page, "hold")
    so_far = "[...document.querySelectorAll('.assistant')].at(-1).textContent === 'so far, so good'"
    page.wait_for(so_far)
    page.evaluate("window.isOld = true")
    page.call("Page.reload")
    page.wait_for(f"!window.isOld && {so_far} && document.querySelector('[data-status=streaming]')")
    assert page.evaluate("document.querySelectorAll('p').length") == 1
    page.click("#stop")
    see(page, "so far, so good")
