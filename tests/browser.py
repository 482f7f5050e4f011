"""A real browser without a window: Debian's Chromium, driven by Playwright. Nothing is downloaded.

    with chromium() as browser:
        tab = Tab(browser, "http://127.0.0.1:8080/docs")
        expect(tab.page.get_by_role("heading", name="Agents")).to_be_visible()

Playwright's events and its waiting are those of its own thread: a browser is for one module's tests
and no longer, as no other event loop can run in that thread meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Debian's package chromium is not installed"
)

ANSWER_MILLISECONDS = 90_000
"""For anything that is asked of the browser, on a loaded machine."""

ARGUMENTS = (
    "--disable-dev-shm-usage",  # a container's is small
    "--disable-gpu",
)

expect.set_options(timeout=ANSWER_MILLISECONDS)


class Tab:
    """A page with a storage of its own, `page`. `requests` are the URLs that it has asked for,
    `complaints` what it has logged as errors: exceptions, refused resources, what its policy
    forbids."""

    def __init__(self, browser: Browser, url: str = "about:blank", **options: Any) -> None:
        """The options are those of `Browser.new_page`."""
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 1600}, **options})
        self.page.set_default_timeout(ANSWER_MILLISECONDS)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", self._failed)
        self.page.on("console", self._logged)
        self.page.goto(url)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true. Playwright's own wait has the page evaluate a text,
        which the policies of our pages forbid."""
        self.page.evaluate(
            "new Promise((done) => { const look = () => { "
            f"if ({condition}) done(); else setTimeout(look, 20); }}; look(); }})"
        )

    def _failed(self, error: Error) -> None:
        self.complaints.append(f"{error}")

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the end of the block."""
    assert CHROMIUM is not None, "Debian's package chromium is missing"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            chromium_sandbox=False,  # it refuses to run as root otherwise, as CI does
            timeout=ANSWER_MILLISECONDS,
        )
        try:
            yield browser
        finally:
            browser.close()
