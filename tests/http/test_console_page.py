"""The console's page, shown agents that a fake server makes up: how it looks, what it costs, who
can use it, and that nothing an agent writes is ever markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Tab, chromium, needs_chromium
from tests.http.console_axe import in_both_schemes
from tests.http.console_fake import FakeConsole, Fleet, fake_console, make_host
from tests.http.console_pictures import NARROW, WIDE, options
from tests.http.console_smooth import LONG, large_agent, large_fleet, tasks_of

pytestmark = needs_chromium

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
    "fleet",
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
"""
"""Notes the names of the rows where anything changes but what changes as time goes on."""


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
def few() -> Iterator[FakeConsole]:
    fleet = Fleet.of(8)
    states = ("beating", "draining", "silent", "away")
    fleet.hosts += [make_host(n, fleet.agents, state) for n, state in enumerate(states)]
    fleet.requests[1] |= {"state": "failed", "error": {**TIMEOUT}, "status": 504}
    with fake_console(fleet) as fake:
        yield fake


TIMEOUT = {"type": "timeout", "message": "the clock 'first' ran out", "setting": "clocks.first"}


def shown(
    browser: Browser,
    fake: FakeConsole,
    part: str,
    *,
    dark: bool = False,
    size: tuple[int, int] = WIDE,
) -> Tab:
    """A tab that shows a part of what the fake tells."""
    tab = Tab(browser, f"{fake.url}/console#/{part}", **options(dark=dark, size=size))
    expect(tab.page.locator("#link")).to_have_text("Live")
    kind = part.split("?", maxsplit=1)[0].split("/", maxsplit=1)[0]
    expect(tab.page.locator(SHOWN[kind]).first).to_be_visible()
    return tab


SHOWN = {
    "agents": ".agent-row, .worker-name",
    "try": ".input-panel",
    "requests": ".request-table tbody tr, .event-table tbody tr",
    "log": ".log-line",
    "fleet": ".host",
}


def rows_of(page: Page) -> Any:
    return page.get_by_role("list", name="Agents").get_by_role("listitem")


@pytest.mark.parametrize("part", PARTS)
def test_axe_finds_no_violation_on_any_part(browser: Browser, few: FakeConsole, part: str) -> None:
    tab = shown(browser, few, part)
    open_details(tab.page)
    assert in_both_schemes(tab) == {}
    assert tab.complaints == []


def open_details(page: Page) -> None:
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_wider_than_a_telephone(browser: Browser, few: FakeConsole, part: str) -> None:
    page = shown(browser, few, part, size=(360, NARROW[1])).page
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
    at = [HOSTILE, 8, 1, 0, 1]
    fleet.hosts.append(
        make_host(1, []) | {"version": HOSTILE, "state": HOSTILE, "agents": {"__proto__": at}}
    )
    about["hosts"] = []
    about["workers"] = [
        {"state": HOSTILE, "host": HOSTILE}
        | dict.fromkeys(("pid", "age", "served", "in_flight", "capacity", "memory"), 1)
    ]
    fleet.details[request["id"]] = {
        "events": [
            {"t": 0.1, "kind": "constructor", "count": 1, "size": 3, "text": HOSTILE},
            {"t": 0.2, "kind": HOSTILE, "count": 1, "size": 3, "text": HOSTILE},
        ],
        "stderr": [line],
        "payloads": {"request": HOSTILE, "response": HOSTILE},
    }
    return fleet


def test_what_agents_write_is_text_on_every_part(browser: Browser) -> None:
    fleet = hostile_fleet()
    with fake_console(fleet) as fake:
        for part in (
            "agents",
            "agents/__proto__",
            "try/__proto__?handler=invoke",
            "requests",
            "requests/r-0",
            "log",
            "fleet",
        ):
            tab = shown(browser, fake, part)
            page = tab.page
            tab.wait_for(f"document.body.textContent.includes({json.dumps(HOSTILE)})")
            expect(page.locator("main img, main script")).to_have_count(0)
            assert page.evaluate("typeof pwned") == "undefined"
            assert page.evaluate("typeof ({}).title") == "undefined"
            assert tab.complaints == []
            assert all(url.startswith(fake.url) for url in tab.requests)


