"""The console of a real gateway, in a real browser: what a person does there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import Tab, chromium, needs_chromium
from tests.harness import AGENTS, GatewayInThread, gateway_in_thread, one_process
from tests.http.conftest import SCRIPTED
from tests.http.console_axe import in_both_schemes
from tests.javascript import need_runtime

pytestmark = needs_chromium

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
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def _closed_tabs(browser: Browser) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


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
    asking, calling = (
        [sys.executable, str(Path(__file__).parent / "agents" / name)]
        for name in ("asking.py", "calling.py")
    )
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
        [agents.narrow]
        command = {json.dumps(SCRIPTED)}
        concurrency = 1
        [agents.weather]
        command = {json.dumps(declaring)}
        [agents.asking]
        command = {json.dumps(asking)}
        [agents.calling]
        command = {json.dumps(calling)}
    """
    with gateway_in_thread(toml, folder) as gateway:
        yield gateway


def opened(browser: Browser, gateway: GatewayInThread, part: str) -> Tab:
    tab = Tab(browser, f"{gateway.url}/console#/{part}")
    expect(tab.page.locator("#link")).to_have_text("Live")
    return tab


def chat(page: Page, script: list[Any]) -> None:
    """Send a message as a person does: by typing it, and the key Enter."""
    box = page.get_by_label("Message")
    box.click()
    page.keyboard.insert_text(json.dumps(script))
    box.press("Enter")


def answer_of(page: Page, agent: str) -> Locator:
    """The last answer of an agent."""
    return page.get_by_role("article", name=f"Answer of {agent}").last


def row_of(page: Page, agent: str) -> Locator:
    rows = page.get_by_role("list", name="Agents").get_by_role("listitem")
    return rows.filter(has=page.get_by_role("link", name=agent, exact=True))


def spotless(tab: Tab, url: str) -> None:
    assert tab.complaints == []
    assert tab.page.evaluate("typeof pwned") == "undefined"
    assert all(each.startswith((url, "data:", "blob:")) for each in tab.requests)


@one_process("the ends of workers are in the logs of hosts")
def test_an_agent_is_seen_to_crash_and_to_come_back(
    browser: Browser, gateway: GatewayInThread, folder: Path
) -> None:
    tab = opened(browser, gateway, "agents")
    page = tab.page
    row = row_of(page, "phoenix")
    expect(row.locator(".badge")).to_have_text("ready")
    (folder / "alive").unlink()
    crashed = httpx.post(f"{gateway.url}/agent/phoenix/invoke", json={"input": [["exit", 7]]})
    assert crashed.status_code == 501
    expect(row.locator(".badge")).to_have_text("failing")
    expect(row).to_contain_text("exited with status 7")
    page.get_by_role("link", name="phoenix").click()
    expect(page.get_by_role("heading", name="The last failure of a worker")).to_be_visible()
    assert in_both_schemes(tab) == {}
    (folder / "alive").touch()
    expect(page.locator(".head .badge")).to_have_text("ready")
    workers = page.get_by_role("region", name="Table of the workers")
    expect(workers.get_by_role("rowheader")).to_contain_text("ready")
    expect(page.get_by_role("heading", name="Workers can reach")).to_be_visible()
    spotless(tab, gateway.url)


def test_a_chat_shows_reasoning_tools_files_and_text_as_they_come(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "try/scripted?handler=chat")
    page = tab.page
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
    answer = answer_of(page, "scripted")
    expect(answer.locator(".answer")).to_contain_text(f"Hello {HOSTILE}")
    expect(answer).to_have_attribute("aria-busy", "true")
    tool = answer.locator(".tool").first
    expect(tool).to_contain_text('{"city":"Oslo"}')
    expect(answer.locator(".reasoning")).to_contain_text(f"Need the weather. {HOSTILE}")
    httpx.post(
        f"{gateway.url}/agent/scripted/invoke", json={"input": [["open", "reader"], ["end"]]}
    )
    expect(answer.locator(".answer")).to_contain_text(", world")
    expect(answer).to_contain_text("Whole")
    expect(answer).to_contain_text("7 input tokens")
    expect(answer).to_have_attribute("aria-busy", "false")
    image = page.get_by_role("img", name="dot.png, made by the agent")
    expect(image).to_have_attribute("src", f"data:image/png;base64,{PNG}")
    assert page.evaluate("document.images.length") == 1
    tab.wait_for("document.images[0].naturalWidth === 1")
    expect(page.locator("main script, main .turns svg")).to_have_count(0)
    expect(answer.locator(".file pre")).to_contain_text(f"<svg>{HOSTILE}</svg>")
    folded = answer.locator("details:not([open]) > summary")
    while folded.count():
        folded.first.click()
    assert in_both_schemes(tab) == {}
    spotless(tab, gateway.url)


