"""Where no control group can be had, the gateway itself holds a worker to its memory, and its
priority down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from gateway.agents.supervisor import AgentSupervisor
from gateway.call import Call
from gateway.config import AgentSettings, SandboxSettings, Workers
from gateway.errors import ShuttingDown, WorkerCrashed
from gateway.exchange import Exchange
from gateway.sandbox import make, make_launcher
from gateway.sandbox.limits.cgroups import Cgroups
from gateway.workers import priority
from gateway.workers.memory import proportional_bytes, resident_bytes
from tests.sandbox.users import need_sandbox

AGENT = """
import ctypes, errno, json, os, sys, time
from multiprocessing.shared_memory import SharedMemory
held = []
def take(count):
    for _ in range(count):
        held.append(bytearray(b"x") * (1 << 20))
for line in sys.stdin:
    request = json.loads(line)
    wish, count = request["params"]["input"]
    if wish == "take":
        take(count)
    elif wish == "children":  # each a part, and none of them the whole
        for _ in range(4):
            if os.fork() == 0:
                take(count // 4)
                time.sleep(3600)
    elif wish == "share":  # what forked children share counts once
        take(count)
        for _ in range(4):
            if os.fork() == 0:
                time.sleep(3600)
    elif wish == "spin":
        for _ in range(count):
            if os.fork() == 0:
                while True:
                    pass
    output = os.getpid()
    if wish == "unmapped":  # what nobody has mapped
        output = []
        try:
            os.write(os.memfd_create("held"), bytes(count << 20))
            output.append("memory file")
        except OSError as error:
            output.append(errno.errorcode[error.errno])
        libc = ctypes.CDLL(None, use_errno=True)
        segment = libc.shmget(0, ctypes.c_size_t(count << 20), 0o1600)
        output.append("segment" if segment >= 0 else errno.errorcode[ctypes.get_errno()])
    elif wish == "named":
        memory = SharedMemory(create=True, size=count << 20)
        memory.buf[:4] = b"here"
        again = SharedMemory(memory.name)
        output = bytes(again.buf[:4]).decode()
        memory.unlink()
    print(json.dumps({"id": request["id"], "result": {"output": output}}), flush=True)
    if wish == "children":
        time.sleep(3600)
"""


@asynccontextmanager
async def agent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, memory: str
) -> AsyncIterator[AgentSupervisor]:
    need_sandbox("root" if os.geteuid() == 0 else "user")
    none = Cgroups(2, {}, {"memory": "no group", "cpu": "no group"})
    monkeypatch.setattr(make, "find_cgroups", lambda: none)
    os.chmod(folder, 0o755)
    program = folder / "agent.py"
    program.write_text(AGENT)
    settings = SandboxSettings(memory=memory)
    launcher = make_launcher(
        "agent", [sys.executable, str(program)], settings, environ=os.environ, cwd=str(folder)
    )
    it = AgentSupervisor(
        "agent", AgentSettings(command="x", workers=Workers(min=0, max=1)), launcher
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(it.run)
            yield it
            it.stop(ShuttingDown("the test has ended"))
    finally:
        launcher.close()


async def ask(it: AgentSupervisor, wish: str, count: int = 0) -> Exchange:
    payload = f'["{wish}", {count}]'.encode()
    call = Call(agent="agent", method="invoke", payload=payload, stream=False, request_id="r")
    exchange = it.submit(call)
    with trio.fail_after(30):
        await exchange.collect()
    it.leave(exchange)
    return exchange


def output(exchange: Exchange) -> object:
    assert exchange.result is not None
    return msgspec.json.decode(exchange.result)


async def test_a_worker_that_takes_too_much_is_ended_with_its_limits_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with agent(monkeypatch, tmp_path, "64M") as it:
        assert (await ask(it, "take", 20)).error is None
        error = (await ask(it, "take", 4000)).error
        assert isinstance(error, WorkerCrashed)
        assert error.details["limit"] == "memory"
        assert error.details["setting"] in error.message
        assert (await ask(it, "take", 1)).error is None, "its successor serves"


async def test_without_the_limit_the_same_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The control of these tests: what is taken can be had, and it is the watch that ends it."""
    async with agent(monkeypatch, tmp_path, "0") as it:
        assert (await ask(it, "take", 400)).error is None
        assert (await ask(it, "children", 400)).error is None
        assert (await it.status()).last_failure is None


async def test_all_processes_of_a_worker_count_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with agent(monkeypatch, tmp_path, "128M") as it:
        first = await ask(it, "children", 400)
        assert first.error is None
        with trio.fail_after(30):
            while (await it.status()).last_failure is None:
                await ask(it, "take")  # waits for the worker that sleeps, and is lost with it
        last = (await it.status()).last_failure
        assert last is not None
        assert "sandbox.memory" in last.message


@pytest.mark.parametrize(
    ("memory", "had"),
    [("256M", ["ENOSYS", "ENOSYS"]), ("0", ["memory file", "segment"])],
    ids=["watched", "without a limit"],
)
async def test_what_the_watch_could_not_see_cannot_be_had_where_it_holds_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, memory: str, had: list[str]
) -> None:
    async with agent(monkeypatch, tmp_path, memory) as it:
        assert output(await ask(it, "unmapped", 1)) == had
        assert output(await ask(it, "named", 1)) == "here", "a file in /dev/shm, which has a size"


async def test_what_a_workers_processes_share_counts_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with agent(monkeypatch, tmp_path, "256M") as it:
        first = await ask(it, "share", 100)  # 500 MiB if it counted for each
        assert first.error is None
        (worker,) = (await it.status()).workers
        assert worker.memory > 256 << 20
        assert proportional_bytes(worker.pid) < 256 << 20
        assert (await ask(it, "share", 0)).result == first.result, "the same worker"


async def test_a_worker_that_keeps_many_processes_busy_gets_a_lower_priority_and_serves_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(priority, "WATCH_SECONDS", 0.05)
    async with agent(monkeypatch, tmp_path, "256M") as it:
        first = await ask(it, "spin", 2 + len(os.sched_getaffinity(0)))
        assert first.error is None
        with trio.fail_after(60):
            while "threads busy: its priority is lowered (nice " not in caplog.text:
                await ask(it, "take")
        assert (await ask(it, "take")).result == first.result, "the same worker"


def test_memory_of_what_has_ended_is_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert resident_bytes(process.pid) == proportional_bytes(process.pid) == 0
    assert resident_bytes(None) == 0
