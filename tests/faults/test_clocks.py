"""Every clock that ends a request: its name and the elapsed time are in the answer and the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.faults.scene import (
    agent,
    ask,
    back_to,
    error_of,
    footprint,
    make_fifo,
    only_worker,
    open_request,
    read_until,
    scene,
    served_by,
    until_state,
    worker_pid,
)
from tests.faults.test_table import error_of_stream
from tests.harness import RunningGateway, gone, is_alive


def assert_ran_out(error: dict[str, Any], clock: str, limit: float) -> None:
    assert error["clock"] == clock
    assert error["elapsed"] >= limit
    assert f"{clock!r} clock of {limit:g} s" in error["message"]


async def occupy(gateway: RunningGateway, nursery: trio.Nursery, name: str) -> trio.CancelScope:
    """Have the agent's worker hold a request until the returned scope is cancelled."""
    scope = trio.CancelScope()

    async def hold() -> None:
        with scope:
            await ask(gateway, name, "hold")

    nursery.start_soon(hold)
    await gateway.logged("holds 1$|holds 1 ")
    return scope


async def test_the_queue_clock_ends_a_request_that_no_worker_takes(tmp_path: Path) -> None:
    busy = agent("hold.py", concurrency=1, clocks={"queue": 0.3})
    async with scene(tmp_path, bad=busy) as gateway, trio.open_nursery() as nursery:
        holding = await occupy(gateway, nursery, "bad")
        error = error_of(await ask(gateway, "bad", "hello"), 504, "timeout")
        assert_ran_out(error, "queue", 0.3)
        assert (await gateway.state("bad"))["waiting"] == 0
        holding.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_total_clock_ends_a_request_whatever_it_has_said(
    stream: bool, tmp_path: Path
) -> None:
    # 8 MiB take long on a loaded machine, and come before the clock.
    total = 1 if stream else 60
    bad = agent("flood_stdout.py", clocks={"total": total, "cancel": 0.2}, workers={"max": 2})
    async with scene(tmp_path, bad=bad) as gateway:
        worker = await worker_pid(gateway, "bad")
        if stream:
            async with gateway.client.stream(
                "POST", "/agent/bad/invoke", json={"input": "fault", "stream": True}
            ) as answer:
                tail = b""
                async for data in answer.aiter_bytes():
                    tail = (tail + data)[-2000:]
            assert b'event: error\ndata: {"error":{"type":"timeout"' in tail
            assert b'"clock":"total"' in tail
            assert not tail.endswith(b"[DONE]\n\n")
        else:
            # The limit on a collected answer is reached first.
            answer = await ask(gateway, "bad")
            error_of(answer, 502, "invalid_agent_response")
            assert "8388608 bytes" in answer.text
        # The worker ignores the cancel, so it is replaced after the grace period.
        assert await gone(worker)
        await served_by(gateway, "good")


async def test_a_callers_timeout_shortens_the_total_clock_and_never_lengthens_it(
    tmp_path: Path,
) -> None:
    bad = agent("hold.py", clocks={"total": 1})
    async with scene(tmp_path, bad=bad) as gateway:
        error = error_of(await ask(gateway, "bad", "hold", x_timeout="0.3"), 504, "timeout")
        assert_ran_out(error, "total", 0.3)
        error = error_of(await ask(gateway, "bad", "hold", x_timeout="30"), 504, "timeout")
        assert_ran_out(error, "total", 1)
        await gateway.logged("504 timeout: the request took longer than the 'total' clock of 0.3 s")
        for wrong in ("0", "-1", "soon", "nan", "inf"):
            error = error_of(
                await ask(gateway, "bad", "hold", x_timeout=wrong), 400, "invalid_request"
            )
            assert repr(wrong) in error["message"]


async def test_a_stream_of_steady_words_outlives_the_first_and_the_idle_clock(
    tmp_path: Path,
) -> None:
    """The stream outlasts both clocks; each word is sent when the one before was received."""
    fifo = make_fifo(tmp_path)
    words = agent("words.py", fifo, clocks={"first": 2.5, "idle": 2.5})
    async with (
        scene(tmp_path, words=words) as gateway,
        open_request(gateway, "words", "fault", stream=True) as connection,
    ):
        started = trio.current_time()
        said = 0
        with await trio.to_thread.run_sync(lambda: fifo.open("w")) as pipe:
            while trio.current_time() - started < 3:
                pipe.write("word\n")
                pipe.flush()
                said += 1
                await read_until(connection, b'data: {"chunk":"word\\n"}\n\n')
        rest = await read_until(connection, b"[DONE]")
        assert b"error" not in rest
        assert said > 3


@pytest.mark.parametrize("spoke", [False, True])
async def test_an_answer_that_is_never_flushed_is_missed_by_first_with_the_likely_cause(
    spoke: bool, tmp_path: Path
) -> None:
    """The cause is told of an agent from which no line ever came, and of no other."""
    clocks = {"start": 60, "first": 0.3, "cancel": 0.2, "stop": 0.2}
    bad = agent("never_flush.py", *(["ready"] if spoke else []), clocks=clocks)
    async with scene(tmp_path, bad=bad) as gateway:
        error = error_of(await ask(gateway, "bad", "hello"), 504, "timeout")
        assert_ran_out(error, "first", 0.3)
        assert ("in a buffer of its own; flush after each line" in error["message"]) is not spoke


