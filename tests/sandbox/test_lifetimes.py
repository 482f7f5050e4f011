"""When a worker ends, or the gateway does, so does everything that the worker started.

That nothing is left is told by the kernel: the output pipe, which every process of the tree holds,
comes to its end only with the last of them.
"""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.sandbox.running import running
from tests.sandbox.users import every_user

USERS = pytest.mark.parametrize("user", every_user())

# Out of the session, out of the family, deaf to signals: what a process group does not catch.
DAEMON = """
import os, signal, time
def hide():
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
reader, writer = os.pipe()
if os.fork() == 0:
    hide()
    if os.fork() == 0:
        print("hidden", os.getpid(), flush=True)
        os.write(writer, b"x")
        while True:
            time.sleep(60)
    os._exit(0)
os.wait()
os.read(reader, 1)  # it has said so before the worker may end
"""
WAIT = DAEMON + "sys.stdin.read()\n"


@USERS
def test_what_a_worker_left_behind_ends_with_it(user: str) -> None:
    with running(user, DAEMON) as worker:
        assert worker.line().startswith("hidden")
        assert worker.until_the_end() == ""
        assert worker.gateway.wait() == 0


@USERS
def test_a_kill_of_the_worker_ends_its_whole_tree(user: str) -> None:
    with running(user, WAIT) as worker:
        assert worker.line().startswith("hidden")
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.until_the_end() == ""


@USERS
def test_a_request_to_terminate_ends_the_whole_tree(user: str) -> None:
    with running(user, WAIT) as worker:
        assert worker.line().startswith("hidden")
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.until_the_end() == ""


@USERS
def test_a_killed_gateway_takes_its_workers_trees_along(user: str) -> None:
    with running(user, WAIT) as worker:
        assert worker.line().startswith("hidden")
        worker.gateway.kill()
        assert worker.until_the_end() == ""


@USERS
def test_without_the_sandbox_a_hidden_process_outlives_a_killed_worker(user: str) -> None:
    """The control: the means by which the others find nothing do find something."""
    with running(user, WAIT, level="off") as worker:
        hidden = int(worker.line().split()[1])
        try:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.gateway.wait()
            os.kill(hidden, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hidden, signal.SIGKILL)
        assert worker.until_the_end() == ""