def test_a_stream_is_stopped_and_its_worker_is_told(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "try/scripted?handler=chat")
    page = tab.page
    chat(page, [["say", "begun"], ["hold"]])
    expect(answer_of(page, "scripted").locator(".answer")).to_contain_text("begun")
    page.get_by_role("button", name="Stop").click()
    expect(answer_of(page, "scripted")).to_contain_text("Stopped")
    gateway.logged("cancelled")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    chat(page, [["say", "half"], ["error", -32000, HOSTILE]])
    expect(answer_of(page, "scripted").locator(".turn-error")).to_contain_text(HOSTILE)
    assert in_both_schemes(tab) == {}
    spotless(tab, gateway.url)


def test_questions_are_answered_by_buttons_and_fields_and_the_turn_goes_on(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "try/asking")
    page = tab.page
    chat(page, [])
    sure = page.get_by_role("group", name="Are you <b>sure</b>?")
    expect(sure).to_contain_text("Are you <b>sure</b>?")
    assert in_both_schemes(tab) == {}
    sure.get_by_role("button", name="Yes").click()
    when = page.locator(".ask").nth(1)
    when.get_by_label("day").fill("Monday")
    hour = when.get_by_label("hour")
    hour.fill("not a number")
    hour.press("Enter")
    expect(page.get_by_text("hour: expected a whole number")).to_be_visible()
    expect(hour).to_be_focused()
    hour.fill("9")
    hour.press("Enter")
    expect(when).to_contain_text("Answered")
    page.locator(".ask").nth(2).get_by_role("button", name="Decline").click()
    expect(page.get_by_role("article", name="Answer of asking")).to_have_count(2)
    expect(answer_of(page, "asking")).to_contain_text("Whole")
    answers = page.locator(".agent-turn .answer")
    expect(answers).to_have_count(1)
    assert json.loads(answers.inner_text()) == [
        {"id": "sure", "status": "resolved", "payload": True},
        {"id": "when", "status": "resolved", "payload": {"day": "Monday", "hour": 9}},
        {"id": "why", "status": "cancelled"},
    ]
    spotless(tab, gateway.url)


def test_a_tool_of_the_readers_is_called_and_its_result_goes_on(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "try/calling")
    page = tab.page
    tools = [{"name": "weather", "parameters": {"type": "object"}}]
    page.get_by_text("Tools of yours").click()
    page.get_by_label("Tools (JSON)").fill('{"name": "weather"}')
    chat(page, [])
    expect(page.get_by_text("Tools are a list of objects, each with a name")).to_be_visible()
    page.get_by_label("Tools (JSON)").fill(json.dumps(tools))
    page.get_by_label("Message").press("Enter")
    turn = answer_of(page, "calling")
    expect(turn).to_contain_text("It waits for tools of yours")
    result = turn.get_by_role("textbox", name="Result of")
    expect(result).to_have_count(1)  # the agent's own tool is its own
    expect(result).to_be_focused()
    expect(turn.locator(".ask")).to_contain_text('{"city":"Oslo"}')
    assert in_both_schemes(tab) == {}
    page.keyboard.insert_text(f"12 °C {HOSTILE}")
    turn.get_by_role("button", name="Send results").click()
    expect(page.get_by_role("article", name="Answer of calling")).to_have_count(2)
    last = answer_of(page, "calling")
    expect(last).to_contain_text("Whole")
    called = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert json.loads(last.locator(".answer").inner_text()) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": called}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": f"12 °C {HOSTILE}"},
    ]
    spotless(tab, gateway.url)