def test_hosts_are_shown_with_their_load_and_their_changes_are_said(browser: Browser) -> None:
    fleet = Fleet.of(3)
    fleet.agents[0] |= {"in_flight": 8, "waiting": 8}
    fleet.hosts += [make_host(n, fleet.agents[:1]) for n in range(2)]
    with fake_console(fleet) as fake:
        tab = shown(browser, fake, "fleet")
        page = tab.page
        rows = page.get_by_role("list", name="Hosts").get_by_role("listitem")
        expect(rows).to_have_count(2)
        first = rows.filter(has=page.get_by_role("heading", name="host-0"))
        expect(first.locator(".load-words").first).to_have_text("8 of 32 running, 8 waiting (50 %)")
        expect(first.get_by_role("region", name="Agents of host-0")).to_contain_text("billing")
        key = fleet.hosts[0]["id"]
        changed = {"billing": None, "claims": ["ready", 10, 20, 0, 3]}
        change = {"id": key, "state": "draining", "agents": changed}
        fake.tell("hosts", {"connected": True, "hosts": [change], "removed": []})
        expect(first.locator(".badge").first).to_have_text("draining")
        expect(page.locator("#said")).to_have_text("1 host serving; draining: host-0")
        region = first.get_by_role("region", name="Agents of host-0")
        expect(region).not_to_contain_text("billing")
        expect(region.locator(".load-words")).to_have_text("20 of 10 running (200 %)")
        fake.tell("hosts", {"connected": False, "hosts": [], "removed": [key]})
        expect(rows).to_have_count(1)
        expect(page.get_by_text("no connection to NATS")).to_have_count(2)  # shown, and said
        assert tab.complaints == []


def test_without_a_fleet_there_is_no_such_part(browser: Browser) -> None:
    with fake_console(Fleet.of(2)) as fake:
        page = shown(browser, fake, "agents").page
        expect(page.get_by_role("link", name="Fleet")).to_have_count(0)
        page.goto(f"{fake.url}/console#/fleet")
        expect(page.get_by_role("heading", name="Agents")).to_be_visible()


def test_only_what_has_changed_is_drawn_again_of_three_hundred_agents(browser: Browser) -> None:
    with fake_console(Fleet.of(300, workers=60)) as fake:
        tab = shown(browser, fake, "agents")
        page = tab.page
        rows = rows_of(page)
        expect(rows).to_have_count(300)
        # The last of them is filled last.
        tab.wait_for("document.querySelector('.agent-row:last-child .badge').textContent")
        assert page.evaluate("document.querySelectorAll('*').length") < 15_000
        page.evaluate(WATCHED)
        claims = page.get_by_role("link", name="claims", exact=True)
        claims.focus()
        change = {"name": "claims", "state": "backoff", "cells": "rrf"}
        fake.tell("agents", {"agents": [change], "removed": []})
        row = rows.filter(has=claims)
        expect(row.locator(".badge")).to_have_text("waiting to restart")
        assert set(page.evaluate("[...touched].filter((each) => each)")) == {"claims"}
        expect(claims).to_be_focused()
        fake.tell("agents", {"agents": [], "removed": ["claims"]})
        expect(rows).to_have_count(299)


@pytest.mark.parametrize(
    ("fleet", "part"),
    [(large_fleet(), "agents"), (large_agent(), "agents/billing")],
    ids=["agents", "agent"],
)
def test_thousands_of_workers_that_all_change_keep_the_page_busy_for_moments_alone(
    browser: Browser, fleet: Fleet, part: str
) -> None:
    assert sum(len(agent["cells"]) for agent in fleet.agents) >= 4000
    with fake_console(fleet) as fake:
        tasks = tasks_of(browser, fake, part, steps=3)
    assert len(tasks.own) > 10
    assert tasks.own[0] < LONG


def worker(number: int, state: str) -> list[Any]:
    return [10_000 + number, state, 1, 3, 1, 8, 1 << 25]


