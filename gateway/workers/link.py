"""The wire to one worker: requests into its stdin, and each line of its stdout to its exchange.

Owns the two pipes' bytes and which request is in flight under which id. What a line means is the
protocol's to say, what becomes of the worker its owner's: it is told through `LinkOwner`.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from gateway.errors import (
    AgentFailed,
    ClientTooSlow,
    GatewayError,
    HandlerNotImplemented,
    InvalidAgentResponse,
    InvalidRequest,
)
from gateway.workers.process import LARGE_PIPE_BYTES, READ_BYTES, enlarge_pipe
from protocol import (
    Burst,
    Chunk,
    End,
    ErrorCode,
    Failure,
    FromWorker,
    Malformed,
    Payload,
    Ready,
    RemoteProtocolError,
    Result,
)
from protocol.gateway_side import GatewayConnection, WorkerState

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.workers.process import WorkerProcess

_PIPE_BYTES = 64 * 1024
"""What a pipe holds unless more is asked for (pipe(7))."""

_MAX_READS_OF_REST = LARGE_PIPE_BYTES // READ_BYTES + 1
"""These empty the largest pipe. Bounded, because a process that a worker left behind may write into
it faster than it is read."""


class LinkOwner(Protocol):
    """What a link tells, synchronously, from within `run` or `send`."""

    def on_first_line(self, ready: Ready | None) -> None:
        """The worker has spoken for the first time; None: it does not speak the handshake."""

    def on_answered(self, exchange: Exchange, *, served: bool) -> None:
        """The worker is done with it. `served`: the answer was one."""

    def on_violation(self, error: RemoteProtocolError, *, fatal: bool, placed: bool) -> None:
        """It broke the protocol. `fatal`: nothing that it says can be used any more. `placed`: the
        line was for a request in flight, which has thereby ended."""

    def on_paused(self, *, paused: bool) -> None:
        """Reading its output was stopped, for a client that is slower, or goes on."""

    def on_too_far_ahead(self, exchange: Exchange) -> None:
        """A client is too slow for it, and others wait for words of the same worker."""

    def on_stdin_closed(self) -> None:
        """It no longer takes requests."""


@dataclass(slots=True)
class _InFlight:
    exchange: Exchange
    offset: int
    """Where its line begins in all that was ever sent to the worker, in bytes."""
    cancelled: bool = False


class Link:
    """See the module's docstring. `run` reads until the end of stdout or a fatal violation."""

    def __init__(self, process: WorkerProcess, owner: LinkOwner, nursery: trio.Nursery) -> None:
        self._process = process
        self._owner = owner
        self._nursery = nursery
        self._connection = GatewayConnection()
        self._in_flight: dict[int, _InFlight] = {}
        self._ids: dict[Exchange, int] = {}
        self._unwritten: deque[memoryview] = deque()
        self._sent = 0
        self._written = 0
        self._taken = 0
        self._resume: trio.Event | None = None
        self.ready: Ready | None = None

    def __repr__(self) -> str:
        return f"<Link to {self._process.pid}: {self._connection}>"

    @property
    def state(self) -> WorkerState:
        return self._connection.worker_state

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What the worker still owes an answer to, oldest first."""
        return tuple(entry.exchange for entry in self._in_flight.values())

    # Into stdin

    def send(self, exchange: Exchange) -> None:
        """Write its request, as much as goes in now; the rest follows by itself."""
        call = exchange.call
        wire_id, line = self._connection.send_request(
            call.method,
            call.payload,
            stream=call.stream,
            context=call.context,
            request_id=call.request_id,
        )
        self._in_flight[wire_id] = _InFlight(exchange, self._sent)
        self._ids[exchange] = wire_id
        self._write(*line)

    def cancel(self, exchange: Exchange) -> bool:
        """Say that nobody waits for it any more; whether it is in flight and was not told before.

        A worker without the handshake is not told, one that has yet to speak when it has.
        """
        wire_id = self._ids.get(exchange)
        if wire_id is None or self._in_flight[wire_id].cancelled:
            return False
        self._in_flight[wire_id].cancelled = True
        if self.state is WorkerState.READY:
            self._write(self._connection.send_cancel(wire_id))
        return True

    def unread(self) -> list[Exchange]:
        """The exchanges whose bytes no process can have read: the worker took none of them."""
        taken = self._look_at_taken()
        return [entry.exchange for entry in self._in_flight.values() if entry.offset >= taken]

    def _look_at_taken(self) -> int:
        """How many of the bytes that were ever written to it the worker has taken."""
        # Never fewer than were seen before: a worker may write into its own stdin.
        self._taken = max(self._taken, self._written - self._process.unread_input())
        return self._taken

    def _write(self, *line: Payload) -> None:
        idle = not self._unwritten
        size = sum(map(len, line))
        self._sent += size
        if size > _PIPE_BYTES and self._process.stdin >= 0:
            enlarge_pipe(self._process.stdin)
        self._unwritten += map(memoryview, line)
        if idle and not self._write_some():
            self._nursery.start_soon(self._write_rest)

    def _write_some(self) -> bool:
        """Write until all is written, True, or the pipe is full, False."""
        while self._unwritten:
            data = self._unwritten[0]
            try:
                count = os.write(self._process.stdin, data)
            except BlockingIOError:
                return False
            except OSError:
                # EPIPE: it closed its stdin; EBADF: we did. What it did not take stays unwritten.
                self._owner.on_stdin_closed()
                return True
            self._written += count
            if count == len(data):
                self._unwritten.popleft()
            else:
                self._unwritten[0] = data[count:]
        return True

    async def _write_rest(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._process.stdin)
            while not self._write_some():
                await trio.lowlevel.wait_writable(self._process.stdin)
        except (trio.ClosedResourceError, OSError):
            self._owner.on_stdin_closed()

    # Out of stdout

    async def run(self) -> None:
        """Read until the end of stdout, or until the worker has broken the protocol for good."""
        while not self._connection.broken:
            await trio.lowlevel.wait_readable(self._process.stdout)
            if self._resume is not None:
                await self._resume.wait()
            data = self._read()
            if data == b"":
                return
            if data is not None:
                self._receive(data)

    def read_rest(self) -> None:
        """Read what is in the pipe now, without waiting: all of it, once the worker has ended."""
        for _ in range(_MAX_READS_OF_REST):
            data = None if self._connection.broken else self._read()
            if not data:
                return
            self._receive(data)

    def _read(self) -> bytes | None:
        """Read once, without waiting: empty at the end of stdout, None when nothing is there."""
        try:
            data = os.read(self._process.stdout, READ_BYTES)
        except BlockingIOError:
            return None
        if len(data) >= _PIPE_BYTES:
            enlarge_pipe(self._process.stdout)
        return data

    def _receive(self, data: bytes) -> None:
        first = self.state is WorkerState.SILENT
        now = trio.current_time()
        behind: Exchange | None = None
        events = self._connection.receive_batch(data)
        if self._connection.partial_bytes >= _PIPE_BYTES:
            self._forget_read_payloads()  # a large answer is coming in
        if self._connection.broken:
            # Told first: an answer that came before it would bring the worker its next request.
            self._receive_other(events.pop())
        for event in events:
            if first:
                first = False
                self._first_line(event, now)
            if isinstance(event, Burst | Chunk):
                exchange = self._in_flight[event.id].exchange
                exchange.add_chunks(event.texts if isinstance(event, Burst) else [event.text], now)
                if exchange.full:
                    behind = exchange
            else:
                self._receive_other(event)
        if behind is not None and behind.full and not behind.ended:
            self._hold_back(behind)

    def _forget_read_payloads(self) -> None:
        taken = self._look_at_taken()
        for entry in self._in_flight.values():
            if entry.offset < taken:
                entry.exchange.forget_payload()

    def _first_line(self, event: FromWorker | Burst, now: float) -> None:
        self.ready = event if isinstance(event, Ready) else None
        unanswered = self._connection.in_flight  # the line's own read may hold answers, too
        for wire_id, entry in self._in_flight.items():
            entry.exchange.worker_spoke(now)
            if entry.cancelled and self.ready is not None and wire_id in unanswered:
                self._write(self._connection.send_cancel(wire_id))
        self._owner.on_first_line(self.ready)

    def _receive_other(self, event: FromWorker | Burst) -> None:
        if isinstance(event, Result):
            self._answered(event.id).end(event.value)
        elif isinstance(event, End):
            self._answered(event.id).end()
        elif isinstance(event, Failure):
            self._answered(event.id).fail(_as_error(event))
        elif isinstance(event, Malformed):
            if event.id is not None:
                self._answered(event.id, served=False).fail(invalid_response(event.error))
            self._owner.on_violation(
                event.error, fatal=self._connection.broken, placed=event.id is not None
            )

    def _answered(self, wire_id: int, *, served: bool = True) -> Exchange:
        exchange = self._in_flight.pop(wire_id).exchange
        del self._ids[exchange]
        self._owner.on_answered(exchange, served=served)
        return exchange

    def _hold_back(self, exchange: Exchange) -> None:
        if len(self._in_flight) > 1:
            exchange.fail(ClientTooSlow())
            self._owner.on_too_far_ahead(exchange)
            return
        self._resume = trio.Event()
        exchange.on_drained = self._go_on
        self._owner.on_paused(paused=True)

    def _go_on(self) -> None:
        if self._resume is not None:
            self._resume.set()
            self._resume = None
            self._owner.on_paused(paused=False)


def invalid_response(error: RemoteProtocolError) -> InvalidAgentResponse:
    """What a violation of the protocol is to the client."""
    return InvalidAgentResponse(
        f"the agent's answer is invalid: {error.message}", violation=error.violation.value
    )


def _as_error(failure: Failure) -> GatewayError:
    if failure.code == ErrorCode.HANDLER_NOT_IMPLEMENTED:
        return HandlerNotImplemented(failure.message or "the agent has no such handler")
    if failure.code == ErrorCode.INVALID_INPUT:
        return InvalidRequest(failure.message or "the agent refused the input")
    return AgentFailed(failure.message or "the agent's handler failed", code=failure.code)
