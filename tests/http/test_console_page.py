"""The console's page, shown agents that a fake server makes up: how it looks, what it costs, who
can use it, and that nothing an agent writes is ever markup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import Browser, Page, browser
from tests.http.console_axe import in_both_schemes
from tests.http.console_fake import FakeConsole, Fleet, fake_console
from tests.http.console_pictures import NARROW, WIDE, look

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="Debian's package chromium is not installed"
)

HOSTILE = "<img src=x onerror='pwned=1'><script>pwned=1</script>\"'&lt;javascript:pwned=1"
TURNED = "\u202egnp.exe\u2066"

PARTS = (
    "agents",
    "agents/billing",
    "try/billing?handler=invoke",
    "try/billing?handler=chat",
    "requests",
    "requests/r-1",
    "log",
)
"""Every part, and both kinds of the parts that have two."""


WATCHED = """
    touched = new Set();
    new MutationObserver((all) => {
        for (const { target } of all) {
            const changed = target.closest ? target : target.parentElement;
            if (changed && !changed.closest(".row-line, .trouble")) {
                touched.add(changed.closest(".agent-row")?.dataset.name);
            }
        }
    }).observe(document.querySelector("main"), {
        subtree: true, childList: true, attributes: true, characterData: true,
    });
    row = document.querySelector("[data-name=claims] a");
    row.focus();
"""
"""Notes the names of the rows where anything changes but what changes as time goes on."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def few() -> Iterator[FakeConsole]:
    fleet = Fleet.of(8)
    fleet.requests[1] |= {"state": "failed", "error": {**TIMEOUT}, "status": 504}
    with fake_console(fleet) as fake:
        yield fake


TIMEOUT = {"type": "timeout", "message": "the clock 'first' ran out", "setting": "clocks.first"}


def shown(
    chromium: Browser,
    fake: FakeConsole,
    part: str,
    *,
    dark: bool = False,
    size: tuple[int, int] = WIDE,
) -> Page:
    """A page that shows a part of what the fake tells."""
    page = chromium.open("about:blank")
    look(page, dark=dark, size=size)
    page.call("Page.navigate", url=f"{fake.url}/console#/{part}")
    page.wait_for("document.querySelector('#link').dataset.state === 'live'")
    page.wait_for(SHOWN[part.split("?", maxsplit=1)[0].split("/", maxsplit=1)[0]])
    return page


SHOWN = {
    "agents": "document.querySelector('.agent-row, .worker-name')",
    "try": "document.querySelector('.input-panel')",
    "requests": "document.querySelector('.request-table tbody tr, .event-table tbody tr')",
    "log": "document.querySelector('.log-line')",
}


