"""The end of a turn of the event loop."""

from __future__ import annotations

import math

import pytest
import trio

from gateway import turns


async def test_without_turns_nothing_is_called_later() -> None:
    assert not turns.at_end(lambda: pytest.fail("called"))
    await trio.lowlevel.checkpoint()


async def test_functions_are_called_between_two_turns_in_order() -> None:
    called = []

    def first() -> None:
        called.append("first")
        turns.at_end(lambda: called.append("third"))

    with turns.kept():
        assert turns.at_end(first)
        assert turns.at_end(lambda: called.append("second"))
        assert not called
        await trio.lowlevel.checkpoint()
        assert called == ["first", "second", "third"]


async def test_what_a_function_asks_for_soon_ends_a_wait_that_has_no_end() -> None:
    with turns.kept(), trio.CancelScope() as scope:
        turns.at_end(lambda: turns.soon(scope.cancel))
        await trio.sleep(math.inf)
    assert scope.cancelled_caught


async def test_a_defect_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called = []

    def fail() -> None:
        raise ValueError("a defect")

    with turns.kept():
        turns.at_end(fail)
        turns.at_end(lambda: called.append("once"))
        await trio.lowlevel.checkpoint()
        turns.at_end(lambda: called.append("twice"))
        await trio.lowlevel.checkpoint()
    assert called == ["once", "twice"]
    assert "a defect" in caplog.text


async def test_what_waits_at_the_end_of_all_turns_is_called() -> None:
    called = []
    with turns.kept():
        turns.at_end(lambda: called.append("last"))
    assert called == ["last"]
    assert not turns.at_end(lambda: None)
