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
import select
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
START_TIMEOUT = 20.0
"""Seconds for the guard to start, which takes 0.02 on an idle machine."""


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
        self.pid: int | None = None
        """The guard's process, or None before the first start."""
        self._lifeline = -1

    def __repr__(self) -> str:
        return f"<Guard {'not started' if self.pid is None else self.pid}>"

    def ensure(self) -> None:
        """Start the guard, or a new one if it has died. Blocks for a moment. Raises OSError."""
        if self._lifeline >= 0 and not _is_closed_at_the_other_end(self._lifeline):
            return
        lifeline, ours = os.pipe()
        try:
            words = (sys.executable, "-I", "-S", "-c", _PROGRAM, self.mark, str(ROUNDS), str(PAUSE))
            said = subprocess.run(
                words,
                env={},
                cwd="/",
                stdin=lifeline,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                timeout=START_TIMEOUT,
                check=True,
            ).stdout
            self.pid = int(said)
        except (subprocess.SubprocessError, ValueError) as error:
            os.close(ours)
            raise OSError(f"the guard of the sandboxes did not start: {error}") from error
        finally:
            os.close(lifeline)
        self._lifeline = ours
        weakref.finalize(self, _dismiss, ours)


_PROGRAM = f"""
import contextlib, os, signal, sys, time
{inspect.getsource(watch)}
# No child of the gateway: what ends the gateway with its children does not end the guard.
pid = os.fork()
if pid:
    print(pid, flush=True)
    os._exit(0)
null = os.open("/dev/null", os.O_WRONLY)
os.dup2(null, 1)
watch(sys.argv[1].encode(), int(sys.argv[2]), float(sys.argv[3]))
"""


def _is_closed_at_the_other_end(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)  # errors are always told
    return bool(poll.poll(0))


def _dismiss(lifeline: int) -> None:
    with contextlib.suppress(OSError):  # it has died already
        os.write(lifeline, b"x")
    os.close(lifeline)
