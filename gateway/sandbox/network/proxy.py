"""The process of an agent's proxy, as the launcher of its workers holds it.

This module owns the process, its control socket and the announcement of each new worker. It does
not know what the proxy allows (`egress` does), nor what it is shown (`enclosure` does).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
from gateway.sandbox.network import enclosure
from gateway.sandbox.refusals import explain_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.sandbox.bwrap import Tools

_PROGRAM = """
import json
import sys
sys.path[:] = json.loads(sys.argv.pop(1))
from gateway.sandbox.network.egress import main
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

    def __init__(
        self, agent: str, hosts: Sequence[str], *, uid: int | None, tools: Tools, seccomp: bytes
    ) -> None:
        """No process is started before the first worker.

        `uid` is what the process runs as where the gateway is root, else None; `seccomp` is its
        system call filter.
        """
        self._command = (agent, str(uid or 0), json.dumps(list(hosts)))
        self._bwrap = tools.bwrap
        self._as_root = uid is not None
        self._seccomp = seccomp
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.stderr, self._their_stderr = os.pipe()
        """What every process of this proxy writes to its stderr; must be read, does not block."""
        os.set_blocking(self.stderr, False)
        for descriptor in (self.stderr, self._their_stderr):
            weakref.finalize(self, os.close, descriptor)

    @property
    def pid(self) -> int | None:
        """The process id of the proxy that was started last: of bubblewrap, which waits for it."""
        return None if self._process is None else self._process.pid

    @contextlib.contextmanager
    def announce(self) -> Iterator[int]:
        """A descriptor through which a new worker sends out its port. Raises OSError."""
        worker, ours = socket.socketpair()
        with worker, ours:
            try:
                socket.send_fds(self._running(), [b"W"], [ours.fileno()])
            except BrokenPipeError as error:
                raise OSError(error.errno, self.why_ended()) from error
            yield worker.fileno()

    def _running(self) -> socket.socket:
        """The control socket of a running proxy, which is started anew if the last one died."""
        if self._process is None or self._control is None or self._has_ended():
            self.close()
            control, theirs = socket.socketpair()
            with contextlib.ExitStack() as ours, theirs:
                ours.enter_context(control)
                process = self._start(theirs.fileno())
                ours.pop_all()
            self._control, self._process = control, process
            weakref.finalize(self, _end, control, process)
        return self._control

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        agent, uid, hosts = self._command
        path = _import_path()
        with open(os.memfd_create("seccomp"), "wb") as rules:
            rules.write(self._seccomp)
            rules.flush()
            rules.seek(0)
            return subprocess.Popen(
                [
                    *(self._bwrap, "--seccomp", str(rules.fileno())),
                    *enclosure.bwrap_options(import_path=path, as_root=self._as_root),
                    *("--", enclosure.interpreter(), "-I", "-S", "-c", _PROGRAM),
                    *(json.dumps(path), agent, str(control), uid, hosts),
                ],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._their_stderr,
                pass_fds=(control, rules.fileno()),
                start_new_session=True,
            )

    def take_said(self) -> str:
        """Take what the proxy has written to its stderr so far."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.stderr, _PIPE_BYTES):
                said += more
        return said.decode(errors="replace")

    def why_ended(self) -> str | None:
        """Why the process that was started last has ended, or None if it runs."""
        if self._process is None or not self._has_ended():
            return None
        said = self.take_said().strip().splitlines()
        last = said[-1] if said else f"status {self._process.returncode}"
        return f"the network's own process could not be started: {explain_refusal(said) or last}"

    def _has_ended(self) -> bool:
        """Whether the process has ended, or is about to: nobody holds its control socket."""
        assert self._process is not None
        assert self._control is not None
        if self._process.poll() is not None:
            return True
        poll = select.poll()
        poll.register(self._control, 0)  # errors and the other end's end are always told
        if not poll.poll(0):
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        return True

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
        # The whole group: the proxy itself would outlive bubblewrap.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
