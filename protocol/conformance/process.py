"""The worker's process: bytes to its stdin, bytes from its stdout, both with a deadline.

stderr goes to a file, so that the worker can write any amount there and is never blocked by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 64 * 1024
_POLL = 0.002
"""Seconds between two looks at whether the worker has emptied its stdin: nothing tells."""
_STDERR_BYTES = 4096


class WorkerSilent(Exception):  # noqa: N818 - an observation about the worker
    """The deadline passed."""


class Process:
    """One run of the command, which has ended with its whole process group at the end of `with`."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError when the command cannot be started."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdin.fileno(), False)
        self._unsent = bytearray()
        self._closing = False
        self.ended = False
        """Whether stdout was closed."""

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def send(self, data: bytes) -> None:
        """Queue bytes for stdin. They are written while `receive` waits."""
        self._unsent += data

    def receive(self, deadline: float) -> bytes:
        """What comes from stdout next, and nothing when it was closed.

        `deadline` is of `time.monotonic`. Raises WorkerSilent.
        """
        while True:
            writing = [self._stdin] if self._unsent and not self._stdin.closed else []
            timeout = deadline - time.monotonic()
            readable, writable, _ = select.select([self._stdout], writing, [], max(0.0, timeout))
            if writable:
                self._write()
            if readable:
                data = os.read(self._stdout, _READ_BYTES)
                self.ended = not data
                return data
            if not writable and timeout <= 0:
                raise WorkerSilent

    def send_apart(self, pieces: Sequence[bytes], deadline: float) -> None:
        """Write pieces so that the worker reads each on its own. Raises WorkerSilent."""
        for piece in pieces:
            self.send(piece)
            while self._unsent or self._waiting_bytes():
                self._write()
                if time.monotonic() > deadline:
                    raise WorkerSilent
                time.sleep(_POLL)

    def close_stdin(self) -> None:
        """Close stdin as soon as everything is written."""
        self._closing = True
        self._write()

    def exit_status(self, deadline: float) -> int:
        """The status that the process ends with, negative for a signal. Raises WorkerSilent."""
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise WorkerSilent from None

    def last_of_stderr(self) -> str:
        """The end of what the worker wrote to stderr."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_BYTES))
        return self._stderr.read().decode(errors="replace")

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._stdin.fileno(), self._unsent[:_WRITE_BYTES])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent.clear()  # the worker has closed its stdin: its own answers tell more
        if self._closing and not self._stdin.closed:
            self._stdin.close()

    def _waiting_bytes(self) -> int:
        """The bytes in the pipe that the worker has not read."""
        answer = fcntl.ioctl(self._stdin.fileno(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])
