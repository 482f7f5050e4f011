"""What a front logs of hosts that come and go."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from gateway.fleet.front import troubles as module
from gateway.fleet.front.troubles import MOST_NAMES, MOST_NEWS, REMIND_SECONDS, Troubles
from gateway.fleet.subjects import Peer


async def test_a_host_that_starts_over_all_the_time_does_not_flood_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.clock, "now", trio.current_time)
    caplog.set_level(logging.INFO, "gateway.fleet")
    troubles = Troubles()
    for _ in range(10 * MOST_NEWS):
        troubles.news(logging.INFO, Peer.new("bad"), "a host has come")
    troubles.news(logging.INFO, Peer.new("good"), "another has come")
    assert caplog.messages == [
        *["a host has come"] * MOST_NEWS,
        f"hosts of one name come and go: more than {MOST_NEWS} times is not logged",
        "another has come",
    ]
    await trio.sleep(REMIND_SECONDS + 1)
    troubles.news(logging.INFO, Peer.new("bad"), "it has come again")
    assert caplog.messages[-1] == "it has come again"


async def test_names_are_not_remembered_without_bound() -> None:
    troubles = Troubles()
    for number in range(MOST_NAMES + 10):
        troubles.news(logging.DEBUG, Peer(f"h{number}", "0"), "a host has come")
    assert len(troubles._news) == MOST_NAMES
