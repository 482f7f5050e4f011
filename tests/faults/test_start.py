"""Faults at the start: workers that exit before `ready`, are never ready, or cannot be spawned."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.agents.supervisor import AgentSupervisor
from gateway.call import Call
from gateway.config import AgentSettings, Workers
from gateway.errors import WorkerCrashed
from gateway.sandbox.plain import PlainLauncher
from tests.faults.scene import (
    PATIENCE,
    agent,
    ask,
    back_to,
    error_of,
    footprint,
    make_fifo,
    only_worker,
    pause,
    scene,
    served_by,
    shared,
    until_state,
)
from tests.harness import gone, python_agent

ON_DEMAND = {"min": 0}
"""No worker is started before the test's request."""


async def test_a_worker_that_exits_before_it_is_ready_fails_its_request_at_once(
    level: str, tmp_path: Path
) -> None:
    bad = agent("exit_before_ready.py", workers=ON_DEMAND)
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "good")
        before = footprint(gateway)
        error = error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        assert (error["exit_status"], error["output_begun"]) == (3, False)
        assert error["message"] == "the worker exited with status 3"
        log = await gateway.logged(r"worker ended: .*status 3")
        assert "about to exit before ready" in log, "the last lines of stderr stand in the entry"
        await served_by(gateway, "good")
        await back_to(gateway, before)


async def test_after_too_many_failures_requests_are_refused_until_one_probe_succeeds(
    tmp_path: Path,
) -> None:
    broken = shared(tmp_path) / "broken"
    broken.touch()
    restart = {"backoff": 0.01, "failures": 4, "cooldown": 0.5}
    bad = agent("exit_before_ready.py", broken, workers=ON_DEMAND, restart=restart)
    async with scene(tmp_path, bad=bad) as gateway:
        # Each of these is given to two workers, because the first cannot have read it.
        error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        answer = await ask(gateway, "bad")
        error = error_of(answer, 503, "agent_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "the worker exited with status 3" in error["message"]
        assert (await gateway.state("bad"))["state"] == "open"
        assert (await gateway.client.get("/ready")).status_code == 200, "the other can serve"
        assert (await gateway.client.get("/agent/bad/health")).status_code == 503
        assert (await gateway.client.get("/agent/good/health")).status_code == 200
        await served_by(gateway, "good")

        # A probe that fails opens the breaker again, one that succeeds closes it.
        with trio.fail_after(PATIENCE):
            while (await gateway.state("bad"))["failures"] < 5:
                error_of(await ask(gateway, "bad"), 503, "agent_unavailable")
        assert (await gateway.state("bad"))["failures"] == 5, "a probe is given to one worker"
        error_of(await ask(gateway, "bad"), 503, "agent_unavailable")
        broken.unlink()
        with trio.fail_after(PATIENCE):
            while (await ask(gateway, "bad", "hello")).status_code == 503:
                await pause()
        assert (await gateway.state("bad"))["state"] == "ready"
        assert (await gateway.client.get("/ready")).status_code == 200


async def test_an_agent_that_cannot_start_stops_neither_the_gateway_nor_the_others(
    tmp_path: Path,
) -> None:
    restart = {"backoff": 0.01, "failures": 3, "cooldown": 60}
    bad = agent("exit_before_ready.py", restart=restart)
    async with scene(tmp_path, bad=bad) as gateway:
        await until_state(gateway, "bad", lambda state: state["state"] == "open")
        await served_by(gateway, "good")
        state = await gateway.state("bad")
        assert state["failures"] == 3, "no process is started while the breaker is open"
        assert state["last_failure"]["message"] == "the worker exited with status 3"
        assert state["workers"] == []


async def test_a_worker_that_is_never_ready_runs_into_the_start_clock_and_is_replaced(
    level: str, tmp_path: Path
) -> None:
    bad = agent("never_ready.py", clocks={"start": 0.3, "stop": 0.2})
    async with scene(tmp_path, level=level, bad=bad) as gateway:
        await served_by(gateway, "good")
        state = await until_state(gateway, "bad", lambda state: bool(state["workers"]))
        pid = only_worker(state)["pid"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served_by, gateway, "good")
            error = error_of(await ask(gateway, "bad"), 504, "timeout")
        assert (error["clock"], error["output_begun"]) == ("start", False)
        assert error["elapsed"] >= 0.3
        assert await gone(pid)
        await gateway.logged(r"504 timeout: .*'start' clock of 0.3 s")


async def test_a_request_waits_for_a_worker_that_starts_slowly(level: str, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    slow = agent("slow_start.py", fifo)
    async with scene(tmp_path, level=level, slow=slow) as gateway:
        await gateway.logged("waiting at the FIFO")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served_by, gateway, "slow")
            await until_state(gateway, "slow", lambda state: state["in_flight"] == 1)
            await served_by(gateway, "good")
            assert (await gateway.client.get("/ready")).status_code == 200
            await trio.to_thread.run_sync(fifo.write_text, "go")
        assert (await gateway.state("slow"))["failures"] == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Path.unlink, "command not found"),
        (lambda program: program.chmod(0o644), "may not be executed"),
    ],
    ids=["ENOENT", "EACCES"],
)
async def test_a_command_that_can_no_longer_be_started_is_a_crash_that_says_why(
    spoil: Any, says: str, tmp_path: Path
) -> None:
    program = shared(tmp_path) / "program"
    program.symlink_to(sys.executable)
    if spoil is not Path.unlink:
        program.unlink()
        shutil.copy("/bin/cat", program)
    bad = {"command": [str(program), "x"], "workers": {"min": 0, "max": 1}}
    async with scene(tmp_path, level="off", bad=bad) as gateway:
        await served_by(gateway, "good")
        before = footprint(gateway)
        spoil(program)
        error = error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        assert error["message"].startswith("the worker could not be started: ")
        assert says in error["message"]
        assert str(program) in error["message"]
        await served_by(gateway, "good")
        await back_to(gateway, before)


