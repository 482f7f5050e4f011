"""A worker that is asked again what another one was asked.

It is started as the gateway does it, without the sandbox: pipes for stdin and stdout, and a process
group of its own, which is ended as a whole. Requests are sent one after the other to one process,
so that a worker that remembers a conversation does so again; the next one starts a new process if
the last has ended, hung or broken the protocol.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio.abc import ByteSendStream, Process
from msgspec import Raw

from protocol.gateway_side import GatewayConnection

from .answer import Answer
from .recording import ENDED, Message, Recording, register

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_SECONDS = 5.0
"""Between the end of a worker's stdin and SIGKILL."""


class Player:
    """Use as a context manager. `patience`: seconds of silence that are an answer, too."""

    def __init__(self, command: Sequence[str], *, patience: float) -> None:
        self._command = command
        self._patience = patience
        self._process: Process | None = None
        self._connection = GatewayConnection()
        self._ids = iter(range(1, 1 << 53))

    async def __aenter__(self) -> Player:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end()

    async def ask(self, recording: Recording) -> Answer:
        """The answer to a recorded request. Raises OSError if the worker cannot be started."""
        if self._process is None:
            await self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        answer = Answer(recording.method)
        wire_id = register(self._connection, recording)
        request = Message(
            recording.request.jsonrpc, recording.method, recording.request.params, wire_id
        )
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            # Beside the reading: a worker may write before it has read all of a request.
            tasks.start_soon(_send, self._process.stdin, request)
            with anyio.move_on_after(self._patience) as silence:
                to_cancel = recording.cancelled_after
                while not answer.is_whole:
                    if to_cancel is not None and len(answer.value.get("text", "")) >= to_cancel:
                        to_cancel = None
                        await self._cancel(wire_id)
                    await self._receive(answer, began)
                    silence.deadline = anyio.current_time() + self._patience
            tasks.cancel_scope.cancel()
        if not answer.is_whole:
            answer.end_without(f"nothing came within {self._patience:g} s")
        if self._connection.broken or "ended" in answer.value:
            await self._end()
        return answer

    async def _receive(self, answer: Answer, began: float) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            data = await self._process.stdout.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            answer.end_without(ENDED)
            return
        for message in self._connection.receive_data(data):
            answer.add(message, time.monotonic() - began)

    async def _cancel(self, wire_id: int) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            params = Raw(b'{"id":%d}' % wire_id)
            await _send(self._process.stdin, Message("2.0", "cancel", params))

    async def _start(self) -> None:
        self._connection = GatewayConnection(ids=self._ids)
        self._process = await anyio.open_process(self._command, stderr=None, start_new_session=True)

    async def _end(self) -> None:
        """As the gateway ends a worker: the end of its stdin, and a moment to act upon it."""
        process, self._process = self._process, None
        if process is None:
            return
        # Shielded and bounded: no process is left behind.
        with anyio.CancelScope(shield=True):
            if process.stdin is not None:
                with suppress(anyio.BrokenResourceError, OSError):
                    await process.stdin.aclose()
            with anyio.move_on_after(EXIT_SECONDS):
                await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()


async def _send(stdin: ByteSendStream, message: Message) -> None:
    # A worker that closed its stdin says more by its answers, or its end.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stdin.send(msgspec.json.encode(message) + b"\n")
