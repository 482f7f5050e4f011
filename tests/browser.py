"""A real browser without a window: Debian's Chromium, driven over its own pipe.

    with browser(tmp_path) as chromium:
        page = chromium.open("http://127.0.0.1:8080/docs")
        page.wait_for("document.querySelector('h2')")
        page.screenshot(tmp_path / "docs.png")

The Chrome DevTools Protocol needs no more than a JSON text for each message, ended by a NUL byte,
on the descriptors 3 and 4 (`--remote-debugging-pipe`): no driver, no port, no library.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

ANSWER_SECONDS = 90
"""For anything that is asked of the browser, on a loaded machine."""

ARGUMENTS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-sandbox",  # it refuses to run as root otherwise, as CI does
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--metrics-recording-only",
    "--window-size=1280,1600",
)


_KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}
"""The code of each key that writes nothing or more than itself, and what it writes."""


class Browser:
    """See `browser`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError."""
        self._number += 1
        number = self._number
        self._answers[number] = queue.Queue()
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        answer = self._answers[number].get(timeout=ANSWER_SECONDS)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> Page:
        """A new page, on its way to `url`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        return page

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):
            while data := os.read(self._from, 1 << 16):
                *messages, rest = (rest + data).split(b"\0")
                for message in messages:
                    self._receive(json.loads(message))
        gone = {"error": {"message": "the browser has ended"}}
        for waiting in self._answers.values():
            waiting.put(gone)

    def _receive(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]].put(message)
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]].note(message["method"], message["params"])


class Page:
    """One page. `requests` are the URLs that it has asked for, `complaints` what it has logged as
    errors: exceptions, refused resources, what its policy forbids."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))

    def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression, which may be a promise. Raises RuntimeError."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """The value of an expression once that is true."""
        return self.evaluate(
            "new Promise((found) => { const look = () => { const value = (() => { try { return "
            f"({condition}) }} catch (error) {{ return null }} }})(); "
            "if (value) found(typeof value === 'object' ? true : value); "
            "else setTimeout(look, 20); }; look(); })"
        )

    def click(self, selector: str) -> None:
        """Click the first element, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(found)
        self.evaluate(f"{found}.click()")

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, by its name in the standard (UI Events, `key`)."""
        code, text = _KEYS.get(key, (ord(key.upper()), key) if len(key) == 1 else (0, ""))
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Write text where the focus is."""
        self.call("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        """The text of the first element, once there is some."""
        found = f"document.querySelector({json.dumps(selector)})"
        text: str = self.wait_for(f"{found}.textContent")
        return text

    def screenshot(self, path: Path) -> None:
        """A PNG of what is to be seen."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`, until the end of the block."""
    assert CHROMIUM is not None, "Debian's package chromium is missing"
    their_in, to_browser = os.pipe()
    from_browser, their_out = os.pipe()
    script = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    command = [CHROMIUM, *ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(their_in, their_out),
        start_new_session=True,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
