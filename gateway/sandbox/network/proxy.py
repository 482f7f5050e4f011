"""One of the network's processes, as the launcher of an agent's workers holds it.

This module owns the process, its sockets, its rules and the announcement of each new worker. It
does not know what the process does (`egress` or `door`), nor what it is shown (`enclosure` does).
`inlets` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gateway
from gateway.sandbox.network import enclosure
from gateway.sandbox.network.metering import RecordReader
from gateway.sandbox.refusals import explain_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from gateway.sandbox.bwrap import Tools
    from gateway.sandbox.network.metering import Meter

_PROGRAM = """
import json
import sys
from importlib import import_module
sys.path[:] = json.loads(sys.argv.pop(1))
import_module(sys.argv.pop(1)).main()
"""
"""Run without `site`, which would execute what it finds in any folder of the import path, and
without the folder that the gateway was started in."""
EGRESS, DOOR = "gateway.sandbox.network.egress", "gateway.sandbox.network.door"
"""The programs of such processes."""
_PIPE_BYTES = 64 * 1024
_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.01
"""Between two looks whether it has ended."""
STOP_TIMEOUT = 5.0
"""Seconds for the proxy to end after its control socket was closed. Normally it ends at once."""


class Proxy:
    """One process of an agent. It ends when this is closed, or with the gateway, however that
    ends."""

    def __init__(
        self,
        agent: str,
        rules: Mapping[str, Any],
        *,
        program: str = EGRESS,
        meter: Meter,
        uid: int | None,
        tools: Tools,
        seccomp: bytes,
        **enclosed: Any,
    ) -> None:
        """No process is started before the first worker.

        `rules`: what the process is to obey, as JSON; `program`: the module whose `main` it runs;
        `meter`: the sums of its records, of which the rule `spent` tells what was spent of budgets;
        `uid`: what it runs as where the gateway is root, else None; `seccomp`: its system call
        filter; `enclosed`: further arguments of `enclosure.bwrap_options`.
        """
        self._agent = agent
        self._rules = dict(rules)
        self._program = program
        self._meter = meter
        self._uid = uid
        self._bwrap = tools.bwrap
        self._enclosed = enclosed
        self._seccomp = seccomp
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.stderr, self._their_stderr = os.pipe()
        """What every process of this proxy writes to its stderr; must be read, does not block."""
        os.set_blocking(self.stderr, False)
        records, self._their_records = socket.socketpair(type=socket.SOCK_SEQPACKET)
        records.setblocking(False)
        self.records = RecordReader(records.detach(), meter, agent)
        """What every process of this proxy has decided; must be read."""
        self._let_go = weakref.finalize(
            self,
            _close,
            *(self.stderr, self._their_stderr, self.records.descriptor, self._their_records),
        )

    @property
    def pid(self) -> int | None:
        """The process id of the proxy that was started last: of bubblewrap, which waits for it."""
        return None if self._process is None else self._process.pid

    @contextlib.contextmanager
    def announce(self, number: int = 0) -> Iterator[int]:
        """A descriptor through which the new worker `number` sends out its port. Raises OSError."""
        worker, ours = socket.socketpair()
        with worker, ours:
            control = self._running()
            try:
                _send(control, {"worker": number}, ours.fileno())
            except (BrokenPipeError, ConnectionResetError) as error:
                raise OSError(error.errno, self.why_ended()) from error
            except BlockingIOError as error:
                self._replace_hung()
                raise OSError(
                    error.errno, "the network's own process hangs, and was ended"
                ) from error
            yield worker.fileno()

    def change(self, **rules: Any) -> None:
        """Have the process obey other values of these rules from now on, and every later process.

        Raises OSError for lack of descriptors or memory; then nothing has changed.
        """
        changed = {**self._rules, **rules}
        with self._in_memory(changed) as file:
            self._rules = changed
            if self._control is None or self._has_ended():
                return  # the next process starts with them
            try:
                _send(self._control, {"rules": True}, file.fileno())
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has just ended
            except BlockingIOError:
                self._replace_hung()

    def _replace_hung(self) -> None:
        """End a process that does not read what it is told: the next worker's start replaces it."""
        _log.error("the network's own process of agent %r hangs, and is ended", self._agent)
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._end_process()

    def _running(self) -> socket.socket:
        """The control socket of a running proxy, which is started anew if the last one died."""
        if self._process is None or self._control is None or self._has_ended():
            self._end_process()
            control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
            control.setblocking(False)
            with contextlib.ExitStack() as ours, theirs, self._in_memory(self._rules) as file:
                ours.enter_context(control)
                _send(control, {"rules": True}, file.fileno())
                process = self._start(theirs.fileno())
                ours.pop_all()
            self._control, self._process = control, process
            weakref.finalize(self, _end, control, process)
        return self._control

    @contextlib.contextmanager
    def _in_memory(self, rules: Mapping[str, Any]) -> Iterator[BinaryIO]:
        """A file without a name that holds rules: they may be longer than a packet, and are secret.

        Raises OSError.
        """
        self.records.hold()
        self.records.settle()  # a process goes on with what the one before it has spent
        with open(os.memfd_create("rules"), "w+b", buffering=0) as file:
            file.write(json.dumps({**rules, "spent": self._meter.spent()}).encode())
            yield file

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        path = _import_path()
        records = self._their_records.fileno()
        with open(os.memfd_create("seccomp"), "wb") as program:
            program.write(self._seccomp)
            program.flush()
            program.seek(0)
            options = enclosure.bwrap_options(
                import_path=path, as_root=self._uid is not None, **self._enclosed
            )
            return subprocess.Popen(
                [
                    *(self._bwrap, "--seccomp", str(program.fileno()), *options),
                    *("--", enclosure.interpreter(), "-I", "-S", "-c", _PROGRAM),
                    *(json.dumps(path), self._program),
                    *(self._agent, str(control), str(records), str(self._uid or 0)),
                ],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._their_stderr,
                pass_fds=(control, records, program.fileno()),
                start_new_session=True,
            )

    def forget(self) -> None:
        """Discard what the process has said and decided so far."""
        self.take_said()
        self.records.forget()

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
        """End the proxy and every tunnel through it, for good. Blocks for a moment.

        Afterwards `records` holds what it has sent last, to be settled.
        """
        if self._let_go.alive:
            self._end_process()
            self._let_go()

    def _end_process(self) -> None:
        if self._process is not None and self._control is not None:
            self._control.close()
            self._hold_until_end(self._process)
            _end(self._control, self._process)
        self._process = self._control = None
        self.records.hold()

    def _hold_until_end(self, process: subprocess.Popen[bytes]) -> None:
        """Read what a process says of the connections that end with it, which may be more than the
        socket has room for."""
        ends_at = time.monotonic() + STOP_TIMEOUT
        poll = select.poll()
        poll.register(self.records.descriptor, select.POLLIN)
        while process.poll() is None and time.monotonic() < ends_at and self.records.hold():
            poll.poll(LOOK_SECONDS * 1000)


def _close(*owned: int | socket.socket) -> None:
    for each in owned:
        if isinstance(each, int):
            os.close(each)
        else:
            each.close()


def _send(control: socket.socket, message: dict[str, Any], descriptor: int) -> None:
    socket.send_fds(control, [json.dumps(message).encode()], [descriptor])


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