@pytest.mark.parametrize("part", PARTS)
def test_axe_finds_no_violation_on_any_part(chromium: Browser, few: FakeConsole, part: str) -> None:
    page = shown(chromium, few, part)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert in_both_schemes(page) == {}
    assert page.complaints == []


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_wider_than_a_telephone(chromium: Browser, few: FakeConsole, part: str) -> None:
    page = shown(chromium, few, part, size=(360, NARROW[1]))
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((each) => "
        "each.getBoundingClientRect().right > innerWidth + 1 && !each.closest("
        "'.scroll, pre, .unseen, svg, .lines, thead')).map((each) => each.outerHTML.slice(0, 100))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def hostile_fleet() -> Fleet:
    fleet = Fleet.of(2)
    agent = fleet.agents[0]
    agent |= {
        "name": "__proto__",
        "description": HOSTILE + TURNED,
        "state": "open",
        "failure": {"message": HOSTILE, "at": 1, "pid": 1, "setting": HOSTILE},
        "limit": {"message": HOSTILE, "at": 1, "limit": "memory", "setting": HOSTILE},
    }
    fleet.workers["__proto__"] = fleet.workers["billing"]
    about = fleet.about["__proto__"] = {**fleet.about["billing"], "name": "__proto__"}
    about |= {
        "sandbox": {HOSTILE: HOSTILE, "constructor": {"__proto__": [HOSTILE]}},
        "services": {HOSTILE: {HOSTILE: 1}},
        "metadata": {HOSTILE: HOSTILE},
        "settings": {"command": HOSTILE},
        "input": json.loads(
            '{"title": "T", "type": "object", "properties": {"__proto__": {"type": "string",'
            f' "title": {json.dumps(HOSTILE)}, "description": {json.dumps(HOSTILE)},'
            f' "pattern": "(a+)+$", "default": {json.dumps(HOSTILE)}}}, "constructor":'
            f' {{"enum": [{json.dumps(HOSTILE)}, 1]}}}}}}'
        ),
    }
    request = fleet.requests[0]
    request |= {
        "agent": "__proto__",
        "state": "failed",
        "ended": request["began"] + 1,
        "total": 1.0,
        "error": {"type": HOSTILE, "message": HOSTILE, "setting": HOSTILE},
    }
    line = {**fleet.lines[0], "message": HOSTILE, "stderr": True, "fields": {HOSTILE: HOSTILE}}
    fleet.lines.append({**line, "agent": HOSTILE, "request": HOSTILE})
    fleet.details[request["id"]] = {
        "events": [
            {"t": 0.1, "kind": "constructor", "count": 1, "size": 3, "text": HOSTILE},
            {"t": 0.2, "kind": HOSTILE, "count": 1, "size": 3, "text": HOSTILE},
        ],
        "stderr": [line],
        "payloads": {"request": HOSTILE, "response": HOSTILE},
    }
    return fleet


def test_what_agents_write_is_text_on_every_part(chromium: Browser) -> None:
    fleet = hostile_fleet()
    with fake_console(fleet) as fake:
        for part in (
            "agents",
            "agents/__proto__",
            "try/__proto__?handler=invoke",
            "requests",
            "requests/r-0",
            "log",
        ):
            page = shown(chromium, fake, part)
            page.wait_for(f"document.body.textContent.includes({json.dumps(HOSTILE)})")
            assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
            assert page.evaluate("typeof pwned") == "undefined"
            assert page.evaluate("typeof ({}).title") == "undefined"
            assert page.complaints == []
            assert all(url.startswith(fake.url) for url in page.requests if url != "about:blank")


def test_only_what_has_changed_is_drawn_again_of_three_hundred_agents(chromium: Browser) -> None:
    with fake_console(Fleet.of(300, workers=60)) as fake:
        page = shown(chromium, fake, "agents")
        page.wait_for("document.querySelectorAll('.agent-row').length === 300")
        page.wait_for("document.querySelector('.totals dd').textContent === '283 of 300'")
        assert page.evaluate("document.querySelectorAll('*').length") < 20_000
        page.evaluate(WATCHED)
        change = {"name": "claims", "state": "backoff", "cells": "rrf"}
        fake.tell("agents", {"agents": [change], "removed": []})
        page.wait_for(
            "document.querySelector('[data-name=claims] .badge').textContent"
            " === 'waiting to restart'"
        )
        assert set(page.evaluate("[...touched].filter((each) => each)")) <= {"claims"}
        assert page.evaluate("document.activeElement === row")
        fake.tell("agents", {"agents": [], "removed": ["claims"]})
        page.wait_for("document.querySelectorAll('.agent-row').length === 299")


def fleet_of_one(count: int) -> Fleet:
    """An agent with so many workers, which are ready."""
    fleet = Fleet.of(1)
    fleet.workers["billing"] = {str(n): worker(n, "ready") for n in range(count)}
    fleet.agents[0]["cells"] = "r" * count
    return fleet


def worker(number: int, state: str) -> list[Any]:
    return [10_000 + number, state, 1, 3, 1, 8, 1 << 25]


COUNTED = """
    counted = (state) => [...document.querySelectorAll(`.cell-grid path[data-state=${state}]`)]
        .reduce((sum, path) => sum + path.getAttribute("d").split("M").length - 1, 0);
"""
"""How many cells of a state there are in the grid: one piece of a path each."""


def test_thousands_of_workers_are_cells_that_arrow_keys_walk_through(chromium: Browser) -> None:
    with fake_console(fleet_of_one(4000)) as fake:
        page = shown(chromium, fake, "agents/billing")
        page.evaluate(COUNTED)
        page.wait_for("counted('ready') === 4000")
        assert page.evaluate("document.querySelectorAll('*').length") < 1500
        page.evaluate("grid = document.querySelector('[role=listbox]'), grid.focus()")
        page.press("ArrowRight")
        page.press("ArrowRight")
        page.wait_for("document.querySelector('.told').textContent.includes('pid 10002')")
        option = "document.getElementById(grid.getAttribute('aria-activedescendant'))"
        assert "pid 10002" in page.evaluate(f"{option}.textContent")
        assert (
            page.evaluate(f"{option}.ariaPosInSet + ' of ' + {option}.ariaSetSize") == "3 of 4000"
        )
        page.press("ArrowDown")
        page.wait_for("document.querySelector('.told').textContent.includes('pid 10012')")
        page.press("End")
        page.wait_for("document.querySelector('.told').textContent.includes('pid 13999')")
        page.wait_for("document.querySelector('tbody').textContent.includes('13999')")
        page.press("Home")
        page.press("ArrowRight")
        page.wait_for("document.querySelector('.told').textContent.includes('pid 10001')")
        workers = {"1": worker(1, "failing"), "3": None}
        fake.tell("workers", {"workers": workers}, "billing")
        page.wait_for("counted('ready') === 3998 && counted('failing') === 1")
        page.wait_for(
            "document.querySelector('.told').textContent.startsWith('failing, pid 10001')"
        )


def test_a_table_tells_of_as_many_workers_as_there_are(chromium: Browser) -> None:
    with fake_console(fleet_of_one(60)) as fake:
        page = shown(chromium, fake, "agents/billing")
        page.wait_for("document.querySelectorAll('.pages ~ *, tbody tr').length >= 25")
        pids = "[...document.querySelectorAll('.worker-name .dim')].map((each) => each.textContent)"
        assert page.evaluate(pids) == [str(10_000 + n) for n in range(25)]
        page.click(".pages button:nth-of-type(2)")
        page.click(".pages button:nth-of-type(2)")
        assert page.evaluate(pids) == [str(10_000 + n) for n in range(50, 60)]
        assert page.text(".pages .dim") == "Workers 51 to 60 of 60"
        gone = {str(n): None for n in range(20, 60)}
        fake.tell("workers", {"workers": gone}, "billing")
        page.wait_for(f"{pids}.length === 20")
        assert page.evaluate("document.querySelector('.pages').checkVisibility()") is False


def test_what_is_told_again_after_a_lost_connection_stays_where_it_is(chromium: Browser) -> None:
    with fake_console(Fleet.of(120)) as fake:
        page = shown(chromium, fake, "agents")
        page.wait_for("document.querySelectorAll('.agent-row').length === 120")
        page.evaluate(
            "removed = [], new MutationObserver((all) => all.forEach(({ removedNodes }) => "
            "removed.push(...[...removedNodes].map((each) => each.dataset?.name))))"
            ".observe(document.querySelector('.agent-rows'), { childList: true }), true"
        )
        gone = fake.fleet.agents.pop()["name"]
        fake.cut()
        page.wait_for("removed.length > 0 && link.dataset.state === 'live'")
        assert page.evaluate("removed") == [gone]


def test_a_lost_connection_is_told_and_taken_up_again(chromium: Browser, few: FakeConsole) -> None:
    page = shown(chromium, few, "agents")
    page.evaluate(
        "states = [], new MutationObserver(() => states.push(link.dataset.state))"
        ".observe(link, { attributes: true }), true"
    )
    before = len(few.opened)
    few.cut()
    page.wait_for("states.includes('lost') && link.dataset.state === 'live'")
    assert len(few.opened) > before
    assert page.text("#link") == "Live"


def test_the_log_holds_still_while_it_is_paused(chromium: Browser, few: FakeConsole) -> None:
    page = shown(chromium, few, "log?agent=billing")
    assert any("agent=billing" in path for path in few.opened)
    count = page.evaluate("document.querySelectorAll('.log-line').length")
    page.click("[aria-pressed=false]")
    line = {**few.fleet.lines[0], "n": 1000, "message": "while it is paused"}
    few.tell("log", {"lines": [line], "skipped": 0})
    page.wait_for("document.querySelector('main').textContent.includes('1 lines wait')")
    assert page.evaluate("document.querySelectorAll('.log-line').length") == count
    page.click("[aria-pressed=true]")
    page.wait_for("document.querySelector('.lines').textContent.includes('while it is paused')")
    page.evaluate("document.querySelector('#log-level').value = 'error'")
    page.evaluate("document.querySelector('#log-level').dispatchEvent(new Event('change'))")
    page.wait_for("document.querySelector('.log-line')")
    assert any("level=error" in path for path in few.opened)


def in_page(page: Page, module: str, expression: str) -> Any:
    """The value of an expression of what a module of the page exports, `m`."""
    return page.evaluate(f"import('/console/page/{module}').then((m) => {expression})")


def test_schemas_become_forms_or_else_nothing(chromium: Browser, few: FakeConsole) -> None:
    page = shown(chromium, few, "log")
    good: dict[str, Any] = {
        "type": "object",
        "$defs": {"Money": {"type": "number", "default": 12}},
        "properties": {
            "n": {"type": "integer", "default": 7},
            "price": {"$ref": "#/$defs/Money"},
            "flag": {"type": "boolean"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"enum": ["a", 2], "default": 2},
            "tags": {"type": "array", "items": {"type": "string", "default": 'x\n"'}},
            "deep": {"type": "object", "properties": {"z": {"const": {"é": 1}}}},
        },
        "required": ["n", "price", "kind", "tags", "deep"],
    }
    text = in_page(page, "form.js", f"m.schemaForm({json.dumps(good)}).read()")
    assert json.loads(text) == {
        "n": 7,
        "price": 12,
        "flag": False,
        "kind": 2,
        "tags": ['x\n"'],
        "deep": {"z": {"é": 1}},
    }
    large = "12345678901234567890"
    exact = (
        "((form) => { form.element.querySelector('input').value = "
        f"'{large}'; return form.read(); }})(m.schemaForm({{ type: 'integer' }}))"
    )
    assert in_page(page, "form.js", exact) == large
    loop = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(500)}}
    for odd in (
        True, None, 5, [], {}, loop, tree, wide, {"type": 5}, {"type": ["string", "integer"]},
        {"$ref": "http://elsewhere.example/"}, {"$ref": "#/%ff"}, {"$ref": 7},
        {"enum": []}, {"enum": 5}, {"enum": list(range(300))}, {"type": "object", "properties": []},
        {"type": "toString"}, {"type": "object", "properties": {"a": 5}, "allOf": [{}]},
    ):  # fmt: skip
        assert in_page(page, "form.js", f"m.schemaForm({json.dumps(odd)})") is None, odd


def test_ages_are_reckoned_by_the_gateways_clock(chromium: Browser, few: FakeConsole) -> None:
    page = shown(chromium, few, "log")
    ahead = (
        "(m.learn(new Date(Date.now() + 3600e3).toUTCString()), [m.now() - Date.now() / 1000, "
        "m.learn(new Date().toUTCString()), m.now() - Date.now() / 1000])"
    )
    hour, _, none = in_page(page, "clock.js", ahead)
    assert 3590 < hour < 3610
    assert abs(none) < 3