COUNTED = """
    counted = (state) => [...document.querySelectorAll(`.cell-grid path[data-state=${state}]`)]
        .reduce((sum, path) => sum + path.getAttribute("d").split("M").length - 1, 0);
"""
"""How many cells of a state there are in the grid: one piece of a path each."""


def test_thousands_of_workers_are_cells_that_arrow_keys_walk_through(browser: Browser) -> None:
    with fake_console(large_agent(4000)) as fake:
        tab = shown(browser, fake, "agents/billing")
        page = tab.page
        page.evaluate(COUNTED)
        tab.wait_for("counted('ready') === 4000")
        assert page.evaluate("document.querySelectorAll('*').length") < 1500
        cells = page.get_by_role("listbox", name="Workers")
        told = page.locator(".told")
        cells.focus()
        cells.press("ArrowRight")
        cells.press("ArrowRight")
        expect(told).to_contain_text("pid 10002")
        option = cells.get_by_role("option", selected=True)
        expect(option).to_have_count(1)
        expect(option).to_contain_text("pid 10002")
        expect(option).to_have_attribute("aria-posinset", "3")
        expect(option).to_have_attribute("aria-setsize", "4000")
        expect(cells).to_have_attribute("aria-activedescendant", "worker-2")
        assert option.get_attribute("id") == "worker-2"
        cells.press("ArrowDown")
        expect(told).to_contain_text("pid 10012")
        cells.press("End")
        expect(told).to_contain_text("pid 13999")
        table = page.get_by_role("region", name="Table of the workers")
        expect(table.get_by_role("row").last).to_contain_text("13999")
        cells.press("Home")
        cells.press("ArrowRight")
        expect(told).to_contain_text("pid 10001")
        workers = {"1": worker(1, "failing"), "3": None}
        fake.tell("workers", {"workers": workers}, "billing")
        tab.wait_for("counted('ready') === 3998 && counted('failing') === 1")
        expect(told).to_have_text(re.compile("^failing, pid 10001"))
        page.mouse.move(0, 0)
        box = page.locator(".cell-block").nth(1).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 1, box["y"] + 1)
        expect(told).to_contain_text("pid 10101")  # the hundredth, as one is gone


def test_a_table_tells_of_as_many_workers_as_there_are(browser: Browser) -> None:
    with fake_console(large_agent(60)) as fake:
        page = shown(browser, fake, "agents/billing").page
        pids = page.locator(".worker-name .dim")
        expect(pids).to_have_text([str(10_000 + n) for n in range(25)])
        parts = page.get_by_role("group", name="Part of the table")
        expect(parts.get_by_role("button", name="Previous")).to_be_disabled()
        for _ in range(2):
            parts.get_by_role("button", name="Next").click()
        expect(pids).to_have_text([str(10_000 + n) for n in range(50, 60)])
        expect(parts.get_by_role("button", name="Next")).to_be_disabled()
        expect(parts).to_contain_text("Workers 51 to 60 of 60")
        gone = {str(n): None for n in range(20, 60)}
        fake.tell("workers", {"workers": gone}, "billing")
        expect(pids).to_have_count(20)
        expect(parts).to_be_hidden()


def test_what_is_told_again_after_a_lost_connection_stays_where_it_is(browser: Browser) -> None:
    with fake_console(Fleet.of(120)) as fake:
        tab = shown(browser, fake, "agents")
        page = tab.page
        expect(rows_of(page)).to_have_count(120)
        page.evaluate(
            "removed = [], new MutationObserver((all) => all.forEach(({ removedNodes }) => "
            "removed.push(...[...removedNodes].map((each) => each.dataset?.name))))"
            ".observe(document.querySelector('.agent-rows'), { childList: true }), true"
        )
        gone = fake.fleet.agents.pop()["name"]
        fake.cut()
        tab.wait_for("removed.length > 0 && link.dataset.state === 'live'")
        assert page.evaluate("removed") == [gone]


