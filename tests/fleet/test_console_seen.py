"""A fleet as a person sees it, in the console of a front in a real browser."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import expect

from tests.browser import Tab, chromium, needs_chromium
from tests.fleet.fleets import Fleet, a_fleet
from tests.fleet.nats import needs_nats
from tests.http.conftest import SCRIPTED

pytestmark = [needs_chromium, needs_nats]


@contextmanager
def fleet_in_thread(folder: Path) -> Iterator[tuple[Fleet, Callable[..., Any]]]:
    """A fleet, and how to have an async function run where it runs: Playwright has this thread."""
    started: queue.Queue[tuple[Fleet, trio.lowlevel.TrioToken, trio.Event] | None] = queue.Queue()

    async def serve() -> None:
        # On the loopback: browsers complain of pages that come from elsewhere without TLS.
        agents = {"scripted": [*SCRIPTED, "invoke"]}
        async with a_fleet(folder, agents, machines=False) as fleet:
            ended = trio.Event()
            started.put((fleet, trio.lowlevel.current_trio_token(), ended))
            await ended.wait()

    def run() -> None:
        try:
            trio.run(serve)
        finally:
            started.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found = started.get()
        assert found is not None, "the fleet has not come up"
        fleet, token, ended = found
        try:
            yield fleet, partial(trio.from_thread.run, trio_token=token)
        finally:
            trio.from_thread.run_sync(ended.set, trio_token=token)
    finally:
        thread.join()


def test_a_host_is_seen_to_drain_to_go_and_to_come_back(tmp_path: Path) -> None:
    with fleet_in_thread(tmp_path) as (fleet, run), chromium() as browser:
        one = fleet.hosts["one"]
        tab = Tab(browser, f"{str(fleet.front.client.base_url).rstrip('/')}/console")
        page = tab.page
        page.get_by_role("link", name="Fleet", exact=True).click()
        rows = page.get_by_role("list", name="Hosts").get_by_role("listitem")
        expect(rows).to_have_count(2)
        row = rows.filter(has=page.get_by_role("heading", name="one", exact=True))
        badge = row.locator(".host-head .badge")
        expect(badge).to_have_text("serving")
        expect(page.get_by_text("This front is connected to NATS.")).to_be_visible()
        script = {"input": [["say", "a"], ["hold"]]}

        async def hold(done: list[trio.CancelScope]) -> None:
            async with trio.open_nursery() as nursery:
                done.append(nursery.cancel_scope)
                for _ in range(2):
                    nursery.start_soon(
                        partial(fleet.front.client.post, "/agent/scripted/invoke", json=script)
                    )

        scopes: list[trio.CancelScope] = []
        holding = threading.Thread(target=run, args=(hold, scopes))
        holding.start()
        expect(row.locator(".load-words").first).to_contain_text("1 of ")
        ending = threading.Thread(target=run, args=(one.end,))
        ending.start()
        expect(badge).to_have_text("draining")
        expect(page.locator("#said")).to_contain_text("draining: one")

        async def let_go() -> None:
            scopes[0].cancel()

        run(let_go)
        holding.join()
        ending.join()
        expect(rows).to_have_count(1)
        run(one.start)
        expect(badge).to_have_text("serving")
        run(one.kill)
        expect(badge).to_have_text("away")
        run(one.start)
        expect(badge).to_have_text("serving")
        row.get_by_role("link", name="scripted").click()
        workers = page.get_by_role("region", name="Table of the workers")
        expect(workers.get_by_role("cell", name="two").first).to_be_visible()
        assert tab.complaints == []