@one_process("what workers write is in the logs of hosts")
def test_the_slow_request_is_found_explained_and_cancelled(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "requests")
    page = tab.page
    script = [["log", f"a slow disk {HOSTILE}"], ["say", "one"], ["hold"]]
    answers: list[httpx.Response] = []

    def slow() -> None:
        url = f"{gateway.url}/agent/scripted/invoke"
        answers.append(httpx.post(url, json={"input": script}, timeout=60))

    asking = threading.Thread(target=slow)
    asking.start()
    late = httpx.post(f"{gateway.url}/agent/hasty/invoke", json={"input": [["hold"]]})
    assert late.json()["error"]["clock"] == "first"
    rows = page.locator(".request-table tbody").get_by_role("row")
    hasty = rows.filter(has_text="hasty")
    expect(hasty.locator(".row-error")).not_to_be_empty()
    # It got to a worker, which said nothing until the clock ran out.
    assert parts_of(hasty)["first"] > 0
    assert parts_of(hasty)["rest"] == 0
    heard = f"({TIME} in the queue, )?{TIME} until the first word, {TIME} in all"
    expect(hasty.get_by_role("cell", name=re.compile(f"^{heard}$"))).to_have_count(1)
    page.get_by_label("Show").select_option("running")
    expect(rows).to_have_count(1)
    expect(rows.locator("td.figure").last).to_have_text("1")  # its words so far
    # What takes long is that it goes on answering: soon that is most of the bar, and the largest.
    tab.wait_for(
        "((part) => part('rest') > part('first') + part('queue'))((name) => parseFloat("
        "document.querySelector(`.request-table .phase.${name}`).style.width))"
    )
    heard = f"({TIME} in the queue, )?{TIME} until the first word, {TIME} answering, {TIME} in all"
    expect(rows.get_by_role("cell", name=re.compile(f"^{heard}$"))).to_have_count(1)
    rows.get_by_role("link").click()
    expect(page.locator(".head .badge")).to_have_text("answering")
    bar = page.get_by_role("region", name="Where the time went")
    expect(bar.locator("dt")).to_have_text(["in the queue", UNTIL, "answering", "in all"])
    expect(bar.locator("dd")).to_have_text([re.compile(f"^{TIME}$")] * 4)
    tab.wait_for("parseFloat(document.querySelector('.timebar .phase.rest').style.width) > 50")
    expect(bar.locator(".timebar .unseen")).to_have_text(re.compile(f"^{heard}$"))
    events = page.get_by_role("region", name="Table of the events")
    expect(events).to_contain_text("given to a worker")
    expect(events).to_contain_text("text")
    lines = page.get_by_role("list", name="Lines")
    expect(lines).to_contain_text(f"a slow disk {HOSTILE}")
    expect(events).not_to_contain_text("slow disk")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .badge")).to_have_text("cancelled")
    asking.join()
    assert answers[0].json()["error"]["type"] == "cancelled"
    page.get_by_role("link", name="All requests").click()
    hasty.get_by_role("link").click()
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("clocks.first")
    assert in_both_schemes(tab) == {}
    spotless(tab, gateway.url)


TIME, UNTIL = r"[\d.]+ (µs|ms|s|m [\d]+ s)", "until the first word"


def parts_of(row: Locator) -> dict[str, float]:
    """The bar of where a request's time went: the part of the widest that each of its parts is."""
    widths = "(at) => [at.className.split(' ')[1], parseFloat(at.style.width)]"
    parts = row.locator(".timebar .phase").evaluate_all(f"(all) => all.map({widths})")
    assert [name for name, _ in parts] == ["queue", "first", "rest"]
    return dict(parts)


@one_process("a queue is its host's")
def test_a_request_that_waits_behind_another_is_found_to_wait(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "requests")
    page = tab.page
    url = f"{gateway.url}/agent/narrow/invoke"
    rows = page.locator(".request-table tbody").get_by_role("row")
    page.get_by_label("Agent").fill("narrow")
    asking = [
        threading.Thread(target=httpx.post, args=(url,), kwargs={"json": each, "timeout": 60})
        for each in ({"input": [["say", "first"], ["hold"]]}, {"input": [["answer", "second"]]})
    ]
    asking[0].start()
    expect(rows.locator(".badge")).to_have_text(["answering"])
    asking[1].start()
    expect(rows.locator(".badge")).to_have_text(["queued", "answering"])  # the newest first
    page.get_by_label("Order").select_option("slow")
    expect(rows.locator(".badge")).to_have_text(["answering", "queued"])
    waiting = rows.filter(has_text="queued")
    told = re.compile(f"^{TIME} in the queue, {TIME} in all$")
    expect(waiting.get_by_role("cell", name=told)).to_have_count(1)
    parts = parts_of(waiting)
    assert 0 < parts.pop("queue") <= 100
    assert set(parts.values()) == {0}
    waiting.get_by_role("link").click()
    bar = page.get_by_role("region", name="Where the time went")
    expect(bar.locator(".unseen").first).to_have_text(told)
    page.get_by_role("link", name="All requests").click()
    rows.filter(has_text="narrow").filter(has_text="answering").get_by_role("link").click()
    page.get_by_role("button", name="Cancel").click()
    for each in asking:
        each.join()
    page.get_by_role("link", name="All requests").click()
    page.get_by_label("Agent").fill("narrow")
    served = rows.filter(has_text="completed")
    expect(served).to_have_count(1)
    assert parts_of(served)["queue"] > 0  # what has taken long is still told
    expect(served.get_by_role("cell", name=re.compile(f"^{TIME} in the queue, "))).to_have_count(1)
    spotless(tab, gateway.url)


