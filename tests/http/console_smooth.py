"""How smoothly the console's page draws thousands of workers that all change each second:
`python -m tests.http.console_smooth`.

A *long task* keeps the page's main thread for more than 50 ms, in which it answers nobody (the Long
Tasks API). The API reckons by the clock on the wall, and so counts what other processes took of the
processor meanwhile. The tests go by the thread's own time, of each of its tasks, which Chromium's
trace has; this program prints both.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

from playwright.sync_api import Browser, expect

from tests.browser import Tab, chromium
from tests.http.console_fake import FakeConsole, Fleet, cells_of, fake_console, in_pieces

LONG = 50.0
"""Milliseconds of a long task."""

_NOTED = """
    long = [];
    new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)))
        .observe({ entryTypes: ["longtask"] });
"""


class Tasks(NamedTuple):
    """Of the page's main thread, in milliseconds, the longest first."""

    own: list[float]
    """The time that the thread was running in each."""
    long: list[float]
    """The long ones on the wall's clock, as the page is told of them."""


def large_fleet() -> Fleet:
    """300 agents with 5,000 workers and more."""
    return Fleet.of(300, workers=40)


def large_agent(count: int = 4000) -> Fleet:
    """An agent with so many workers, which are ready."""
    fleet = Fleet.of(1)
    fleet.workers["billing"] = {
        str(n): [10_000 + n, "ready", 1, 3, 0, 8, 1 << 25] for n in range(count)
    }
    fleet.agents[0]["cells"] = "r" * count
    return fleet


def change_all(fake: FakeConsole, chance: random.Random) -> None:
    """Have all workers of all agents be busy or not, and tell of them."""
    changes = []
    for agent in fake.fleet.agents:
        workers = fake.fleet.workers[agent["name"]]
        for worker in workers.values():
            worker[1] = chance.choice(("ready", "busy"))
            worker[3] += 1
            worker[4] = int(worker[1] == "busy")
        agent |= {"cells": cells_of(workers), "in_flight": agent["in_flight"] + 1}
        changes.append({name: agent[name] for name in ("name", "cells", "in_flight")})
        for piece in in_pieces("workers", {"workers": workers}):
            fake.tell("workers", piece, agent["name"])
    for piece in in_pieces("agents", {"agents": changes, "removed": []}):
        fake.tell("agents", piece)


def words_of(cells: str) -> str:
    """What the page says of workers that are busy or ready."""
    counts = [
        (f"{cells.count(letter):,}", word) for letter, word in (("b", "busy"), ("r", "ready"))
    ]
    return ", ".join(f"{count} {word}" for count, word in counts if count != "0") or "none"


def tasks_of(browser: Browser, fake: FakeConsole, part: str, steps: int) -> Tasks:
    """Show a part of the page while all workers change so many times, each time as soon as the
    page has drawn the last change: more often than a gateway tells of them."""
    tab = Tab(browser, f"{fake.url}/console#/{part}", viewport={"width": 1280, "height": 860})
    page, last = tab.page, fake.fleet.agents[-1]
    shown = page.locator(f"[data-name={last['name']}], [aria-labelledby=workers-title]")
    expect(shown).to_contain_text(words_of(last["cells"]))
    page.evaluate(_NOTED)
    chance = random.Random(1)
    browser.start_tracing(
        page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"]
    )
    for _ in range(steps):
        change_all(fake, chance)
        expect(shown).to_contain_text(words_of(last["cells"]))
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    own = sorted(
        (
            each["tdur"] / 1000
            for each in events
            if each["name"] == "RunTask" and (each["pid"], each["tid"]) in main and "tdur" in each
        ),
        reverse=True,
    )
    assert tab.complaints == []
    return Tasks(own, sorted(page.evaluate("long"), reverse=True))


def main() -> None:
    with chromium() as browser:
        for name, fleet, part in (
            ("300 agents", large_fleet(), "agents"),
            ("one agent", large_agent(), "agents/billing"),
        ):
            with fake_console(fleet) as fake:
                tasks = tasks_of(browser, fake, part, steps=10)
            count = sum(len(agent["cells"]) for agent in fleet.agents)
            print(f"{name}, {count:,} workers, each changed 10 times: {len(tasks.own):,} tasks")
            print(
                f"  of the thread's own time, ms: {', '.join(f'{ms:.1f}' for ms in tasks.own[:5])}"
            )
            print(f"  longer than {LONG:.0f} ms on the wall's clock: {tasks.long or 'none'}")


if __name__ == "__main__":
    main()
