"""One worker's operating-system process: how it is spawned, watched, signalled and reaped.

A worker leads a session of its own, so its process group has its pid as number and can be signalled
as a whole. Its standard streams are three pipes whose ends in the gateway are non-blocking. This
module does not know what goes through the pipes.

What a start takes of the process, its user and the system (descriptors, processes, epoll watches)
is taken by `spawn` and `register`, and where there is none left, one start fails.

A worker is spawned synchronously on the thread that runs trio: its parent-death signal is sent when
the *thread* that spawned it ends (prctl(2), PR_SET_PDEATHSIG), and trio's worker threads end when
they have been idle.
"""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import termios
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import trio

from gateway.readiness import readable, register
from protocol.framing import MAX_LINE_BYTES

if TYPE_CHECKING:
    from gateway.sandbox.launch import Launch

READ_BYTES = 256 * 1024
"""Bytes per read: four times what a pipe holds by default, so that a burst causes one wake-up."""

MAX_HELD_PER_WORKER = MAX_LINE_BYTES + 1024 * 1024
"""Bytes that one worker can make the gateway hold besides its requests: a line without an end, a
read of each of its pipes, and what it has declared and logged last."""

LARGE_PIPE_BYTES = 1024 * 1024
"""Capacity requested for a pipe once something large goes through it: the most that an unprivileged
process may request by default (fs.pipe-max-size). It is not requested at the start, because the
pages of all pipes of one user share a limit (fs.pipe-user-pages-soft)."""


_LOOK_ONLY = os.WEXITED | os.WNOHANG | os.WNOWAIT


class SpawnError(Exception):
    """The command could not be started; the message says why."""


class WorkerProcess:
    """A spawned process and the gateway's ends of its pipes.

    `stdin`, `stdout` and `stderr` are descriptors, -1 once the gateway has closed them. `wait` must
    be awaited for the process to be reaped; `close` then releases the descriptors.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], pidfd: int, pipes: tuple[int, int, int]
    ) -> None:
        self._popen = popen
        self._pidfd = pidfd
        self.pid = popen.pid
        self.stdin, self.stdout, self.stderr = pipes

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return f"<WorkerProcess {self.pid} {state}>"

    @property
    def returncode(self) -> int | None:
        """As in `subprocess.Popen`: None until it was reaped, negative for a signal."""
        return self._popen.returncode

    async def register(self) -> None:
        """Take the kernel's watches for the process and its pipes. Raises SpawnError."""
        try:
            for descriptor in (self._pidfd, self.stdin, self.stdout, self.stderr):
                await register(descriptor)
        except OSError as error:
            raise SpawnError(f"its pipes cannot be watched: {error.strerror}") from error

    async def wait(self) -> int:
        """Wait for the process to end, kill the rest of its group, and reap it; the return code.

        The group is killed after the leader's end and before its reaping: until then the kernel
        cannot reuse the group's number, which is the leader's pid, for another group.
        """
        while self._popen.returncode is None and not self.ended:
            await readable(self._pidfd)
        if self._popen.returncode is None:
            self.signal_group(signal.SIGKILL)
            self._popen.wait()
        assert self._popen.returncode is not None
        return self._popen.returncode

    @property
    def ended(self) -> bool:
        """Whether the process is a zombie. Does not reap it."""
        with suppress(ChildProcessError):  # somebody else has reaped it
            return os.waitid(os.P_PIDFD, self._pidfd, _LOOK_ONLY) is not None
        return True

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the group, unless its leader was reaped."""
        if self._popen.returncode is None:
            # EPERM: every member runs as another user by now, as a setuid program does.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def unread_input(self) -> int:
        """Bytes written to its stdin that nobody has read (FIONREAD); known after its end, too."""
        if self.stdin < 0:
            return 0
        size = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, size)
        return size[0]

    def close_stdin(self) -> None:
        self.stdin = _close(self.stdin)

    def close(self) -> None:
        """Close the gateway's ends of the pipes. The process must have been reaped."""
        self.close_stdin()
        self.stdout = _close(self.stdout)
        self.stderr = _close(self.stderr)
        self._pidfd = _close(self._pidfd)


def spawn(launch: Launch) -> WorkerProcess:
    """Start a process, from the main thread. Raises SpawnError."""
    assert threading.current_thread() is threading.main_thread()
    with ExitStack() as theirs, ExitStack() as ours:
        try:
            stdin, to_stdin = _pipe(theirs, ours)
            from_stdout, stdout = _pipe(ours, theirs)
            from_stderr, stderr = _pipe(ours, theirs)
            if launch.other_user:
                for descriptor in (stdin, stdout, stderr):
                    os.fchmod(descriptor, 0o666)
            popen = subprocess.Popen(
                launch.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=launch.env,
                cwd=launch.cwd,
                pass_fds=launch.pass_fds,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SpawnError(_explain(launch, error)) from error
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError as error:
            popen.kill()
            popen.wait()
            raise SpawnError(f"no descriptor for the new process: {error.strerror}") from error
        ours.pop_all()
    pipes = (to_stdin, from_stdout, from_stderr)
    for descriptor in pipes:
        os.set_blocking(descriptor, False)
    return WorkerProcess(popen, pidfd, pipes)


def enlarge_pipe(descriptor: int) -> None:
    """Request a larger pipe buffer; a refusal does no harm."""
    with suppress(OSError):
        if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < LARGE_PIPE_BYTES:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, LARGE_PIPE_BYTES)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe: its read end is closed with the stack `reader`, its write end with `writer`."""
    read_end, write_end = os.pipe()
    reader.callback(os.close, read_end)
    writer.callback(os.close, write_end)
    return read_end, write_end


def _explain(launch: Launch, error: OSError | ValueError) -> str:
    command = launch.argv[0]
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if launch.cwd is not None and error.filename == launch.cwd:
            return f"the folder to start in does not exist: {launch.cwd!r}"
        return f"command not found: {command!r}"
    if isinstance(error, PermissionError):
        return f"command may not be executed: {command!r}"
    reason = error.strerror if isinstance(error, OSError) else error
    return f"could not start {command!r}: {reason or error}"


def _close(descriptor: int) -> int:
    if descriptor >= 0:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)
    return -1