def test_a_lost_connection_is_told_and_taken_up_again(browser: Browser, few: FakeConsole) -> None:
    tab = shown(browser, few, "agents")
    tab.page.evaluate(
        "states = [], new MutationObserver(() => states.push(link.dataset.state))"
        ".observe(link, { attributes: true }), true"
    )
    before = len(few.opened)
    few.cut()
    tab.wait_for("states.includes('lost') && link.dataset.state === 'live'")
    assert len(few.opened) > before
    expect(tab.page.locator("#link")).to_have_text("Live")


def test_the_log_holds_still_while_it_is_paused(browser: Browser, few: FakeConsole) -> None:
    page = shown(browser, few, "log?agent=billing").page
    assert any("agent=billing" in path for path in few.opened)
    lines = page.get_by_role("list", name="Lines of the log").get_by_role("listitem")
    count = lines.count()
    page.get_by_role("button", name="Pause").click()
    line = {**few.fleet.lines[0], "n": 1000, "message": "while it is paused"}
    few.tell("log", {"lines": [line], "skipped": 0})
    expect(page.get_by_text("1 lines wait")).to_be_visible()
    assert lines.count() == count
    page.get_by_role("button", name="Go on").click()
    expect(lines.filter(has_text="while it is paused")).to_have_count(1)
    page.get_by_label("From level").select_option("error")
    expect(lines.filter(has_text="while it is paused")).to_have_count(0)
    expect(lines).to_have_count(count)
    assert any("level=error" in path for path in few.opened)


def test_a_line_about_several_requests_leads_to_each_of_them(browser: Browser) -> None:
    fleet = Fleet.of(1)
    fleet.lines.append({**fleet.lines[0], "n": 999, "request": "r-a,r-b", "message": "of two"})
    with fake_console(fleet) as fake:
        page = shown(browser, fake, "log").page
        line = page.get_by_role("listitem").filter(has_text="of two")
        for name in ("r-a", "r-b"):
            link = line.get_by_role("link", name=name, exact=True)
            expect(link).to_have_attribute("href", f"#/log?request={name}")


@pytest.mark.parametrize("size", [WIDE, (961, 860), NARROW, (360, 800)])
def test_figures_stay_in_their_columns_however_long_they_are(
    browser: Browser, size: tuple[int, int]
) -> None:
    fleet = Fleet.of(3)
    for points in fleet.series.values():
        for point in points:
            point[1:] = [100_000_000, 12_345_678, 3580 * 24 + 3540, 360_000]
    with fake_console(fleet) as fake:
        page = shown(browser, fake, "agents", size=size).page
        expect(page.get_by_text("4 d 4 h").first).to_be_visible()
        wide = page.evaluate(
            "[...document.querySelectorAll('.agent-row .figure *, .agent-row .row-queue')].filter("
            "(each) => each.getBoundingClientRect().right > each.closest('.row-line, .agent-row')"
            ".getBoundingClientRect().right + 1 || each.scrollWidth > each.clientWidth + 1 && "
            "each.clientWidth).map((each) => each.outerHTML)"
        )
        assert wide == []
        lines = "[...document.querySelectorAll('.agent-row .figure > *')].filter((each) => "
        lines += "each.getClientRects().length > 1).map((each) => each.textContent)"
        assert page.evaluate(lines) == []


def in_page(page: Page, module: str, expression: str) -> Any:
    """The value of an expression of what a module of the page exports, `m`."""
    return page.evaluate(f"import('/console/page/{module}').then((m) => {expression})")


def test_schemas_become_forms_or_else_nothing(browser: Browser, few: FakeConsole) -> None:
    page = shown(browser, few, "log").page
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


def test_ages_are_reckoned_by_the_gateways_clock(browser: Browser, few: FakeConsole) -> None:
    page = shown(browser, few, "log").page
    ahead = (
        "(m.learn(new Date(Date.now() + 3600e3).toUTCString()), [m.now() - Date.now() / 1000, "
        "m.learn(new Date().toUTCString()), m.now() - Date.now() / 1000])"
    )
    hour, _, none = in_page(page, "clock.js", ahead)
    assert 3590 < hour < 3610
    assert abs(none) < 3
