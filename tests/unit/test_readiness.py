"""Where the kernel has no room for another watch: what fails, and what goes on without."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from gateway.config import Clocks
from gateway.readiness import LOOK_SECONDS, readable, register, writable
from gateway.sandbox.launch import Launch
from gateway.workers import memory
from gateway.workers.events import Ended, Reason, WorkerEvent
from gateway.workers.process import SpawnError, spawn
from gateway.workers.stderr import StderrRelay
from gateway.workers.worker import Worker
from tests.harness import is_alive
from tests.unit.exhausted import no_watches_left
from tests.unit.workers import NoLauncher

CAT = Launch(argv=("/bin/cat",), env={})


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        os.close(end)


async def test_a_descriptor_without_a_watch_cannot_be_registered(pipe: tuple[int, int]) -> None:
    with no_watches_left(), pytest.raises(OSError, match="No space left"):
        await register(pipe[0])
    await register(pipe[0])


async def test_what_was_registered_can_be_waited_for_however_few_watches_are_left(
    pipe: tuple[int, int],
) -> None:
    await register(pipe[0])
    with no_watches_left() as full:
        os.write(pipe[1], b"x")
        await readable(pipe[0])
        await register(pipe[0])
        assert full.refused == 0


async def test_registering_waits_for_nothing_and_leaves_the_task_as_it_was(
    pipe: tuple[int, int],
) -> None:
    await register(pipe[0])
    with trio.CancelScope() as scope:
        await trio.lowlevel.checkpoint()
    assert not scope.cancelled_caught


async def test_without_a_watch_a_wait_is_a_look_after_a_moment(
    autojump_clock: MockClock, pipe: tuple[int, int]
) -> None:
    began = trio.current_time()
    with no_watches_left():
        await readable(pipe[0])
        await writable(pipe[1])
    assert trio.current_time() - began == pytest.approx(2 * LOOK_SECONDS)


async def test_any_other_error_of_a_wait_is_its_callers(pipe: tuple[int, int]) -> None:
    number = os.dup(pipe[0])
    os.close(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await readable(number)


async def test_a_process_without_watches_cannot_be_registered_and_can_be_reaped() -> None:
    with no_watches_left():
        process = spawn(CAT)
        with pytest.raises(SpawnError, match="its pipes cannot be watched: No space left"):
            await process.register()
        process.signal_group(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    process.close()


@pytest.mark.parametrize(
    "number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC]
)
def test_a_process_that_cannot_be_forked_is_a_start_that_fails(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SpawnError, match=f"could not start '/bin/cat': {os.strerror(number)}"):
        spawn(CAT)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("free", range(12))
async def test_a_start_for_which_descriptors_run_out_leaves_none(free: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    first = os.dup(0)
    os.close(first)
    failure = None
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + free, hard))
    try:
        process = spawn(CAT)
    except SpawnError as error:
        failure = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if failure is None:
        assert free > 4
        process.signal_group(signal.SIGKILL)
        await process.wait()
        process.close()
    else:
        assert "Too many open files" in failure
    assert os.listdir("/proc/self/fd") == before


async def test_a_start_without_watches_fails_alone_and_leaves_no_process() -> None:
    started: list[int] = []

    def spawn_and_note(launch: Launch) -> object:
        process = spawn(CAT)
        started.append(process.pid)
        return process

    events: list[WorkerEvent] = []
    worker = Worker(
        1,
        "a",
        NoLauncher(),
        lambda _, event: events.append(event),
        clocks=Clocks(),
        spawn=spawn_and_note,  # type: ignore[arg-type] # any process
    )
    with no_watches_left():
        await worker.run()
    [end] = events
    assert isinstance(end, Ended)
    assert end.reason is Reason.NOT_STARTED
    assert end.error is not None
    assert "could not be started: its pipes cannot be watched" in end.error.message
    assert not is_alive(started[0])


async def test_stderr_is_read_to_its_end_without_a_watch(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    os.set_blocking(pipe[0], False)
    read_end = pipe[0]
    writer = os.dup(pipe[1])
    with no_watches_left(), caplog.at_level(logging.INFO):
        async with trio.open_nursery() as nursery:
            relay = StderrRelay(read_end, dict)
            nursery.start_soon(_run_until, relay, "said it")
            os.write(writer, b"said it\n")
    os.close(writer)
    assert "said it" in caplog.text


async def _run_until(relay: StderrRelay, line: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        while line not in relay.tail:  # noqa: ASYNC110 - a relay tells of no event
            await trio.sleep(LOOK_SECONDS)
        nursery.cancel_scope.cancel()


async def test_memory_is_measured_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(memory.trio.to_thread, "run_sync", refuse)
    assert (await memory.measure_all({1: os.getpid()}))[1] > 0
    assert await memory.exceeds(os.getpid(), 1) > 1
