"""A gateway in miniature: starts one worker process and speaks the wire with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import trio

from protocol import (
    Chunk,
    End,
    Event,
    Failure,
    FromWorker,
    Malformed,
    Outcome,
    Ready,
    Result,
)
from protocol.gateway_side import GatewayConnection

BOUND = 30
"""Seconds after which a worker that a test waits for hangs: it is killed, and the test fails."""


@dataclass(frozen=True)
class Answer:
    """Everything that came for one request."""

    words: tuple[Any, ...]
    """Chunks as strings, and events as dicts, in order."""
    end: Result | End | Failure

    @property
    def chunks(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if isinstance(word, str))

    @property
    def events(self) -> tuple[dict[str, Any], ...]:
        return tuple(word for word in self.words if isinstance(word, dict))

    @property
    def outcome(self) -> dict[str, Any]:
        """What came with the end: some of `finish`, `usage` and `asks`."""
        assert not isinstance(self.end, Failure), self
        told = self.end.outcome or Outcome()
        found: dict[str, Any] = {"finish": told.finish} if told.finish else {}
        for name in ("usage", "asks"):
            if (text := getattr(told, name)) is not None:
                found[name] = msgspec.json.decode(text)
        return found

    @property
    def value(self) -> Any:
        assert isinstance(self.end, Result), self
        assert not self.chunks, self
        return msgspec.json.decode(self.end.value)

    @property
    def text(self) -> str:
        assert isinstance(self.end, End), self
        return "".join(self.chunks)

    @property
    def failure(self) -> tuple[int, str]:
        assert isinstance(self.end, Failure), self
        return self.end.code, self.end.message


class Worker:
    """One worker process. Everything that it says is checked against the protocol."""

    def __init__(self, process: trio.Process, cwd: str | os.PathLike[str] | None) -> None:
        self.process = process
        self.cwd = cwd
        self.connection = GatewayConnection(ids=count(1))
        self.stderr = ""
        self._said = trio.lowlevel.ParkingLot()
        self._events: list[FromWorker] = []

    async def ready(self) -> Ready:
        event = await self.next_event()
        assert isinstance(event, Ready), event
        return event

    async def next_event(self) -> FromWorker:
        assert self.process.stdout is not None
        while not self._events:
            data = await self.process.stdout.receive_some()
            assert data, f"end of stdout; stderr: {self.stderr}"
            self._events += self.connection.receive_data(data)
        event = self._events.pop(0)
        assert not isinstance(event, Malformed), event
        return event

    def ignore_declared_concurrency(self) -> None:
        """Send more requests at once than the worker asked for, which no gateway does."""
        self.connection._concurrency = 1_000_000

    async def send_invoke(self, value: Any = None, **settings: Any) -> int:
        return await self._send("invoke", value, **settings)

    async def send_chat(self, messages: Any, **settings: Any) -> int:
        return await self._send("chat", messages, **settings)

    async def invoke(self, value: Any = None, **settings: Any) -> Answer:
        return await self.answer(await self.send_invoke(value, **settings))

    async def chat(self, messages: Any = (), **settings: Any) -> Answer:
        return await self.answer(await self.send_chat(messages, **settings))

    async def answer(self, request_id: int) -> Answer:
        """What came for one request, when nothing else is in flight."""
        return (await self.answers(request_id))[request_id]

    async def answers(self, *request_ids: int) -> dict[int, Answer]:
        """What came for these requests. Nothing else may be in flight."""
        words: dict[int, list[Any]] = {request_id: [] for request_id in request_ids}
        answers: dict[int, Answer] = {}
        while len(answers) < len(request_ids):
            event = await self.next_event()
            assert isinstance(event, (Chunk, Event, Result, End, Failure)), event
            if isinstance(event, Chunk):
                words[event.id].append(msgspec.json.decode(event.text, type=str))
            elif isinstance(event, Event):
                words[event.id].append(msgspec.json.decode(event.event, type=dict[str, Any]))
            else:
                answers[event.id] = Answer(tuple(words.pop(event.id)), event)
        return answers

    async def cancel(self, request_id: int) -> None:
        await self._write(self.connection.send_cancel(request_id))

    async def close_stdin(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def finish(self) -> int:
        """Close stdin, and return the exit status."""
        await self.close_stdin()
        return await self.process.wait()

    async def said_on_stderr(self, text: str) -> None:
        """Return when the worker's stderr holds `text`."""
        while text not in self.stderr:
            await self._said.park()

    async def _send(self, method: str, payload: Any, **settings: Any) -> int:
        settings = {"stream": False, "request_id": "r1", **settings}
        for name in {"context", "tools", "resume"} & settings.keys():
            settings[name] = msgspec.json.encode(settings[name])
        raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        request_id, line = self.connection.send_request(method, raw, **settings)
        await self._write(b"".join(line))
        return request_id

    async def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line)

    async def _drain_stderr(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.stderr += data.decode()
            self._said.unpark_all()


@asynccontextmanager
async def start(
    command: Sequence[str], *, cwd: str | os.PathLike[str] | None = None, handshake: bool = True
) -> AsyncIterator[Worker]:
    """Run `command` as a worker; kill what is left of its group at the end."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        start_new_session=True,
    )
    worker = Worker(process, cwd)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker._drain_stderr)
        try:
            with trio.fail_after(BOUND):
                if handshake:
                    await worker.ready()
                yield worker
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):  # bounded: it was killed
                await process.wait()
            nursery.cancel_scope.cancel()


def sdk(target: str, *, backend: str = "asyncio") -> list[str]:
    """The command that serves an agent of the SDK."""
    return [sys.executable, "-m", "worker", "--backend", backend, target]
