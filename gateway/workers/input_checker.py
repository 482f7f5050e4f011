"""Checks an agent's inputs against the JSON Schema that its workers declare.

# Theory of operation

The schema is the agent's, which is not trusted, and the input the caller's, who is not trusted
either. A schema of a page can take years to check (`allOf` of twice the next, forty times over),
and end a process by its depth alone: a parser in native code has no exception for the end of its
stack. No rule that looks at a schema beforehand finds all such. So each agent with a schema has a
small process of its own (`input_program`), which the kernel ends when it takes too much. That costs
a round trip through two pipes for each input, on the side of agents that declare a schema alone;
and the worst that a schema can do is that its own agent's requests are refused. A schema that says
no more than that the input is an object, as many a handler's annotation does, costs nothing.

`InputChecker.run` owns the process. It is started when there is something to check and a place for
it (`checker_places`: the gateway has so many for all agents), ends after `IDLE_SECONDS` of silence
or when others need its place, and takes one input at a time. Who asks waits beside it, and may
leave.

| what happens | what becomes of the request |
| --- | --- |
| the input matches | it goes to a worker |
| it does not | 400, with the place and what is expected there |
| checking it took too much | 400, which says so |
| the schema cannot be used | nothing is checked any more; said once in the log, and in the status |
| no process can be started | 503 |
| it waits for too long | 503, which says for what: its own agent's inputs, or a place |
"""

from __future__ import annotations

import logging
import math
import os
import signal
import struct
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from gateway.errors import ClockRanOut, GatewayError, InvalidRequest, Overloaded
from gateway.observe import logs
from gateway.readiness import readable, writable
from gateway.sandbox.launch import Launch
from gateway.workers.checker_places import CheckerPlaces
from gateway.workers.process import SpawnError, spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.workers.checker_places import Place
    from gateway.workers.process import WorkerProcess
    from protocol import Payload

log = logging.getLogger("gateway.agent")

PROGRAM = str(Path(__file__).with_name("input_program.py"))

_KEPT_VARIABLES = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
"""Of the gateway's environment: what an interpreter needs to find its libraries. The rest may hold
secrets."""

IDLE_SECONDS = 60.0
"""Without an input, before the process ends: it holds about 10 MiB."""

ANSWER_SECONDS = 20.0
"""For one answer, of which `input_program.CPU_SECONDS` are work: the machine may be loaded."""

WAIT_SECONDS = 30.0
"""For an input to be checked, with all those before it: as long as requests wait for a worker."""

MOST_WAITING = 256
"""Inputs that wait to be checked, each up to the largest body in size."""

MOST_KILLS = 2
"""Processes that are killed over one input, before it is refused."""

MOST_ANSWER_BYTES = 64 * 1024

_FIRST_BYTES = {
    b'{"type":"array"}': b"[",
    b'{"type":"object"}': b"{",
    b'{"type":"string"}': b'"',
}
"""By a schema that says only of what kind an input is, the first byte of whatever matches it: that
needs no process. The texts are those that the SDKs derive from `dict`, `list` and `str`."""

_HEAD = struct.Struct(">I")

_decode_mismatches = msgspec.json.Decoder(list[tuple[list[str | int], str]]).decode


class _ProgramEndedError(Exception):
    """The process has ended without an answer, or takes too long for one; what it said last."""


class _Job:
    """One input that waits to be checked."""

    __slots__ = ("done", "error", "payload")

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self.done = trio.Event()
        self.error: GatewayError | None = None