async def test_the_idle_clock_ends_a_stream_that_falls_silent(tmp_path: Path) -> None:
    bad = agent("stop_itself.py", clocks={"first": 60, "idle": 0.3, "cancel": 0.2, "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        answer = await gateway.client.post(
            "/agent/bad/invoke", json={"input": "fault after a word", "stream": True}
        )
        error = error_of_stream(answer)
        assert_ran_out(error, "idle", 0.3)
        assert error["output_begun"] is True


async def test_a_clock_that_is_off_does_not_run(tmp_path: Path) -> None:
    """With `first` off and `total` short, `total` ends the request."""
    bad = agent("hold.py", clocks={"first": "off", "idle": 0, "total": 0.4})
    async with scene(tmp_path, bad=bad) as gateway:
        assert_ran_out(error_of(await ask(gateway, "bad", "hold"), 504, "timeout"), "total", 0.4)


async def test_a_worker_that_answers_after_its_cancel_is_used_again(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("hold.py")) as gateway:
        worker = await served_by(gateway, "bad")
        for _ in range(3):
            error = error_of(await ask(gateway, "bad", "hold", x_timeout="0.2"), 504, "timeout")
            assert_ran_out(error, "total", 0.2)
            await gateway.logged("was told to cancel")
            # The late answer to the cancelled request reached nobody: this one has its own input.
            assert await served_by(gateway, "bad", "after that") == worker
        state = await until_state(gateway, "bad", lambda state: state["in_flight"] == 0)
        assert state["failures"] == 0


async def test_a_worker_that_ignores_a_cancel_is_replaced_after_the_grace(
    level: str, tmp_path: Path
) -> None:
    bad = agent("hold.py", "deaf", clocks={"cancel": 1})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "good")
        worker = await served_by(gateway, "bad")
        before = footprint(gateway)
        pid = await worker_pid(gateway, "bad")
        error_of(await ask(gateway, "bad", "hold", x_timeout="0.2"), 504, "timeout")
        assert is_alive(pid), "it has its grace"
        await gateway.logged("'cancel' clock of 1 s")
        assert await gone(pid)
        assert await served_by(gateway, "bad") != worker
        await back_to(gateway, before)


async def test_a_replaced_worker_lets_its_other_requests_finish(tmp_path: Path) -> None:
    """One ignored cancel is no reason to fail the worker's other requests."""
    bad = agent("hold.py", "deaf", clocks={"cancel": 0.2}, workers={"max": 2})
    async with scene(tmp_path, bad=bad) as gateway:
        pid = await worker_pid(gateway, "bad")
        answers: list[httpx.Response] = []

        async def hold(**headers: str) -> None:
            answers.append(await ask(gateway, "bad", "hold", **headers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await gateway.logged("holds 1$|holds 1 ")
            error_of(await ask(gateway, "bad", "hold", x_timeout="0.2"), 504, "timeout")
            await gateway.logged("'cancel' clock")
            # New requests go elsewhere.
            await served_by(gateway, "bad")
            assert is_alive(pid)
            assert not answers
            os_state = await gateway.state("bad")
            assert any(w["pid"] == pid and "retiring" in w["state"] for w in os_state["workers"])
            nursery.cancel_scope.cancel()
        assert await gone(pid)


async def test_a_client_that_leaves_has_its_request_cancelled_at_the_worker(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("hold.py")) as gateway:
        worker = await served_by(gateway, "bad")
        async with open_request(gateway, "bad", "hold"):
            await gateway.logged("holds 1$|holds 1 ")
        await gateway.logged("was told to cancel")
        await until_state(gateway, "bad", lambda state: state["in_flight"] == 0)
        assert await served_by(gateway, "bad") == worker


async def test_a_client_that_leaves_is_outlived_by_its_request_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, bad=agent("hold.py", on_disconnect="continue")) as gateway:
        async with open_request(gateway, "bad", "hold"):
            await gateway.logged("holds 1$|holds 1 ")
        await served_by(gateway, "good")
        assert (await gateway.state("bad"))["in_flight"] == 1
        await served_by(gateway, "bad", "answer all")
        state = await until_state(gateway, "bad", lambda state: state["in_flight"] == 0)
        assert only_worker(state)["served"] == 2
        assert not any("was told to cancel" in line for line in gateway.log)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tmp_path: Path) -> None:
    bad = agent("hold.py", concurrency=1, queue=2)
    async with scene(tmp_path, bad=bad) as gateway, trio.open_nursery() as nursery:
        holding = await occupy(gateway, nursery, "bad")
        served: list[str] = []

        async def wait(nonce: str) -> None:
            await served_by(gateway, "bad", nonce)
            served.append(nonce)

        for nonce in ("one", "two"):
            nursery.start_soon(wait, nonce)
        await until_state(gateway, "bad", lambda state: state["waiting"] == 2)
        answer = await ask(gateway, "bad", "three")
        error_of(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        await served_by(gateway, "good")
        assert not served
        holding.cancel()
    assert sorted(served) == ["one", "two"]
