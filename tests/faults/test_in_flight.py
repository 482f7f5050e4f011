"""Faults with several requests in flight on one worker: each request has its own single outcome."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import trio

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


async def test_a_crash_ends_every_request_that_its_worker_had_once_each(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("hold.py")) as gateway:
        worker = await served_by(gateway, "bad")
        before = footprint(gateway)
        answers: list[httpx.Response] = []

        async def hold(client: httpx.AsyncClient) -> None:
            answers.append(await ask(gateway, "bad", "hold", client=client))

        close = {"connection": "close"}
        async with (
            httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=close) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(20):
                nursery.start_soon(hold, client)
            await gateway.logged("holds 20$|holds 20 ")
            await served_by(gateway, "good")
            answers.append(await ask(gateway, "bad", "crash", client=client))
        errors = [error_of(answer, 501, "worker_crashed") for answer in answers]
        assert len({error["request_id"] for error in errors}) == 21
        assert all((e["exit_status"], e["output_begun"]) == (3, False) for e in errors)
        assert await served_by(gateway, "bad") != worker
        assert (await gateway.state("bad"))["in_flight"] == 0
        await back_to(gateway, before)


async def test_requests_that_a_killed_worker_cannot_have_read_are_served_by_another(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("line_by_line.py")) as gateway:
        worker = await served_by(gateway, "bad")
        before = footprint(gateway)
        close = {"connection": "close"}
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=close) as client:
            crashed: list[httpx.Response] = []
            served: list[httpx.Response] = []

            async def provoke() -> None:
                crashed.append(await ask(gateway, "bad", FAULT, client=client))

            async def hope(nonce: int) -> None:
                answer = await ask(gateway, "bad", nonce, client=client)
                assert answer.status_code == 200, answer.text
                assert answer.json()["output"]["input"] == nonce
                served.append(answer)

            pid = await worker_pid(gateway, "bad")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(provoke)
                await gateway.logged("works for ever")
                for nonce in range(6):
                    nursery.start_soon(hope, nonce)
                await until_state(gateway, "bad", lambda state: state["in_flight"] == 7)
                os.kill(pid, signal.SIGKILL)
        error = error_of(*crashed, 501, "worker_crashed")
        assert (error["signal"], error["output_begun"]) == ("SIGKILL", False)
        assert len(served) == 6
        assert {answer.json()["output"]["worker"] for answer in served}.isdisjoint({worker})
        await back_to(gateway, before)


async def test_a_request_whose_answer_has_begun_is_given_to_no_other_worker(
    level: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, level=level, bad=agent("answer_unread.py")) as gateway:
        request = {"input": "hello", "stream": True}
        answer = await gateway.client.post("/agent/bad/invoke", json=request)
        assert answer.text.count("a guess") == 1
        error = json.loads(answer.text.rpartition("event: error\ndata: ")[2])["error"]
        assert (error["type"], error["output_begun"]) == ("worker_crashed", True)
        error = error_of(await ask(gateway, "bad", "hello"), 501, "worker_crashed")
        assert (error["exit_status"], error["output_begun"]) == (3, True)


async def test_a_request_that_was_read_is_given_to_nobody_else_whatever_its_pipe_holds(
    tmp_path: Path,
) -> None:
    """A second worker would be sent the request without its input, and fail differently."""
    async with scene(tmp_path, level="off", bad=agent("refill_stdin.py")) as gateway:
        error = error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        assert (error["exit_status"], error["output_begun"]) == (3, False)
        await served_by(gateway, "bad")


async def test_an_answer_under_the_id_of_another_request_reaches_nobody(tmp_path: Path) -> None:
    # The first request waits until the second has come; only that is to run out of time.
    bad = agent("other_id.py", clocks={"first": 2, "cancel": 0.2, "stop": 0.2})
    async with scene(tmp_path, bad=bad) as gateway:
        answers: dict[str, httpx.Response] = {}

        async def request(nonce: str) -> None:
            answers[nonce] = await ask(gateway, "bad", nonce)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(request, "first")
            await gateway.logged("has the first")
            nursery.start_soon(request, "second")
        assert answers["first"].json()["output"]["input"] == "first"
        error = error_of(answers["second"], 504, "timeout")
        assert (error["clock"], error["output_begun"]) == ("first", False)
        await gateway.logged("protocol violation: .*has ended")


async def test_a_request_that_can_be_placed_fails_alone_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    """The malformed line names its request; the other requests on the worker are answered."""
    async with scene(tmp_path, bad=agent("hold.py")) as gateway:
        answers: list[httpx.Response] = []

        async def hold() -> None:
            answers.append(await ask(gateway, "bad", "hold"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await gateway.logged("holds 1")
            error_of(await ask(gateway, "bad", "malformed"), 502, "invalid_agent_response")
            await served_by(gateway, "bad", "answer all")
        [answer] = answers
        assert answer.json()["output"]["input"] == "hold"
