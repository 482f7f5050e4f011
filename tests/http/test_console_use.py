"""The console of a real gateway, in a real browser: what a person does there."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import Browser, Page, browser
from tests.harness import AGENTS, GatewayInThread, gateway_in_thread
from tests.http.conftest import SCRIPTED
from tests.http.console_axe import in_both_schemes
from tests.javascript import need_runtime

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="Debian's package chromium is not installed"
)

ADA, BOB = "agw_the-key-of-ada-who-may-call-all", "agw_the-key-of-bob-who-may-call-one"
HOSTILE = "<img src=x onerror='pwned=1'><script>pwned=1</script>"
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c63f8ffff3f0005fe02fea735819f0000000049454e44ae426082"
    )
).decode()
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": HOSTILE},
        "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[GatewayInThread]:
    """Agents of every kind; `phoenix` starts only while its file is there."""
    alive = folder / "alive"
    alive.touch()
    phoenix = f"test -e {alive} || exit 7; exec {' '.join(SCRIPTED)}"
    declaring = [sys.executable, "-u", str(AGENTS / "declaring.py"), json.dumps(CITY)]
    asking = [sys.executable, str(Path(__file__).parent / "agents" / "asking.py")]
    toml = f"""
        [server]
        sandbox = "off"
        [defaults]
        workers = {{ min = 1, max = 1 }}
        restart = {{ failures = 1, backoff = 0.1, cooldown = 1 }}
        [agents.scripted]
        description = "{HOSTILE}"
        command = {json.dumps([*SCRIPTED, "+asks", "+tools"])}
        [agents.phoenix]
        command = {json.dumps(["sh", "-c", phoenix])}
        [agents.hasty]
        command = {json.dumps(SCRIPTED)}
        clocks = {{ first = 0.2, cancel = 1 }}
        [agents.weather]
        command = {json.dumps(declaring)}
        [agents.asking]
        command = {json.dumps(asking)}
    """
    with gateway_in_thread(toml, folder) as gateway:
        yield gateway


def opened(chromium: Browser, gateway: GatewayInThread, part: str) -> Page:
    page = chromium.open(f"{gateway.url}/console#/{part}")
    page.wait_for("document.querySelector('#link').dataset.state === 'live'")
    return page


def chat(page: Page, script: list[Any]) -> None:
    """Send a message as a person does: by typing it, and the key Enter."""
    page.wait_for("document.querySelector('#chat-text')")
    page.evaluate("document.querySelector('#chat-text').focus()")
    page.type(json.dumps(script))
    page.press("Enter")


def said(page: Page, text: str, where: str = "main") -> None:
    """Wait until a part of the page shows a text."""
    place = f"document.querySelector({json.dumps(where)})"
    page.wait_for(f"{place}.textContent.includes({json.dumps(text)})")


def spotless(page: Page, url: str) -> None:
    assert page.complaints == []
    assert page.evaluate("typeof pwned") == "undefined"
    assert all(each.startswith((url, "data:", "about:", "blob:")) for each in page.requests)


def test_an_agent_is_seen_to_crash_and_to_come_back(
    chromium: Browser, gateway: GatewayInThread, folder: Path
) -> None:
    page = opened(chromium, gateway, "agents")
    said(page, "ready", "[data-name=phoenix] .badge")
    (folder / "alive").unlink()
    crashed = httpx.post(f"{gateway.url}/agent/phoenix/invoke", json={"input": [["exit", 7]]})
    assert crashed.status_code == 501
    said(page, "failing", "[data-name=phoenix] .badge")
    said(page, "exited with status 7", "[data-name=phoenix] .trouble")
    page.click("[data-name=phoenix] a")
    said(page, "The last failure of a worker")
    assert in_both_schemes(page) == {}
    (folder / "alive").touch()
    said(page, "ready", ".head .badge")
    said(page, "ready", ".worker-name")
    said(page, "Workers can reach")
    spotless(page, gateway.url)


def test_a_chat_shows_reasoning_tools_files_and_text_as_they_come(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "try/scripted?handler=chat")
    svg = base64.b64encode(f"<svg>{HOSTILE}</svg>".encode()).decode()
    events: list[dict[str, Any]] = [
        {"type": "status", "text": HOSTILE, "progress": 1, "total": 2},
        {"type": "reasoning", "text": f"Need the weather. {HOSTILE}"},
        {"type": "tool_call", "call": "c1", "name": HOSTILE, "delta": '{"city":'},
        {"type": "tool_call", "call": "c1", "name": HOSTILE, "delta": '"Oslo"}'},
        {"type": "tool_result", "call": "c1", "content": {"html": HOSTILE}},
        {"type": "file", "name": "dot.png", "mime": "image/png", "data": PNG},
        {"type": "file", "name": HOSTILE, "mime": "image/svg+xml", "data": svg},
        {"type": "file", "name": "a.html", "mime": "text/html", "data": svg},
        {"type": "state", "patch": [{"op": "add", "path": "/a", "value": HOSTILE}]},
        {"type": "x-constructor", "html": HOSTILE},
    ]
    script: list[Any] = [["event", event] for event in events]
    usage = {"input_tokens": 7, "output_tokens": 3}
    script += [["say", f"Hello {HOSTILE}"], ["wait", "reader"], ["say", ", world"]]
    chat(page, [*script, ["end", {"finish": "stop", "usage": usage}]])
    said(page, f"Hello {HOSTILE}", ".answer")
    assert page.evaluate("document.querySelector('.agent-turn').ariaBusy") == "true"
    said(page, '{"city":"Oslo"}', ".tool")
    said(page, f"Need the weather. {HOSTILE}", ".reasoning")
    httpx.post(
        f"{gateway.url}/agent/scripted/invoke", json={"input": [["open", "reader"], ["end"]]}
    )
    said(page, ", world", ".answer")
    said(page, "Whole", ".turn-foot")
    said(page, "7 input tokens", ".turn-foot")
    images = "[...document.images].map((each) => each.src)"
    assert page.evaluate(images) == [f"data:image/png;base64,{PNG}"]
    page.wait_for("document.images[0].naturalWidth === 1")
    assert page.evaluate("document.querySelectorAll('main script, main svg').length") == 0
    said(page, f"<svg>{HOSTILE}</svg>", ".file pre")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert in_both_schemes(page) == {}
    spotless(page, gateway.url)


def test_a_stream_is_stopped_and_its_worker_is_told(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "try/scripted?handler=chat")
    chat(page, [["say", "begun"], ["hold"]])
    said(page, "begun", ".answer")
    page.click(".controls .danger")
    said(page, "Stopped", ".turn-foot")
    gateway.logged("cancelled")
    assert page.evaluate("document.querySelector('.controls .main-action').disabled") is False
    chat(page, [["say", "half"], ["error", -32000, HOSTILE]])
    said(page, HOSTILE, ".turn-error")
    assert in_both_schemes(page) == {}
    spotless(page, gateway.url)


def test_questions_are_answered_by_buttons_and_fields_and_the_turn_goes_on(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "try/asking")
    chat(page, [])
    said(page, "Are you <b>sure</b>?", ".ask")
    assert in_both_schemes(page) == {}
    page.click(".ask:nth-child(1) .ask-buttons button")
    page.evaluate("document.querySelector('.ask:nth-child(2) input').focus()")
    page.type("Monday")
    page.press("Tab")
    page.type("not a number")
    page.press("Enter")
    said(page, "hour: expected a whole number", ".asks .refusal")
    page.evaluate("document.activeElement.value = '9'")
    page.press("Enter")
    page.wait_for("document.querySelector('.ask:nth-child(2)').textContent.includes('Answered')")
    page.click(".ask:nth-child(3) .quiet")
    page.wait_for("document.querySelectorAll('.agent-turn .answer').length === 1")
    said(page, "Whole", ".agent-turn:last-of-type .turn-foot")
    assert json.loads(page.text(".agent-turn .answer")) == [
        {"id": "sure", "status": "resolved", "payload": True},
        {"id": "when", "status": "resolved", "payload": {"day": "Monday", "hour": 9}},
        {"id": "why", "status": "cancelled"},
    ]
    spotless(page, gateway.url)


def test_the_slow_request_is_found_explained_and_cancelled(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "requests")
    script = [["log", f"a slow disk {HOSTILE}"], ["say", "one"], ["hold"]]
    answers: list[httpx.Response] = []

    def slow() -> None:
        url = f"{gateway.url}/agent/scripted/invoke"
        answers.append(httpx.post(url, json={"input": script}, timeout=60))

    asking = threading.Thread(target=slow)
    asking.start()
    late = httpx.post(f"{gateway.url}/agent/hasty/invoke", json={"input": [["hold"]]})
    assert late.json()["error"]["clock"] == "first"
    errors = "[...document.querySelectorAll('.row-error')]"
    page.wait_for(f"{errors}.some((each) => each.textContent)")
    page.evaluate("document.querySelector('#requests-which').value = 'running'")
    page.evaluate("document.querySelector('#requests-which').dispatchEvent(new Event('change'))")
    page.wait_for("document.querySelectorAll('.request-table tbody tr').length === 1")
    page.click(".request-table tbody a")
    said(page, "answering", ".head .badge")
    said(page, "given to a worker", ".event-table")
    said(page, "text", ".event-table")
    said(page, f"a slow disk {HOSTILE}", ".lines")
    assert "slow disk" not in page.evaluate("document.querySelector('.event-table').textContent")
    page.click(".head .danger")
    said(page, "cancelled", ".head .badge")
    asking.join()
    assert answers[0].json()["error"]["type"] == "cancelled"
    page.click(".crumb a")
    page.wait_for("document.querySelector('.request-table .row-error')")
    page.evaluate(
        "[...document.querySelectorAll('.request-table tr')].find((each) => "
        "each.textContent.includes('hasty')).querySelector('a').click()"
    )
    said(page, "clocks.first", ".failure")
    assert in_both_schemes(page) == {}
    spotless(page, gateway.url)


def test_an_input_is_a_form_and_the_same_request_as_programs(
    chromium: Browser, gateway: GatewayInThread, folder: Path
) -> None:
    page = opened(chromium, gateway, "try/weather?handler=invoke")
    page.wait_for("document.querySelector('.form input')")
    city = 'O\'slo "$(id)" \\ ${x} \\n é\u2028 true null %s `id`'
    page.evaluate("document.querySelector('.form input').focus()")
    page.type(city)
    page.press("Tab")
    page.type("12345678901234567890")
    page.press("Enter")
    said(page, "Whole", ".turn-foot")
    sent = {"city": city, "days": 12345678901234567890}
    shown = json.loads(page.text(".answer"))["input"]
    assert shown == sent  # to the last digit
    page.evaluate("document.querySelector('.code-panel').open = true")
    programs = {}
    for place, language in enumerate(("curl", "Python", "TypeScript"), 1):
        page.click(f".code-panel .choice button:nth-child({place})")
        page.wait_for("document.querySelector('pre.code').textContent.includes('weather')")
        programs[language] = page.text("pre.code")
    source = folder / "request.ts"
    source.write_text(f"{programs['TypeScript']}\nexport {{}};\n")
    for command in (
        ["bash", "-c", programs["curl"]],
        [sys.executable, "-c", programs["Python"]],
        [need_runtime("node24"), str(source)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        first = done.stdout.split("\n")[0].removeprefix("data: ")
        assert json.loads(json.loads(first)["chunk"])["input"] == sent, command
    spotless(page, gateway.url)


def test_the_console_is_used_by_the_keyboard_alone(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "agents")
    page.wait_for("document.querySelectorAll('.agent-row').length === 5")

    def walk_to(condition: str) -> None:
        for _ in range(60):
            page.press("Tab")
            if page.evaluate(f"((at) => Boolean({condition}))(document.activeElement)"):
                outline = "getComputedStyle(document.activeElement).outlineStyle"
                assert page.evaluate(outline) != "none"
                return
        raise AssertionError(f"the key Tab never comes to {condition}")

    walk_to("at.classList.contains('skip')")
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    walk_to("at.closest('[data-name=scripted]')")
    page.press("Enter")
    page.wait_for("location.hash === '#/agents/scripted'")
    page.wait_for("document.activeElement.tagName === 'H1'")
    walk_to("at.textContent === 'Try it'")
    page.press("Enter")
    page.wait_for("document.querySelector('.choice [data-handler=chat]')")
    walk_to("at.dataset.handler === 'chat'")
    page.press("Enter")
    walk_to("at.id === 'chat-text'")
    page.type('[["say", "heard"], ["hold"]]')
    page.press("Enter")
    said(page, "heard", ".answer")
    walk_to("at.textContent === 'Stop'")
    page.press("Enter")
    said(page, "Stopped", ".turn-foot")
    page.wait_for("document.querySelector('#said').textContent.includes('stopped')")
    spotless(page, gateway.url)


def test_the_log_is_filtered_by_the_request_that_an_answer_names(
    chromium: Browser, gateway: GatewayInThread
) -> None:
    page = opened(chromium, gateway, "log")
    url = f"{gateway.url}/agent/scripted/invoke"
    failed = httpx.post(url, json={"input": [["error", -32000, "on purpose"]]})
    request = failed.json()["error"]["request_id"]
    said(page, request, ".log-lines")
    page.evaluate(f"document.querySelector('#log-request').value = '{request}'")
    page.evaluate("document.querySelector('.filters').requestSubmit()")
    lines = "[...document.querySelectorAll('.log-line')]"
    page.wait_for(f"{lines}.length && {lines}.every((e) => e.textContent.includes('{request}'))")
    spotless(page, gateway.url)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    def key(name: str, key: str, more: str = "") -> str:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return f'[keys.{name}]\nhash = "sha256:{digest}"\n{more}\n'

    toml = f"""
        [server]
        sandbox = "off"
        [agents.echo]
        command = "python -m worker.examples.echo"
        [agents.secret]
        command = "python -m worker.examples.echo"
        {key("ada", ADA)}
        {key("bob", BOB, 'agents = ["echo"]')}
    """
    with gateway_in_thread(toml, tmp_path_factory.mktemp("keys")) as gateway:
        yield gateway


def give(page: Page, key: str) -> None:
    page.wait_for("document.querySelector('#key-dialog').open")
    page.evaluate("document.querySelector('#key').focus()")
    page.type(key)
    page.press("Enter")


def loaded_again(page: Page) -> None:
    """Wait for a page that replaces the one where `loadedBefore` was set."""
    for _ in range(100):
        # A question to the old page has no answer once that is gone.
        with suppress(RuntimeError):
            page.wait_for("typeof loadedBefore === 'undefined'")
            return
    raise AssertionError("the page is not loaded again")


def test_a_key_is_asked_for_and_shows_what_it_may_see(
    chromium: Browser, keyed: GatewayInThread
) -> None:
    httpx.post(
        f"{keyed.url}/agent/echo/invoke",
        json={"input": 1},
        headers={"authorization": f"Bearer {ADA}"},
    )
    page = chromium.open(f"{keyed.url}/console")
    give(page, "agw_a-key-that-nobody-has-made-before")
    said(page, "not good", "#key-refusal")
    assert in_both_schemes(page) == {}
    give(page, BOB)
    page.wait_for("document.querySelectorAll('.agent-row').length === 1")
    said(page, "bob", "#forget")
    page.evaluate("location.hash = '#/try/echo?handler=chat'")
    chat(page, ["mine"])
    said(page, "mine", ".answer")
    page.evaluate("location.hash = '#/requests'")
    page.wait_for("document.querySelectorAll('.request-table tbody tr').length === 1")
    page.evaluate("location.hash = '#/agents/secret'")
    page.wait_for("document.querySelector('.empty').checkVisibility()")
    assert page.evaluate("document.querySelector('main').innerText").count("secret") == 1
    assert all(BOB not in url for url in page.requests)
    assert BOB not in page.evaluate(
        "document.documentElement.outerHTML + location + document.cookie"
    )
    page.evaluate("loadedBefore = true")
    page.click("#forget")
    loaded_again(page)
    give(page, ADA)
    page.wait_for("document.querySelector('#link').dataset.state === 'live'")
    page.evaluate("location.hash = '#/agents'")
    page.wait_for("document.querySelectorAll('.agent-row').length === 2")
    # The browser tells of what was refused: no key, a wrong one, and the agent of another.
    assert all("401" in each or "403" in each for each in page.complaints)
    assert sum("403" in each for each in page.complaints) == 1
