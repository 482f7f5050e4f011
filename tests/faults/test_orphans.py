"""What a worker leaves behind is ended; what is another's is left alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.conftest import need
from tests.faults.scene import PATIENCE, agent, ask, error_of, pause, scene, served_by
from tests.harness import RunningGateway, gone, is_alive


class Helper:
    """What was started before the gateway, by what then became the gateway."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "helper"

    def before(self, script: str) -> list[str]:
        """A prefix for the gateway. The harness looks for its marker in what is left behind."""
        start = f'env -i {script} & echo $! > {self._file}; exec "$@"'
        return ["sh", "-c", start, "sh"]

    @property
    def pid(self) -> int:
        return int(self._file.read_text())

    def end(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    helper = Helper(tmp_path)
    yield helper
    helper.end()


async def crash(gateway: RunningGateway, name: str = "bad") -> None:
    error_of(await ask(gateway, name), 501, "worker_crashed")


async def left_behind(gateway: RunningGateway) -> int:
    """The pid of the process that a worker has left behind."""
    line = await gateway.logged(r" left \d+\.")
    found = re.search(r"left (\d+)", line)
    assert found
    return int(found[1])


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def reaped(pid: int) -> None:
    with trio.fail_after(PATIENCE):
        while exists(pid):
            await pause()


async def test_a_helper_that_was_there_before_outlives_workers_and_the_gateway(
    level: str, tmp_path: Path, helper: Helper
) -> None:
    bad = agent("leave_behind.py")
    prefix = helper.before("sleep 1000")
    async with scene(tmp_path, level=level, bad=bad, prefix=prefix) as gateway:
        for _ in range(3):
            await crash(gateway)
            await served_by(gateway, "bad")
        assert is_alive(helper.pid)
    assert is_alive(helper.pid)


async def test_a_helper_that_ends_is_reaped(tmp_path: Path, helper: Helper) -> None:
    async with scene(tmp_path, prefix=helper.before("sleep 1000")) as gateway:
        await served_by(gateway, "good")
        os.kill(helper.pid, signal.SIGKILL)
        await reaped(helper.pid)


async def test_what_a_helper_leaves_behind_is_left_alone(tmp_path: Path, helper: Helper) -> None:
    """Its own process is the gateway's child from then on, and is no worker's."""
    child = tmp_path / "child"
    script = f"sh -c 'setsid sleep 1000 & echo $! > {child}; sleep 1000'"
    bad = agent("leave_behind.py")
    async with scene(tmp_path, level="off", bad=bad, prefix=helper.before(script)) as gateway:
        await served_by(gateway, "bad")
        pid = int(child.read_text())
        os.kill(helper.pid, signal.SIGKILL)
        await reaped(helper.pid)
        await crash(gateway)
        await served_by(gateway, "bad")
        assert is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        await reaped(pid)


@pytest.mark.parametrize("beside", [False, True])
async def test_what_a_worker_leaves_behind_is_known_by_its_mark(
    beside: bool, tmp_path: Path, helper: Helper
) -> None:
    prefix = helper.before("sleep 1000") if beside else []
    bad = agent("leave_behind.py")
    async with scene(tmp_path, level="off", bad=bad, prefix=prefix) as gateway:
        await crash(gateway)
        assert await gone(await left_behind(gateway))
        await served_by(gateway, "bad")


async def test_without_a_mark_it_is_ended_where_only_workers_can_have_left_it(
    tmp_path: Path,
) -> None:
    bad = agent("leave_behind.py", "cleared")
    async with scene(tmp_path, level="off", bad=bad) as gateway:
        await crash(gateway)
        assert await gone(await left_behind(gateway))


async def test_without_a_mark_it_is_left_alone_where_others_can_have_left_it(
    tmp_path: Path, helper: Helper
) -> None:
    bad = agent("leave_behind.py", "cleared")
    prefix = helper.before("sleep 1000")
    async with scene(tmp_path, level="off", bad=bad, prefix=prefix) as gateway:
        await crash(gateway)
        pid = await left_behind(gateway)
        await crash(gateway)  # the sweep after the first has been
        assert is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        await reaped(pid)
        os.kill(await _other(gateway, pid), signal.SIGKILL)


async def _other(gateway: RunningGateway, pid: int) -> int:
    line = await gateway.logged(rf" left (?!{pid}\.)\d+\.")
    return int(line.split(" left ")[1].split(".")[0])


FIRST_PROCESS = """
import os, signal, sys, trio
from gateway.workers.orphans import OrphanKeeper

assert os.getpid() == 1

async def main():
    orphans = OrphanKeeper(lambda: ())
    async with trio.open_nursery() as nursery:
        await nursery.start(orphans.run)
        print("adopts", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        orphans.sweep()
        with open(f"/proc/self/task/1/children") as children:
            print("children:", children.read(), flush=True)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_the_first_process_of_a_container_ends_nothing_that_entered_it() -> None:
    """As `docker exec` does: what it leaves behind is adopted by the first process."""
    unshare = ["unshare", "--user", "--map-root-user", "--fork", "--pid", "--mount-proc"]
    need(subprocess.run([*unshare, "true"], check=False).returncode == 0, "no namespaces here")
    first = subprocess.Popen(
        [*unshare, "--kill-child", sys.executable, "-c", FIRST_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin
    assert first.stdout
    with first:
        try:
            assert first.stdout.readline() == "adopts\n"
            children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
            entered = ["nsenter", "--user", "--pid", "--target", children[0]]
            subprocess.run(
                [*entered, "--preserve-credentials", "sh", "-c", "setsid sleep 1000 &"], check=True
            )
            first.stdin.write("\n")
            first.stdin.flush()
            assert re.fullmatch(r"children: \d+ \n", first.stdout.readline())
            assert first.wait(PATIENCE) == 0
        finally:
            first.kill()