def test_an_input_is_a_form_and_the_same_request_as_programs(
    browser: Browser, gateway: GatewayInThread, folder: Path
) -> None:
    tab = opened(browser, gateway, "try/weather?handler=invoke")
    page = tab.page
    city = 'O\'slo "$(id)" \\ ${x} \\n é\u2028 true null %s `id`'
    page.get_by_label("city").click()
    page.keyboard.insert_text(city)
    page.keyboard.press("Tab")
    expect(page.get_by_label("days")).to_be_focused()
    page.keyboard.insert_text("12345678901234567890")
    page.keyboard.press("Enter")
    answer = answer_of(page, "weather")
    expect(answer).to_contain_text("Whole")
    sent = {"city": city, "days": 12345678901234567890}
    shown = json.loads(answer.locator(".answer").text_content() or "")["input"]
    assert shown == sent  # to the last digit
    code = page.get_by_label("The request as a program")
    if not code.is_visible():
        page.get_by_text("The same request as a program").click()
    programs = {}
    for language in ("curl", "Python", "TypeScript"):
        page.get_by_role("button", name=language).click()
        expect(code).to_contain_text("weather")
        programs[language] = code.text_content() or ""
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
    spotless(tab, gateway.url)


def test_raw_json_is_sent_and_what_is_copied_answers_the_same(
    browser: Browser, gateway: GatewayInThread, folder: Path
) -> None:
    tab = opened(browser, gateway, "try/weather?handler=invoke")
    page = tab.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("city").fill("Oslo")
    page.get_by_role("group", name="Input as").get_by_role("button", name="JSON").click()
    raw = page.get_by_label("Input (JSON)")
    assert json.loads(raw.input_value()) == {"city": "Oslo"}  # what the form held
    code = page.get_by_label("The request as a program")
    raw.fill('{"city": "Bergen", "days": ')
    expect(code).to_have_text("The input is not whole yet.")
    page.get_by_role("button", name="Invoke", exact=True).last.click()
    expect(page.get_by_role("alert").filter(has_text="This is not JSON")).to_be_visible()
    expect(raw).to_be_focused()
    sent = {"city": 'Bergen\'s "best"', "days": 2, "more": [None, True, {"$x": "`id`"}]}
    raw.fill(json.dumps(sent))
    page.get_by_label("Stream").uncheck()
    page.get_by_role("button", name="Invoke", exact=True).last.click()
    answer = answer_of(page, "weather")
    expect(answer).to_contain_text("Whole")
    shown = json.loads(answer.locator(".answer").text_content() or "")
    assert shown["input"] == sent
    source = folder / "copied.ts"
    for language, command in (
        ("curl", ["bash", "-c"]),
        ("Python", [sys.executable, "-c"]),
        ("TypeScript", [need_runtime("node24")]),
    ):
        page.get_by_role("button", name=language).click()
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        if language == "TypeScript":
            source.write_text(f"{copied}\nexport {{}};\n")
            copied = str(source)
        done = subprocess.run(
            [*command, copied], capture_output=True, text=True, check=True, timeout=60
        )
        assert json.loads(done.stdout)["output"]["input"] == shown["input"], language
    spotless(tab, gateway.url)


