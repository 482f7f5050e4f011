"""Ends of the gateway, and what is left then: nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
import trio

from tests.faults.scene import (
    PATIENCE,
    agent,
    ask,
    error_of,
    make_fifo,
    open_request,
    read_until,
    scene,
    send_signal,
    served_by,
    until_state,
    worker_pid,
)
from tests.harness import RunningGateway, descendants, gone

QUICK = {"stop": 0.3}


async def exited(gateway: RunningGateway) -> int:
    with trio.fail_after(PATIENCE):
        return await gateway.process.wait()


@pytest.mark.parametrize("script", ["stubborn.py", "never_read.py", "never_ready.py"])
async def test_a_worker_that_ignores_every_step_but_the_last_is_ended_by_it(
    script: str, level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent(script, clocks=QUICK)) as gateway:
        await served_by(gateway, "good")
        if script != "never_ready.py":
            await worker_pid(gateway, "bad")
        workers = gateway.processes()
        assert len(workers) >= 2
        send_signal(gateway, signal.SIGTERM)
        assert await exited(gateway) == 0
        for pid in workers:
            assert await gone(pid)


async def test_a_stopped_worker_is_ended_with_the_gateway(level: str, tmp_path: Path) -> None:
    bad = agent("stop_itself.py", clocks={**QUICK, "first": 60})
    async with (
        scene(tmp_path, level=level, bad=bad, server={"drain": 0.2}) as gateway,
        trio.open_nursery() as nursery,
    ):
        pid = await worker_pid(gateway, "bad")
        answers: list[httpx.Response] = []

        async def provoke() -> None:
            answers.append(await ask(gateway, "bad"))

        nursery.start_soon(provoke)
        await until_state(gateway, "bad", lambda state: state["in_flight"] == 1)
        send_signal(gateway, signal.SIGTERM)
        assert await exited(gateway) == 0
        assert await gone(pid)
    error_of(answers[0], 503, "shutting_down")


@pytest.mark.parametrize("argument", ["", "flood"])
async def test_a_grandchild_with_a_session_of_its_own_does_not_outlive_its_worker(
    argument: str, level: str, tmp_path: Path
) -> None:
    arguments = [argument] if argument else []
    bad = agent("grandchild.py", *arguments, clocks=QUICK)
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "bad")
        await gateway.logged("the grandchild lives")
        pid = await worker_pid(gateway, "bad")
        neighbour = await worker_pid(gateway, "good")
        family = gateway.processes() - {neighbour, *descendants(neighbour)}
        assert family > {pid}, "the grandchild is among them"
        os.kill(pid, signal.SIGKILL)
        for member in family:
            assert await gone(member)
        # The worker that took its place has one, too: it ends with the gateway.
        await served_by(gateway, "bad")


async def test_a_drain_refuses_what_is_new_and_lets_what_runs_finish(
    level: str, tmp_path: Path
) -> None:
    fifo = make_fifo(tmp_path)
    words = agent("words.py", fifo, workers={"max": 2})
    async with scene(
        tmp_path, level=level, words=words, hold=agent("hold.py"), server={"drain": 30}
    ) as gateway:
        await served_by(gateway, "good")
        async with (
            open_request(gateway, "words", "fault", stream=True) as stream,
            open_request(gateway, "hold", "hold") as held,
        ):
            await gateway.logged("holds 1")
            with await trio.to_thread.run_sync(lambda: fifo.open("w")) as pipe:
                pipe.write("before\n")
                pipe.flush()
                await read_until(stream, b"before")
                send_signal(gateway, signal.SIGTERM)
                await gateway.logged("SIGTERM: draining")
                assert (await gateway.client.get("/ready")).status_code == 503
                assert (await gateway.client.get("/live")).status_code == 200
                answer = await ask(gateway, "good")
                error_of(answer, 503, "shutting_down")
                assert int(answer.headers["retry-after"]) >= 1
                assert (await gateway.state("hold"))["state"] == "draining"
                assert gateway.process.returncode is None
                pipe.write("after\n")
            assert b"after" in await read_until(stream, b"[DONE]")
            # One that cannot finish by itself: its client leaves.
            await held.aclose()
            assert await exited(gateway) == 0


async def test_a_drain_that_takes_too_long_ends_streams_with_an_error_event(
    tmp_path: Path,
) -> None:
    fifo = make_fifo(tmp_path)
    words = agent("words.py", fifo, clocks=QUICK)
    async with (
        scene(
            tmp_path, words=words, hold=agent("hold.py", clocks=QUICK), server={"drain": 0.3}
        ) as gateway,
        open_request(gateway, "words", "fault", stream=True) as stream,
        open_request(gateway, "hold", "hold") as held,
    ):
        await gateway.logged("holds 1")
        with await trio.to_thread.run_sync(lambda: fifo.open("w")) as pipe:
            pipe.write("word\n")
            pipe.flush()
            await read_until(stream, b"word")
            send_signal(gateway, signal.SIGTERM)
            data = await read_until(stream, b"}}")
            assert b'event: error\ndata: {"error":{"type":"shutting_down"' in data
            assert b'"output_begun":true' in data
            data = await read_until(held, b"}}")
            assert data.startswith(b"HTTP/1.1 503 ")
            assert b"shutting_down" in data
            assert await exited(gateway) == 0


async def test_a_second_signal_ends_everything_at_once(level: str, tmp_path: Path) -> None:
    """With clocks of an hour: nothing that this test waits for comes from one of them."""
    hour = {"stop": 3600, "first": 3600}
    async with scene(
        tmp_path,
        level=level,
        stubborn=agent("stubborn.py", clocks=hour),
        hold=agent("hold.py", clocks=hour),
        server={"drain": 3600},
        expect_exit=128 + signal.SIGINT,
    ) as gateway:
        await served_by(gateway, "stubborn")
        async with open_request(gateway, "hold", "hold"):
            await gateway.logged("holds 1")
            processes = gateway.processes()
            send_signal(gateway, signal.SIGTERM)
            await gateway.logged("SIGTERM: draining")
            send_signal(gateway, signal.SIGINT)
            assert await exited(gateway) == 128 + signal.SIGINT
            for pid in processes:
                assert await gone(pid)


async def test_workers_end_with_a_gateway_that_is_killed(level: str, tmp_path: Path) -> None:
    """By the end of stdin at the latest; `stubborn`, which ignores that, by the parent's death."""
    async with scene(
        tmp_path, level=level, stubborn=agent("stubborn.py"), expect_exit=-signal.SIGKILL
    ) as gateway:
        await served_by(gateway, "good")
        await served_by(gateway, "stubborn")
        processes = gateway.processes()
        assert len(processes) >= 2
        send_signal(gateway, signal.SIGKILL)
        await exited(gateway)
        for pid in processes:
            assert await gone(pid)
