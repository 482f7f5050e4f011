"""The guard: a process that ends the workers of a gateway which was killed while it started them.

bubblewrap asks the kernel to end it with its parent, and its child with it, but each only once it
runs: a gateway that is killed in between leaves a worker behind (containers/bubblewrap#633).
Nothing that bubblewrap offers closes that gap, so a third party does. The guard holds one end of a
pipe, the gateway the other, and its end is the gateway's. Every process of a start carries the
gateway's mark on its command line from its first moment on, until the sandbox is whole, and
bubblewrap for as long as the sandbox lives: the guard looks for the mark, and ends what has it.

This module is both: `Guard` is the gateway's side, and the source of `watch` runs as the guard, by
an interpreter without this project. Standard library alone.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
import signal
import subprocess
import sys
import time
import weakref

ROUNDS = 40
"""Looks for the mark, the pause between them included for two seconds: a process that was forked
when the gateway died gets its own command line only when it is scheduled."""
PAUSE = 0.05
"""Seconds between two looks."""
STOP_TIMEOUT = 5.0
"""Seconds for the guard to end when it is told to. Normally it ends at once."""


def watch(mark: bytes, rounds: int, pause: float) -> None:
    """Wait for the gateway's end, then end every process that has `mark` on its command line.

    A byte instead of the end of the pipe means that the gateway ended in good order.
    """
    if os.read(0, 1):
        return
    for _ in range(rounds):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError):
                    with open(f"/proc/{name}/cmdline", "rb") as file:
                        marked = mark in file.read()
                    if marked:
                        os.kill(int(name), signal.SIGKILL)
        time.sleep(pause)


class Guard:
    """The guard of this process, and the mark of what it guards. Its process starts when needed."""

    def __init__(self) -> None:
        self.mark = f"agent-gateway-{secrets.token_hex(16)}"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Guard {'not started' if self.pid is None else self.pid}>"

    @property
    def pid(self) -> int | None:
        """The guard's process, or None before the first start."""
        return None if self._process is None else self._process.pid

    def ensure(self) -> None:
        """Start the guard, or a new one if it has died. Raises OSError."""
        if self._process is not None and self._process.poll() is None:
            return
        words = (sys.executable, "-I", "-S", "-c", _PROGRAM, self.mark, str(ROUNDS), str(PAUSE))
        self._process = subprocess.Popen(
            words,
            env={},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        weakref.finalize(self, _dismiss, self._process)


_PROGRAM = f"""
import contextlib, os, signal, sys, time
{inspect.getsource(watch)}
watch(sys.argv[1].encode(), int(sys.argv[2]), float(sys.argv[3]))
"""


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has died already
        os.write(process.stdin.fileno(), b"x")
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
