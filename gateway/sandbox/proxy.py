"""The process of an agent's proxy, as the launcher of its workers holds it.

This module owns the process, its control socket and the announcement of each new worker. It does
not know what the proxy allows (`egress` does).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import gateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PROGRAM = """
import json
import sys
sys.path[:] = json.loads(sys.argv.pop(1))
from gateway.sandbox.egress import main
main()
"""
"""Run without `site`, which would execute what it finds in any folder of the import path, and
without the folder that the gateway was started in."""
_PIPE_BYTES = 64 * 1024
STOP_TIMEOUT = 5.0
"""Seconds for the proxy to end after its control socket was closed. Normally it ends at once."""


class Proxy:
    """One agent's proxy. Its process ends when this is closed, or with the gateway, however that
    ends."""

    def __init__(self, agent: str, hosts: Sequence[str], *, uid: int) -> None:
        """No process is started before the first worker. With root, the process runs as `uid`."""
        self._command = (agent, str(uid), json.dumps(list(hosts)))
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.stderr, self._their_stderr = os.pipe()
        """What every process of this proxy writes to its stderr; must be read, does not block."""
        os.set_blocking(self.stderr, False)
        for descriptor in (self.stderr, self._their_stderr):
            weakref.finalize(self, os.close, descriptor)

    @property
    def pid(self) -> int | None:
        """The process id of the proxy that was started last."""
        return None if self._process is None else self._process.pid

    @contextlib.contextmanager
    def announce(self) -> Iterator[int]:
        """A descriptor through which a new worker sends out its port. Raises OSError."""
        worker, ours = socket.socketpair()
        with worker, ours:
            socket.send_fds(self._running(), [b"W"], [ours.fileno()])
            yield worker.fileno()

    def _running(self) -> socket.socket:
        """The control socket of a running proxy, which is started anew if the last one died."""
        if self._process is None or self._control is None or self._process.poll() is not None:
            self.close()
            agent, uid, hosts = self._command
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(_import_path())),
                        *(agent, str(theirs.fileno()), uid, hosts),
                    ],
                    env={},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._their_stderr,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            weakref.finalize(self, _end, self._control, self._process)
        return self._control

    def forget_said(self) -> None:
        """Discard what the proxy has written to its stderr so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.stderr, _PIPE_BYTES):
                pass

    def close(self) -> None:
        """End the proxy and every tunnel through it. Blocks for a moment."""
        if self._process is not None and self._control is not None:
            _end(self._control, self._process)
        self._process = self._control = None


def _import_path() -> list[str]:
    """Where the gateway's own modules come from, without the folder that it happens to be in."""
    own = Path(gateway.__file__).parents[1]
    return list(dict.fromkeys([*filter(os.path.isabs, sys.path), str(own)]))


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
