"""The server of one agent over the two descriptors of the wire.

# Theory of operation

Everything here runs on the event loop's thread, except handlers that are plain functions. One task
reads the gateway's lines; each async handler is a task, and each plain one a job in a daemon
thread. Whatever a handler does, its request ends in `_finish`, exactly once, with one line, and
nothing is sent for the request afterwards. A request holds its slot until its handler has really
ended, also after a cancel: an answer means that no code of the request runs any more.

The server ends in one of three ways:

- at the end of stdin, running and waiting requests finish, all lines are written, and the status is
  0. Threads of cancelled requests are not waited for.
- on SIGTERM or SIGINT, every handler is cancelled; coroutines are waited for, threads are not. The
  status is 128 plus the signal's number. A second signal ends the process at once.
- when stdout is closed, or a line of the gateway breaks the protocol, as on a signal, with status
  1.
"""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from protocol import (
    Cancel,
    Chat,
    ErrorCode,
    FromGateway,
    Invoke,
    Method,
    RemoteProtocolError,
    Unsupported,
)
from protocol.worker_side import WorkerConnection

from .answer import chunk_encoder, encode_answer, encode_end, explain_exception
from .context import Context, InvalidInput, context_of
from .handler import Handler, Served
from .loops import Backend, current_loop
from .outbox import HIGH_WATER_BYTES, Outbox
from .stdio import Stdio
from .threads import Threads
from .turn import Turn

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_STREAMED = object()
"""Takes the place of the result of a handler whose chunks have been sent."""


def run(agent: Served, wire: Stdio, connection: WorkerConnection, *, backend: Backend) -> int:
    """Serve until the end of stdin, a signal, or a broken wire; returns the exit status."""
    gc.freeze()  # imported modules are never garbage: collections need not traverse them
    return anyio.run(_serve, agent, wire, connection, backend, backend=backend)


async def _serve(agent: Served, wire: Stdio, connection: WorkerConnection, backend: Backend) -> int:
    async with anyio.create_task_group() as tasks:
        server = _Server(agent, wire, connection, tasks, backend)
        await server.serve()
        tasks.cancel_scope.cancel()
    return server.status


class _Request:
    """One request from its line to its answer."""

    __slots__ = (
        "cancelled",
        "context",
        "handler",
        "id",
        "in_thread",
        "name",
        "payload",
        "scope",
        "task",
        "turn",
    )

    def __init__(self, event: Invoke | Chat, handler: Handler, turn: Turn) -> None:
        self.id = event.id
        self.name = event.request_id or str(event.id)
        self.handler = handler
        self.turn = turn
        self.payload = event.input if isinstance(event, Invoke) else event.messages
        self.context: Context | None = None
        self.scope: anyio.CancelScope | None = None
        self.task: object = None
        self.in_thread = not handler.is_async
        self.cancelled = False

    def call(self) -> object:
        return self.handler.call(self.payload, self.context)

    def cancel(self) -> None:
        self.cancelled = True
        if self.context is not None:
            self.context.cancelled = True
        if self.scope is not None:
            self.scope.cancel()