def test_the_console_is_used_by_the_keyboard_alone(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "agents")
    page = tab.page
    expect(page.get_by_role("list", name="Agents").get_by_role("listitem")).to_have_count(7)

    def walk_to(wanted: Locator) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if wanted.count() == 1 and wanted.evaluate("(at) => at === document.activeElement"):
                assert wanted.evaluate("(at) => getComputedStyle(at).outlineStyle") != "none"
                return
        raise AssertionError(f"the key Tab never comes to {wanted}")

    walk_to(page.get_by_role("link", name="Skip to the content"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    walk_to(page.get_by_role("link", name="scripted"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="scripted")).to_be_focused()
    assert page.evaluate("location.hash") == "#/agents/scripted"
    walk_to(page.get_by_role("main").get_by_role("link", name="Try it"))
    page.keyboard.press("Enter")
    chatting = page.get_by_role("button", name="Chat")
    expect(chatting).to_be_visible()
    walk_to(chatting)
    page.keyboard.press("Enter")
    walk_to(page.get_by_label("Message"))
    page.keyboard.insert_text('[["say", "heard"], ["hold"]]')
    page.keyboard.press("Enter")
    expect(answer_of(page, "scripted").locator(".answer")).to_contain_text("heard")
    walk_to(page.get_by_role("button", name="Stop"))
    page.keyboard.press("Enter")
    expect(answer_of(page, "scripted")).to_contain_text("Stopped")
    expect(page.locator("#said")).to_contain_text("stopped")
    spotless(tab, gateway.url)


def test_the_log_is_filtered_by_the_request_that_an_answer_names(
    browser: Browser, gateway: GatewayInThread
) -> None:
    tab = opened(browser, gateway, "log")
    page = tab.page
    url = f"{gateway.url}/agent/scripted/invoke"
    failed = httpx.post(url, json={"input": [["error", -32000, "on purpose"]]})
    request = failed.json()["error"]["request_id"]
    lines = page.get_by_role("list", name="Lines of the log").get_by_role("listitem")
    expect(lines.filter(has_text=request).first).to_be_visible()
    page.get_by_label("Request id").fill(request)
    page.get_by_label("Request id").press("Enter")
    expect(lines.filter(has_not_text=request)).to_have_count(0)
    expect(lines.filter(has_text=request).first).to_be_visible()
    spotless(tab, gateway.url)


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
    """Type a key where the page asks for one."""
    dialog = page.get_by_role("dialog", name="This gateway asks for a key")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_label("Key").press("Enter")


@one_process("its page asks for one thing more")
def test_a_key_is_asked_for_and_shows_what_it_may_see(
    browser: Browser, keyed: GatewayInThread
) -> None:
    httpx.post(
        f"{keyed.url}/agent/echo/invoke",
        json={"input": 1},
        headers={"authorization": f"Bearer {ADA}"},
    )
    tab = Tab(browser, f"{keyed.url}/console")
    page = tab.page
    rows = page.get_by_role("list", name="Agents").get_by_role("listitem")
    give(page, "agw_a-key-with-a-wörd-that-was-copied")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("the character ö")
    give(page, "agw_a-key-that-nobody-has-made-before")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("not good")
    assert in_both_schemes(tab) == {}
    give(page, BOB)
    expect(rows).to_have_count(1)
    expect(page.get_by_role("button", name="Forget the key bob")).to_be_visible()
    page.goto(f"{keyed.url}/console#/try/echo?handler=chat")
    chat(page, ["mine"])
    expect(answer_of(page, "echo").locator(".answer")).to_contain_text("mine")
    page.get_by_role("link", name="Requests").click()
    expect(page.locator(".request-table tbody").get_by_role("row")).to_have_count(1)
    page.goto(f"{keyed.url}/console#/agents/secret")
    expect(page.get_by_text("There is no such agent here.")).to_be_visible()
    assert page.get_by_role("main").inner_text().count("secret") == 1
    assert all(BOB not in url for url in tab.requests)
    assert BOB not in page.evaluate(
        "document.documentElement.outerHTML + location + document.cookie"
    )
    with page.expect_navigation():
        page.get_by_role("button", name="Forget the key bob").click()
    give(page, ADA)
    page.get_by_role("link", name="Agents", exact=True).click()
    expect(page.locator("#link")).to_have_text("Live")
    expect(rows).to_have_count(2)
    # The browser tells of what was refused: no key, a wrong one, and the agent of another.
    assert all("401" in each or "403" in each for each in tab.complaints)
    assert sum("403" in each for each in tab.complaints) == 1