class InputChecker:
    """See the module's docstring. `run` must be running while inputs are checked."""

    def __init__(
        self,
        agent: str,
        schema: bytes,
        *,
        places: CheckerPlaces | None = None,
        checks: str = "input",
    ) -> None:
        """`places` are those for the processes of all agents. `checks` is what messages call that
        which is checked."""
        self.agent = agent
        self._places = CheckerPlaces() if places is None else places
        self._checks = checks
        self.schema = schema
        self._first_byte = _FIRST_BYTES.get(schema)
        self.unusable: str | None = None
        """Why nothing is checked."""
        self._jobs: deque[_Job] = deque()
        self._asked = trio.Event()
        self._accepted = False
        """Whether a process has been able to use the schema."""
        self._kills = 0
        """Processes in a row that were killed while they worked."""
        self._ended = False
        self._process: WorkerProcess | None = None
        self._has_place = False

    def __repr__(self) -> str:
        process = "no process" if self._process is None else repr(self._process)
        return f"<InputChecker {self.agent}, {len(self._jobs)} waiting, {process}>"

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    async def check(self, payload: Payload, within: float = math.inf) -> None:
        """Check one input for a caller who waits at most `within` seconds. Raises InvalidRequest,
        Overloaded, and ClockRanOut if it waits that long."""
        if self.unusable is not None or self._ended or payload[:1] == self._first_byte:
            return
        if len(self._jobs) >= MOST_WAITING:
            raise self._overloaded(f"of which {len(self._jobs)} wait")
        job = _Job(payload)
        self._jobs.append(job)
        self._asked.set()
        began = trio.current_time()
        try:
            with trio.move_on_after(min(within, WAIT_SECONDS)):
                await job.done.wait()
        finally:
            self._forget(job)
        if not job.done.is_set():
            if within <= WAIT_SECONDS:
                raise ClockRanOut("total", trio.current_time() - began, within)
            raise self._overloaded(f"for more than {WAIT_SECONDS:g} s")
        if job.error is not None:
            raise copy(job.error)

    def _forget(self, job: _Job) -> None:
        """Nobody waits for a job any more. The first one may be at a process."""
        job.payload = b""
        if not job.done.is_set() and job is not self._jobs[0]:
            self._jobs.remove(job)

    def _overloaded(self, how: str) -> Overloaded:
        message = f"{self._checks}s for agent {self.agent!r} wait to be checked, {how}"
        if not self._has_place:
            most = self._places.most
            message += f": all {most} processes that check inputs are busy with other agents'"
        return Overloaded(message, retry_after=1)

    async def run(self) -> None:
        """Check what is asked for, until cancelled; then nothing is checked any more."""
        try:
            while self.unusable is None:
                await self._wait_for_job()
                async with self._places.take() as place:
                    self._has_place = True
                    if self._skip_left():
                        await self._serve(place)
                    self._has_place = False
        finally:
            self._ended = True
            while self._jobs:
                self._jobs.popleft().done.set()

    async def _wait_for_job(self) -> None:
        while not self._jobs:
            self._asked = trio.Event()
            await self._asked.wait()

    def _skip_left(self) -> bool:
        """Pass over those who have left; whether anybody waits."""
        while self._jobs and not self._jobs[0].payload:  # who asked has left
            self._answer(None)
        return bool(self._jobs)

    async def _has_next(self, place: Place) -> bool:
        """Wait for an input to check. False: the process has to end."""
        if self._skip_left():
            return True
        self._asked = trio.Event()
        return await place.idle_until(self._asked, IDLE_SECONDS)

    async def _serve(self, place: Place) -> None:
        """Check inputs by one process, until it has nothing to do or has ended."""
        try:
            async with self._started() as process:
                await process.register()
                await self._talk(process, place)
        except _ProgramEndedError as ended:
            self._blame(str(ended), killed=process.returncode == -signal.SIGKILL)
        except SpawnError as error:
            self._answer(Overloaded(f"the input could not be checked: {error}", retry_after=1))

    async def _talk(self, process: WorkerProcess, place: Place) -> None:
        """Raises _ProgramEndedError."""
        refused = await _ask(process, self.schema)
        if refused:
            self._give_up(refused[1:].decode("utf-8", "replace"))
        self._accepted = not refused
        while self._accepted and await self._has_next(place):
            if process.ended:  # while it had nothing to do
                return
            if payload := self._jobs[0].payload:
                answer = await _ask(process, payload)
                self._answer(_mismatch(answer, self._checks) if answer else None)
            if place.turn_is_over():
                return

    def _blame(self, words: str, *, killed: bool) -> None:
        """Find out why a process has ended. `killed`: the kernel does not do that for taking too
        much of what the program limits; but anybody may, when the machine has no memory."""
        self._kills = self._kills + 1 if killed else 0
        if killed and self._kills < MOST_KILLS:
            return  # the next process tries again
        self._kills = 0
        if not self._accepted:
            self._give_up(words or "it takes too much time or memory to be read")
        elif self._jobs:
            self._answer(
                InvalidRequest(
                    "input takes too much time or memory to be checked against the schema that "
                    f"agent {self.agent!r} declares",
                    field="input",
                )
            )

    def _answer(self, error: GatewayError | None) -> None:
        job = self._jobs.popleft()
        job.error = error
        job.done.set()

    def _give_up(self, reason: str) -> None:
        self.unusable = reason
        message = (
            f"{self._checks}s are not checked: the schema that the agent declares cannot be used: "
            f"{reason}"
        )
        logs.event(log, logging.WARNING, message, agent=self.agent)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[WorkerProcess]:
        """A process, which is killed and reaped at the end."""
        env = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        process = spawn(Launch((sys.executable, "-P", PROGRAM), env))
        self._process = process
        try:
            yield process
        finally:
            process.signal_group(signal.SIGKILL)
            with trio.CancelScope(shield=True):  # it ends at once
                await process.wait()
            process.close()
            self._process = None


async def _ask(process: WorkerProcess, frame: Payload) -> bytes:
    """Write one frame and read the answer. Raises _ProgramEndedError."""
    with trio.move_on_after(ANSWER_SECONDS):
        await _write(process, _HEAD.pack(len(frame)))
        await _write(process, frame)
        (size,) = _HEAD.unpack(await _read(process, _HEAD.size))
        if size <= MOST_ANSWER_BYTES:
            return await _read(process, size)
    raise _ProgramEndedError


async def _write(process: WorkerProcess, data: Payload) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(process.stdin, rest) :]
        except BlockingIOError:
            await writable(process.stdin)
        except OSError:
            raise _ProgramEndedError(_last_line(process)) from None


async def _read(process: WorkerProcess, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await readable(process.stdout)
        try:
            piece = os.read(process.stdout, size - len(data))
        except BlockingIOError:
            continue
        if not piece:
            raise _ProgramEndedError(_last_line(process))
        data += piece
    return data


def _last_line(process: WorkerProcess) -> str:
    """Of an interpreter that could not even start the program."""
    with suppress(OSError):
        said = os.read(process.stderr, MOST_ANSWER_BYTES)
        return said.decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    return ""


def _mismatch(answer: bytes, checks: str) -> InvalidRequest:
    """The 400 for an input that does not match: the places as the SDKs write them, and the first
    one also as a JSON Pointer (RFC 6901) into the request's body."""
    found = [([checks, *keys], text) for keys, text in _decode_mismatches(answer)]
    message = "; ".join(f"{_dotted(keys)}: {text}" for keys, text in found)
    keys, expectation = found[0]
    return InvalidRequest(message, field=checks, pointer=_pointer(keys), expected=expectation)


def _dotted(keys: list[str | int]) -> str:
    first, *rest = keys
    return str(first) + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in rest)


def _pointer(keys: list[str | int]) -> str:
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