class _Server:
    def __init__(
        self,
        agent: Served,
        wire: Stdio,
        connection: WorkerConnection,
        tasks: TaskGroup,
        backend: Backend,
    ) -> None:
        self.status = 0
        self._agent = agent
        self._wire = wire
        self._connection = connection
        self._tasks = tasks
        self._stopped = False
        self._outbox = Outbox(wire.stdout, on_broken=partial(self._stop, 1))
        self._threads = Threads()
        self._running: dict[int, _Request] = {}
        self._waiting: deque[_Request] = deque()
        self._ended = anyio.Event()
        self._until_stopped = anyio.CancelScope()
        self._loop = current_loop(backend, tasks)
        self._contextvars = contextvars.copy_context()

    async def serve(self) -> None:
        self._tasks.start_soon(self._outbox.write_when_possible)
        with self._loop.receive_signals(_ENDING_SIGNALS, self._receive_signal):
            with self._until_stopped:
                await self._loop.read(self._wire.stdin, self._receive_data)
                await self._until_idle()
                await self._outbox.wait_until_empty()
            await self._until_idle()
            self._outbox.flush()

    def _receive_data(self, data: bytes) -> None:
        try:
            events = self._connection.receive_data(data)
        except RemoteProtocolError as error:
            if not self._stopped:
                _log(f"{error.message}; ending\n")
            self._stop(1)
            return
        for event in events:
            self._receive(event)

    def _receive(self, event: FromGateway) -> None:
        if isinstance(event, Cancel):
            self._cancel(event.id)
        elif isinstance(event, Unsupported):
            self._refuse(event.id, ErrorCode.HANDLER_NOT_IMPLEMENTED, f"no method {event.method!r}")
        else:
            self._admit(event)

    def _admit(self, event: Invoke | Chat) -> None:
        method: Method = "invoke" if isinstance(event, Invoke) else "chat"
        handler = self._agent.handlers.get(method)
        if handler is None:
            has = " and ".join(self._agent.handlers)
            message = f"agent {self._agent.name!r} has no handler for {method}, only for {has}"
            self._refuse(event.id, ErrorCode.HANDLER_NOT_IMPLEMENTED, message)
            return
        turn = Turn(self._connection, event.id, method, events=event.events, tools=event.tools)
        request = _Request(event, handler, turn)
        if handler.takes_context:
            try:
                request.context = context_of(event)
            except InvalidInput as error:
                self._refuse(event.id, ErrorCode.INVALID_INPUT, str(error))
                return
        if len(self._running) < self._agent.concurrency:
            self._start(request)
        else:
            self._waiting.append(request)

    def _start(self, request: _Request) -> None:
        self._running[request.id] = request
        # Each request starts with the context variables of the module's import, and leaks none.
        run = self._contextvars.copy().run
        if request.in_thread:
            self._threads.run(partial(self._run_in_thread, request, run))
        else:
            self._spawn(request, request.call, run)

    async def _run_on_loop(self, request: _Request, call: Callable[[], Any]) -> None:
        try:
            with anyio.CancelScope() as request.scope:
                if request.cancelled:
                    request.scope.cancel()
                result = call()
                if hasattr(type(result), "__await__"):
                    result = await result
                if hasattr(type(result), "__anext__"):
                    await self._stream_on_loop(request, result)
                    result = _STREAMED
            line = self._encode_answer(request, result)
        except BaseException as error:  # noqa: BLE001  (whatever an agent raises is its answer)
            line = self._encode_failure(request, error)
        self._finish(request, line)

    async def _stream_on_loop(self, request: _Request, chunks: AsyncIterator[object]) -> None:
        outbox = self._outbox
        encode = chunk_encoder(request.turn)
        try:
            async for chunk in chunks:
                line = encode(chunk)
                if line and outbox.put(line):
                    self._loop.call_soon(outbox.flush)
                if outbox.size > HIGH_WATER_BYTES:
                    await outbox.wait_for_room()
        finally:
            if hasattr(chunks, "aclose"):
                await chunks.aclose()

    def _run_in_thread(self, request: _Request, run: Callable[..., Any]) -> None:
        try:
            result = run(request.call)
            if hasattr(type(result), "__next__"):
                run(self._stream_in_thread, request, result)
                result = _STREAMED
            if hasattr(type(result), "__await__") or hasattr(type(result), "__anext__"):
                # The plain function wraps an async one.
                end: Callable[[], object] = partial(self._continue_on_loop, request, result, run)
            else:
                end = partial(self._finish, request, self._encode_answer(request, result))
        except BaseException as error:  # noqa: BLE001  (whatever an agent raises is its answer)
            end = partial(self._finish, request, self._encode_failure(request, error))
        # RuntimeError: the loop has ended without waiting for this thread, so nobody wants the
        # answer.
        with suppress(RuntimeError):
            self._loop.call_soon_from_thread(end)

    def _stream_in_thread(self, request: _Request, chunks: Iterator[object]) -> None:
        outbox = self._outbox
        encode = chunk_encoder(request.turn)
        try:
            for chunk in chunks:
                if request.cancelled:
                    break
                line = encode(chunk)
                if line and outbox.put_from_thread(line):
                    self._loop.call_soon_from_thread(outbox.flush)
                outbox.wait_for_room_in_thread(unless=lambda: request.cancelled)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def _continue_on_loop(self, request: _Request, result: object, run: Callable[..., Any]) -> None:
        self._threads.job_done()
        request.in_thread = False
        self._spawn(request, lambda: result, run)

    def _spawn(self, request: _Request, call: Callable[[], Any], run: Callable[..., Any]) -> None:
        request.task = run(self._loop.spawn, self._run_on_loop, request, call)

    def _encode_answer(self, request: _Request, result: object) -> bytes:
        if request.cancelled:
            return self._encode_cancelled(request.id)
        if result is _STREAMED:
            return encode_end(request.turn)
        return encode_answer(request.turn, result)

    def _encode_failure(self, request: _Request, error: BaseException) -> bytes:
        if request.cancelled:
            return self._encode_cancelled(request.id)
        code, message = explain_exception(error)
        if code != ErrorCode.INVALID_INPUT:
            trace = "".join(traceback.format_exception(error))
            what = f"request {request.name}: the {request.handler.method} handler failed\n{trace}"
            # The gateway logs such lines as this request's (protocol/README.md, "stderr").
            _log("".join(f"@{request.id} {line}\n" for line in what.splitlines()))
        return self._connection.send_error(request.id, code, message)

    def _encode_cancelled(self, request_id: int) -> bytes:
        return self._connection.send_error(request_id, ErrorCode.CANCELLED, "cancelled")

    def _finish(self, request: _Request, line: bytes) -> None:
        if request.in_thread:
            self._threads.job_done()
        del self._running[request.id]
        self._send(line)
        if self._waiting:
            self._start(self._waiting.popleft())
        self._ended.set()

    def _refuse(self, request_id: int, code: int, message: str) -> None:
        self._send(self._connection.send_error(request_id, code, message))

    def _send(self, line: bytes) -> None:
        self._outbox.put(line)
        self._outbox.flush()

    def _cancel(self, request_id: int) -> None:
        running = self._running.get(request_id)
        if running is not None:
            running.cancel()
            self._outbox.wake_threads()
            return
        for request in self._waiting:
            if request.id == request_id:
                self._waiting.remove(request)
                self._send(self._encode_cancelled(request_id))
                return

    def _receive_signal(self, number: int) -> None:
        if self._stopped:
            os._exit(128 + number)
        self._stop(128 + number)

    def _stop(self, status: int) -> None:
        self._stopped = True
        self.status = self.status or status
        self._waiting.clear()
        for request in self._running.values():
            request.cancel()
        self._outbox.wake_threads()
        self._until_stopped.cancel()
        self._ended.set()

    async def _until_idle(self) -> None:
        """Return when only threads of cancelled requests still run, which may never end."""
        while any(not (r.cancelled and r.in_thread) for r in self._running.values()):
            self._ended = anyio.Event()
            await self._ended.wait()


def _log(text: str) -> None:
    # An agent may have closed or replaced stderr; its request is answered nevertheless.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