async def test_without_descriptors_no_worker_starts_and_with_them_again_one_does(
    tmp_path: Path,
) -> None:
    """The kernel refuses with EMFILE."""
    bad = agent("echo.py", workers=ON_DEMAND)
    async with scene(tmp_path, bad=bad) as gateway:
        neighbour = await served_by(gateway, "good")
        before = footprint(gateway)
        # Two more than there are: not enough for the six ends of three pipes.
        _, hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        few = before[1].total() + 2
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (few, hard))
        error = error_of(await ask(gateway, "bad"), 501, "worker_crashed")
        assert "could not" in error["message"]
        assert os.strerror(errno.EMFILE) in error["message"]
        assert await served_by(gateway, "good") == neighbour
        assert footprint(gateway) == before
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (hard, hard))
        await served_by(gateway, "bad")


async def test_a_fork_that_is_refused_is_a_crash_that_says_why_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EAGAIN, which root never gets from the kernel: a fork that fails stands for it."""
    argv = tuple(python_agent("echo.py"))
    settings = AgentSettings(command=list(argv), workers=Workers(min=0, max=1))
    supervisor = AgentSupervisor("bad", settings, PlainLauncher(argv, dict(os.environ)))
    call = Call(agent="bad", method="invoke", payload=b"1", stream=False, request_id="r")

    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.warm_up()
        before = os.listdir("/proc/self/fd")
        with monkeypatch.context() as patch:
            patch.setattr(subprocess.Popen, "_execute_child", refuse)
            exchange = supervisor.submit(call)
            assert await exchange.collect() == []
            supervisor.leave(exchange)
        crash = exchange.error
        assert isinstance(crash, WorkerCrashed)
        assert os.strerror(errno.EAGAIN) in crash.message
        assert crash.status == 501
        assert os.listdir("/proc/self/fd") == before
        assert (await supervisor.status()).workers == []

        exchange = supervisor.submit(call)
        await exchange.collect()
        supervisor.leave(exchange)
        assert b'"input": 1' in (exchange.result or b"")
        nursery.cancel_scope.cancel()
