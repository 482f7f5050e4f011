"""A gateway that is killed while it starts a worker leaves none behind.

The moment in which bubblewrap is not yet bound to its parent's end is held open: its child waits
for a byte before it runs anything, and is then an orphan whom the kernel has not been told of.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.sandbox.limits.guard import Guard
from tests.sandbox.users import PROJECT, as_user, available_users, need_sandbox

USERS = pytest.mark.parametrize("user", available_users())

# Starts one worker whose bubblewrap waits at --block-fd, says who waits, and waits to be killed.
GATEWAY = """
import fcntl, json, os, subprocess, sys
from gateway.sandbox import SandboxSettings, make, make_launcher, strict
from gateway.sandbox.limits.guard import Guard
# A worker with ids of its own is held by what maps them, by the same options of bubblewrap.
make._subordinate_ids = lambda *args: (None, "")
if sys.argv[1] == "without":
    Guard.ensure = lambda self: None
# The shell before bubblewrap has its own use for the low numbers.
held, (reader, writer) = fcntl.fcntl(int(sys.argv[2]), fcntl.F_DUPFD, 20), os.pipe()
told = reader, fcntl.fcntl(writer, fcntl.F_DUPFD, 20)
options = strict.bwrap_options
strict.bwrap_options = lambda *args, **rest: [
    *options(*args, **rest), "--block-fd", str(held), "--info-fd", str(told[1])
]
made = make_launcher(
    "worker", ["sh", "-c", "echo alive; exec sleep 1000"], SandboxSettings(),
    environ=os.environ, cwd="/",
)
with made.launch() as launch:
    process = subprocess.Popen(
        launch.argv, env=dict(launch.env), cwd=launch.cwd, stdin=subprocess.DEVNULL,
        pass_fds=(*launch.pass_fds, held, told[1]), start_new_session=True,
    )
said = b""
while b"}" not in said:
    said += os.read(told[0], 1000)
child = json.loads(said)["child-pid"]
sys.stderr.write(json.dumps([process.pid, child, held]) + "\\n")
sys.stderr.flush()
sys.stdin.read()
"""


@contextmanager
def starting(user: str, guard: str) -> Iterator[tuple[subprocess.Popen[str], int, int, int]]:
    """The gateway, bubblewrap, its child that waits, and the descriptor that lets it go on."""
    need_sandbox(user)
    held, release = os.pipe()
    with subprocess.Popen(
        as_user(user, sys.executable, "-c", GATEWAY, guard, str(held)),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(held,),
        text=True,
    ) as gateway:
        os.close(held)
        assert gateway.stderr is not None
        bwrap = child = 0
        try:
            bwrap, child, blocked_at = json.loads(gateway.stderr.readline())
            while not reads(child, blocked_at):
                os.sched_yield()
            yield gateway, bwrap, child, release
        finally:
            os.close(release)
            for pid in filter(None, (gateway.pid, bwrap, child)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def reads(pid: int, descriptor: int) -> bool:
    """Whether a process waits in read(2) of `descriptor`, and not of another: bubblewrap's child
    first waits for a word of bubblewrap's own."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    read = "0" if os.uname().machine == "x86_64" else "63"
    return words[0] == read and len(words) > 1 and int(words[1], 16) == descriptor


@USERS
def test_without_the_guard_a_worker_survives_a_kill_at_its_start(user: str) -> None:
    with starting(user, "without") as (gateway, bwrap, _, release):
        gateway.kill()
        while (
            Path(f"/proc/{bwrap}").exists()
            and "(zombie)" not in Path(f"/proc/{bwrap}/status").read_text()
        ):
            os.sched_yield()
        os.write(release, b"x")
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "alive\n"


@USERS
def test_the_guard_ends_a_worker_whose_gateway_was_killed_at_its_start(user: str) -> None:
    with starting(user, "with") as (gateway, _, child, _):
        pidfd = os.pidfd_open(child)
        gateway.kill()
        assert gateway.stdout is not None
        assert gateway.stdout.read() == ""
        # A process closes its files a moment before it has ended.
        select.select([pidfd], [], [])
        os.close(pidfd)


def test_a_guard_that_died_is_replaced_and_one_that_runs_is_kept() -> None:
    guard = Guard()
    assert repr(guard) == "<Guard not started>"
    guard.ensure()
    first = guard.pid
    assert first is not None
    guard.ensure()
    assert guard.pid == first
    end(first)
    guard.ensure()
    assert guard.pid not in {None, first}


def test_a_guard_ends_with_its_owner_and_ends_nobody() -> None:
    guard = Guard()
    guard.ensure()
    assert guard.pid is not None
    pidfd = os.pidfd_open(guard.pid)
    with subprocess.Popen(["cat", "/dev/stdin", guard.mark], stdin=subprocess.PIPE) as marked:
        del guard
        select.select([pidfd], [], [])
        assert marked.poll() is None
        marked.communicate()
    os.close(pidfd)


def test_a_guard_is_no_child_of_the_gateway() -> None:
    """What ends the gateway with its children does not end the guard."""
    guard = Guard()
    guard.ensure()
    status = Path(f"/proc/{guard.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" not in status


def end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
