"""Shutdown of the gateway, after which nothing is left."""

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
        # The worker that replaced it has a grandchild too, which ends with the gateway.
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
            # This request cannot finish by itself, so its client leaves.
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
    """The clocks are an hour long: nothing that this test waits for comes from one of them."""
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
            await gateway.insist(signal.SIGINT)
            assert await exited(gateway) == 128 + signal.SIGINT
            for pid in processes:
                assert await gone(pid)


async def test_at_a_second_signal_every_request_has_an_outcome_that_says_why(
    level: str, tmp_path: Path
) -> None:
    hour = {"stop": 3600, "first": 3600, "queue": 3600}
    fifo = make_fifo(tmp_path)
    async with (
        scene(
            tmp_path,
            level=level,
            words=agent("words.py", fifo, clocks=hour),
            hold=agent("hold.py", clocks=hour),
            narrow=agent("hold.py", clocks=hour, concurrency=1),
            server={"drain": 3600},
            expect_exit=128 + signal.SIGTERM,
        ) as gateway,
        open_request(gateway, "words", "fault", stream=True) as begun,
        open_request(gateway, "hold", "hold") as plain,
        open_request(gateway, "hold", "hold", stream=True) as silent,
        open_request(gateway, "narrow", "hold") as first,
        open_request(gateway, "narrow", "hold") as queued,
        await trio.open_tcp_stream("127.0.0.1", gateway.port) as half_sent,
    ):
        await half_sent.send_all(
            b"POST /agent/good/invoke HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            b'content-type: application/json\r\ncontent-length: 20\r\n\r\n{"input"'
        )
        await gateway.logged("holds 2")
        await until_state(gateway, "narrow", lambda state: state["waiting"] == 1)
        with await trio.to_thread.run_sync(lambda: fifo.open("w")) as pipe:
            pipe.write("word\n")
            pipe.flush()
            await read_until(begun, b"word")
            send_signal(gateway, signal.SIGQUIT)
            await gateway.logged("SIGQUIT: draining")
            await gateway.insist(signal.SIGTERM)
            data = await read_until(begun, b"}}")
            assert b'event: error\ndata: {"error":{"type":"shutting_down"' in data
            for connection in (plain, silent, first, queued, half_sent):
                data = await read_until(connection, b"}")
                assert data.startswith(b"HTTP/1.1 503 ")
                assert b'{"error":{"type":"shutting_down"' in data
        assert await exited(gateway) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGQUIT, signal.SIGTERM),
    ],
)
async def test_signals_that_come_together_are_one_wish(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    async with (
        scene(tmp_path, hold=agent("hold.py")) as gateway,
        open_request(gateway, "hold", "hold") as held,
    ):
        await gateway.logged("holds 1")
        # Not one after the log tells of another: that takes as long as people do on a busy machine.
        for number in signals:
            send_signal(gateway, number)
        await gateway.logged("draining")
        assert (await gateway.client.get("/live")).status_code == 200
        await held.aclose()
        assert await exited(gateway) == 0


async def test_signals_for_other_purposes_do_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as gateway:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            send_signal(gateway, number)
            await served_by(gateway, "good")
        send_signal(gateway, signal.SIGQUIT)
        await gateway.logged("SIGQUIT: draining")
        assert await exited(gateway) == 0


async def test_a_hangup_that_is_to_be_ignored_is_ignored(tmp_path: Path) -> None:
    """As `nohup` starts a program."""
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with scene(tmp_path) as gateway:
            send_signal(gateway, signal.SIGHUP)
            await served_by(gateway, "good")
            send_signal(gateway, signal.SIGTERM)
            await gateway.logged("SIGTERM: draining")
            assert await exited(gateway) == 0
            assert not any("SIGHUP" in line for line in gateway.log)
    finally:
        signal.signal(signal.SIGHUP, ignored)


async def test_a_lame_duck_is_not_ready_and_serves(tmp_path: Path) -> None:
    async with scene(tmp_path, server={"lame_duck": 3600}, expect_exit=None) as gateway:
        await served_by(gateway, "good")
        assert (await gateway.client.get("/ready")).status_code == 200
        send_signal(gateway, signal.SIGTERM)
        await gateway.logged("SIGTERM: not ready any more; draining in 3600 s")
        assert (await gateway.client.get("/ready")).status_code == 503
        assert (await gateway.client.get("/health")).status_code == 200
        assert (await gateway.client.get("/live")).status_code == 200
        await served_by(gateway, "good")
        await gateway.insist(signal.SIGTERM)
        assert await exited(gateway) == 128 + signal.SIGTERM


async def test_after_the_lame_duck_comes_the_drain(tmp_path: Path) -> None:
    async with scene(tmp_path, server={"lame_duck": 0.1}) as gateway:
        await served_by(gateway, "good")
        send_signal(gateway, signal.SIGTERM)
        await gateway.logged("SIGTERM: draining$")
        assert await exited(gateway) == 0


async def test_workers_end_with_a_gateway_that_is_killed(level: str, tmp_path: Path) -> None:
    """Most end with their stdin; `stubborn` ignores that, and ends by its parent-death signal."""
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
