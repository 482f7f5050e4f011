"""What a worker uses up is its own share; each limit is shown to be in force before it is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.running import Running, running
from tests.sandbox.users import available_users

USERS = pytest.mark.parametrize("user", available_users())
MEBIBYTE = 1 << 20


def in_force(worker: Running, limit: str, value: int) -> None:
    found = worker.about["limits"][limit]
    assert found["enforced"], found
    assert found["value"] == value


def need_group(worker: Running, limit: str) -> None:
    """What only a control group can hold is not tried without one: nothing would stop it."""
    found = worker.about["limits"][limit]
    if not found.get("by", "").startswith("cgroup"):
        pytest.skip(f"{limit}: {found['reason']}")


FORKS = """
import os, signal
children = []
try:
    for _ in range(1000):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
print(len(children))
"""

THREADS = """
import threading
event, count = threading.Event(), 0
try:
    for _ in range(1000):
        threading.Thread(target=event.wait, daemon=True).start()
        count += 1
except RuntimeError:
    pass
print(count)
event.set()
"""

DESCRIPTORS = """
import os
count = 0
try:
    for _ in range(10_000):
        os.dup(0)
        count += 1
except OSError as error:
    print(error.errno, count)
"""

FILL = """
import os
written = 0
try:
    with open(PATH, "wb", buffering=0) as file:
        for _ in range(64):
            written += file.write(bytes(1 << 20))
except OSError as error:
    os.unlink(PATH)
    print(error.errno, written)
"""


@USERS
@pytest.mark.parametrize("code", [FORKS, THREADS], ids=["forks", "threads"])
def test_a_bomb_of_processes_stops_at_the_limit(user: str, code: str) -> None:
    with running(user, code, pids=20) as worker:
        in_force(worker, "pids", 20)
        # The worker itself is one of the twenty.
        assert worker.line() == "19"


@USERS
def test_the_limit_of_processes_is_each_workers_own(user: str) -> None:
    with running(user, FORKS + "sys.stdin.read()", pids=20) as full:
        assert full.line() == "19"
        with running(user, FORKS, pids=20) as other:
            assert other.line() == "19"


@USERS
def test_descriptors_run_out_at_the_limit(user: str) -> None:
    with running(user, DESCRIPTORS, nofile=64) as worker:
        in_force(worker, "nofile", 64)
        assert worker.line() == "24 61"  # EMFILE, besides stdin, stdout and stderr


@USERS
@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/var/tmp"])
def test_a_memory_file_system_is_full_at_its_size(user: str, folder: str) -> None:
    code = FILL.replace("PATH", repr(f"{folder}/file"))
    with running(user, code, tmp="4M") as worker:
        in_force(worker, "tmp", 4 * MEBIBYTE)
        number, written = worker.line().split()
        assert number == "28"  # ENOSPC
        assert int(written) <= 4 * MEBIBYTE


@USERS
def test_a_file_cannot_grow_beyond_its_limit(user: str) -> None:
    code = FILL.replace("PATH", "'/tmp/file'")
    with running(user, code, fsize="2M") as worker:
        in_force(worker, "fsize", 2 * MEBIBYTE)
        assert worker.line() == f"27 {2 * MEBIBYTE}"  # EFBIG


MEMORY = {
    "heap": "hoard = [bytearray(b'x') * (1 << 20) for _ in range(256)]",
    "shared memory": """
with open("/dev/shm/file", "wb") as file:
    for _ in range(256):
        file.write(bytes(1 << 20))
""",
    "memory file": """
import os
descriptor = os.memfd_create("hoard")
for _ in range(256):
    os.write(descriptor, bytes(1 << 20))
""",
}


@USERS
@pytest.mark.parametrize("kind", MEMORY)
def test_a_worker_that_takes_too_much_memory_is_killed_alone(user: str, kind: str) -> None:
    code = f"print('started')\n{MEMORY[kind]}\nprint('got it all')"
    with running(user, "print(sys.stdin.readline())\nsys.stdin.read()") as neighbour:
        with running(user, code, memory="64M", tmp="1G") as worker:
            need_group(worker, "memory")
            in_force(worker, "memory", 64 * MEBIBYTE)
            assert worker.line() == "started"
            assert worker.until_the_end() == ""
            assert worker.gateway.wait() == 137  # SIGKILL, as bubblewrap passes it on
        assert neighbour.gateway.poll() is None


@USERS
def test_the_same_memory_can_be_had_below_the_limit(user: str) -> None:
    """The control: it is the limit that kills, and not the code."""
    code = f"{MEMORY['heap']}\nprint('got it all')"
    with running(user, code, memory="600M") as worker:
        assert worker.line() == "got it all"


@USERS
def test_a_worker_that_spins_is_held_to_its_share_of_the_cpu(user: str) -> None:
    code = """
import time
while time.process_time() < 0.1:
    pass
print("spun")
sys.stdin.read()
"""
    # So little that it can be used up on a machine that is busy with other things.
    with running(user, code, cpu=0.05) as worker:
        need_group(worker, "cpu")
        assert worker.line() == "spun"
        assert throttled(worker.pid) > 0


def throttled(pid: int) -> int:
    """In how many periods the group of the process had used up its share."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            folder = Path("/sys/fs/cgroup/cpu", path.lstrip("/"))
        elif (
            controllers == "" and (Path("/sys/fs/cgroup") / path.lstrip("/") / "cpu.stat").exists()
        ):
            folder = Path("/sys/fs/cgroup", path.lstrip("/"))
        else:
            continue
        stat: dict[str, Any] = dict(
            each.split() for each in (folder / "cpu.stat").read_text().splitlines()
        )
        return int(stat["nr_throttled"])
    raise AssertionError("the process is in no such group")
