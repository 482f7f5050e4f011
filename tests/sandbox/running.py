"""Starting a worker of Python code as either user, for the suites on limits and lifetimes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.sandbox import StrictLauncher
from tests.sandbox.users import PROJECT, as_user, need_sandbox

PATIENCE = 30.0
"""Seconds until a test gives up on something that takes a moment: a bound, never a measure."""


@dataclass
class Running:
    """A reduced gateway, `gateway`, and the one worker that it started."""

    gateway: subprocess.Popen[str]
    pid: int
    """Of what the gateway started: the worker itself, or the sandbox around it."""
    about: dict[str, Any]

    def line(self) -> str:
        """The worker's next line, without the line's end; empty when there is none any more."""
        assert self.gateway.stdout is not None
        return self.gateway.stdout.readline().rstrip("\n")

    def until_the_end(self) -> str:
        """What else is said until nobody is left who could say something."""
        assert self.gateway.stdout is not None
        said = ""
        while select.select([self.gateway.stdout], [], [], PATIENCE)[0]:
            if not (line := self.gateway.stdout.readline()):
                return said
            said += line
        raise AssertionError("somebody still holds the worker's output")


def run_worker(launcher: StrictLauncher) -> subprocess.CompletedProcess[str]:
    """One worker of a launcher, with an empty stdin, run to its end."""
    with launcher.launch() as launch:
        return subprocess.run(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )


def lines_of(launcher: StrictLauncher) -> list[str]:
    """What a worker prints until its end, which must be a good one."""
    done = run_worker(launcher)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextlib.contextmanager
def running(user: str, code: str, *, level: str = "strict", **settings: Any) -> Iterator[Running]:
    """Run Python `code` as a worker; it starts when it has a line on its stdin."""
    need_sandbox(user)
    spec = {
        "argv": [sys.executable, "-I", "-u", "-c", f"import sys; sys.stdin.readline()\n{code}"],
        "level": level,
        "settings": settings,
    }
    with subprocess.Popen(
        as_user(user, sys.executable, "-m", "tests.sandbox.start", json.dumps(spec)),
        cwd=PROJECT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as gateway:
        assert gateway.stdout is not None
        about: dict[str, Any] = {}
        try:
            about = json.loads(gateway.stdout.readline())
            yield Running(gateway, about["pid"], about)
        finally:
            with contextlib.suppress(KeyError, ProcessLookupError):
                # Its group: a bubblewrap that has just forked is not yet bound to its parent's end.
                os.killpg(about["pid"], signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(gateway.pid, signal.SIGKILL)
