"""Faults after the answer, and faults while no answer is awaited."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.agents.wire import FAULT
from tests.faults.scene import (
    agent,
    ask,
    back_to,
    error_of,
    footprint,
    scene,
    served_by,
    until_state,
    worker_pid,
)
from tests.harness import gone


@pytest.mark.parametrize("script", ["exit_after_result.py", "two_results.py", "chunk_after_end.py"])
async def test_what_a_worker_does_after_its_answer_costs_the_worker_and_no_request(
    script: str, level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent(script, clocks={"stop": 0.5})) as gateway:
        await served_by(gateway, "bad")
        neighbour = await served_by(gateway, "good")
        before = footprint(gateway)
        for _ in range(4):
            pid = await worker_pid(gateway, "bad")
            worker = await served_by(gateway, "bad", FAULT)
            # Asked at once: another worker serves it, even if the one that ends was given it.
            assert await served_by(gateway, "bad", "after that") != worker
            assert await gone(pid)
        status, events = await gateway.stream("/agent/bad/invoke", input=FAULT)
        assert (status, events[1:]) == (200, ["[DONE]"])
        assert await served_by(gateway, "good") == neighbour
        await served_by(gateway, "bad")
        await back_to(gateway, before)


async def test_a_flood_after_the_answer_ends_the_worker_and_is_not_logged_line_by_line(
    level: str, tmp_path: Path
) -> None:
    bad = agent("flood_stdout.py", "after", clocks={"stop": 1})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "good")
        worker = await served_by(gateway, "bad", FAULT)
        # The worker reads nothing more: a request given to it before the flood waits for a clock.
        await gateway.logged("protocol violation")
        assert await served_by(gateway, "bad", "after that") != worker
        await served_by(gateway, "good")
        assert len(gateway.log) < 100, gateway.log[:100]


async def test_a_request_that_meets_a_closed_stdin_goes_to_another_worker(
    level: str, tmp_path: Path
) -> None:
    async with scene(
        tmp_path, level=level, bad=agent("close_stdin.py", clocks={"stop": 0.3})
    ) as gateway:
        await served_by(gateway, "bad")
        before = footprint(gateway)
        for _ in range(3):
            worker = await served_by(gateway, "bad", FAULT)
            assert await served_by(gateway, "bad", "after that") != worker
        await gateway.logged("it closed its stdin")
        await back_to(gateway, before)


async def test_a_worker_that_never_reads_costs_each_request_its_clock(
    level: str, tmp_path: Path
) -> None:
    bad = agent("never_read.py", clocks={"first": 0.3, "cancel": 0.2, "stop": 0.3})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "good")
        for wish in ("small", "x" * 1_000_000):  # within a pipe, and far beyond one
            pid = await worker_pid(gateway, "bad")
            error = error_of(await ask(gateway, "bad", wish), 504, "timeout")
            assert (error["clock"], error["output_begun"]) == ("first", False)
            assert error["elapsed"] >= 0.3
            assert await gone(pid)
            await served_by(gateway, "good")


async def test_a_worker_that_is_killed_while_idle_is_replaced_without_anybody_asking(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("echo.py")) as gateway:
        worker = await served_by(gateway, "bad")
        before = footprint(gateway)
        pid = await worker_pid(gateway, "bad")
        os.kill(pid, signal.SIGKILL)
        assert await gone(pid)
        state = await until_state(
            gateway, "bad", lambda state: bool(state["failures"]) and state["state"] == "ready"
        )
        assert state["last_failure"]["pid"] == pid
        assert await served_by(gateway, "bad") != worker
        await back_to(gateway, before)
