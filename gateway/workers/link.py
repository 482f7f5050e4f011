"""The wire to one worker: requests into its stdin, and each line of its stdout to its exchange.

Owns the bytes of the two pipes, and which exchange is in flight under which id. The protocol says
what a line means (`GatewayConnection`, which keeps its own table of ids: those that the lines read
so far have left open, which is ahead of what has been passed on here). What becomes of the worker
is its owner's business, who is told once a whole read has been passed on: what it decides then may
send the next request through this link.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Protocol

import trio

from gateway import clock
from gateway.errors import ClientTooSlow, GatewayError, InvalidRequest
from gateway.needs import unmet_needs
from gateway.readiness import readable
from gateway.workers.events import Answered, CancelIgnored, Paused, Spoke
from gateway.workers.failures import agents_error, invalid_response
from gateway.workers.link_events import FellBehind, InputClosed, LinkEvent, Violated
from gateway.workers.process import LARGE_PIPE_BYTES, READ_BYTES, enlarge_pipe
from gateway.workers.stderr import Named
from gateway.workers.stdin import PIPE_BYTES, Stdin, StdinWriter
from protocol import (
    Burst,
    Chunk,
    End,
    Event,
    Failure,
    FromWorker,
    Malformed,
    Outcome,
    Payload,
    Ready,
    Result,
)
from protocol.gateway_side import GatewayConnection, WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.exchange import Exchange
    from gateway.sandbox.symptoms import Diagnosis

_MAX_READS_OF_REST = LARGE_PIPE_BYTES // READ_BYTES + 1
"""So many reads empty the largest pipe. Bounded, because a process that a worker left behind may
write into it faster than it is read."""

_ANSWERED_KEPT = 64
"""Answered requests whose names are still known: what the worker wrote into its stderr before an
answer may be read after it."""

_JUST = 0.5
"""Seconds after an answer in which what the worker says is about it, if nothing else is in flight:
it may have been written before the answer, and both are read in any order."""

_WORDS = (Burst, Chunk, Event)


class Pipes(Stdin, Protocol):
    """What a link needs of a worker's process: the gateway's ends of its pipes."""

    pid: int
    stdout: int


class Link:
    """See the module's docstring. `run` reads until the end of stdout or a fatal violation.

    `report` takes events: from any method that reads, when the whole of a read was passed on, and
    `InputClosed` from any that writes. `diagnose` finds the limit that an agent's error speaks of.
    """

    def __init__(
        self,
        process: Pipes,
        nursery: trio.Nursery,
        report: Callable[[LinkEvent], None],
        diagnose: Callable[[str], Diagnosis | None] = lambda _: None,
        connect: Callable[[], GatewayConnection] = GatewayConnection,
    ) -> None:
        self._process = process
        self._report = report
        self._diagnose = diagnose
        self._connection = connect()
        self._ready: Ready | None = None
        self._in_flight: dict[int, Exchange] = {}
        self._held: Exchange | None = None
        """A request that waits for the worker's first line. There is one at most: a worker that has
        not spoken is given one."""
        self._answered: dict[int, Named] = {}
        self._read_at = -math.inf
        self._cancelled: dict[int, trio.Event] = {}
        self._stdin = StdinWriter(process, nursery, lambda: report(InputClosed()))
        self._paused = False

    def __repr__(self) -> str:
        return f"<Link to {self._process.pid}: {self._connection}>"

    @property
    def state(self) -> WorkerState:
        return self._connection.worker_state

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The requests that the worker still owes an answer to, oldest first."""
        return (*self._in_flight.values(), *self._held_back)

    @property
    def _held_back(self) -> tuple[Exchange, ...]:
        return () if self._held is None else (self._held,)

    def name_of(self, wire_id: int) -> Named | None:
        """A request that is in flight or was among the last to be answered."""
        exchange = self._in_flight.get(wire_id)
        return self._answered.get(wire_id) if exchange is None else Named.of(exchange)

    def just_answered(self) -> Named | None:
        """The request of the last answer, if it came a moment ago."""
        recent = clock.now() - self._read_at < _JUST
        return next(reversed(self._answered.values()), None) if recent else None

    # Into stdin

    def send(self, exchange: Exchange) -> bool:
        """Write a request, as much of it as the pipe takes now; a task writes the rest.

        False: the worker is not to have it, or not before it has spoken.
        """
        call = exchange.call
        if call.needs and not self._meets_needs(exchange):
            return False
        wire_id, line = self._connection.send_request(
            call.method,
            call.payload,
            stream=call.stream,
            context=call.context,
            request_id=call.request_id,
            events=call.events,
            tools=call.tools,
            resume=call.resume,
            traceparent=None if call.trace is None else call.trace.parent,
            tracestate=None if call.trace is None else call.trace.state,
        )
        exchange.wire_id, exchange.offset = wire_id, self._stdin.sent
        exchange.size = sum(map(len, line))
        self._in_flight[wire_id] = exchange
        # A worker that has something to do is not woken for each of the requests of one turn.
        self._stdin.write(line, exchange.size, may_wait=len(self._in_flight) > 1)
        return True

    def _meets_needs(self, exchange: Exchange) -> bool:
        """Whether the worker has declared what a request needs.

        One that has not spoken yet is not sent the request before it has; one that did not declare
        it, never.
        """
        if self.state is WorkerState.SILENT:
            self._held = exchange
            return False
        error = unmet_needs(exchange.call.agent, exchange.call.needs, self._ready)
        if error is not None:
            exchange.fail(error)
            self._report(Answered(exchange, served=False))
        return error is None

    def _release_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self.send(held)

    def cancel(self, exchange: Exchange) -> trio.Event | None:
        """Tell the worker that nobody waits for a request any more.

        Returns what is set once the worker has ended it; None if the request is not in flight here,
        or was cancelled before. A worker that has not spoken yet is told when it turns out to speak
        the handshake; one without the handshake is never told.
        """
        if exchange is self._held:
            self._held = None
            # Without its declaration within the `start` clock: it may hang as well as be bare.
            silent = isinstance(exchange.error, InvalidRequest)
            self._report(CancelIgnored(exchange) if silent else Answered(exchange, served=False))
            return None
        wire_id = exchange.wire_id
        if self._in_flight.get(wire_id) is not exchange or wire_id in self._cancelled:
            return None
        self._cancelled[wire_id] = answered = trio.Event()
        if self.state is WorkerState.READY:
            self._send_cancel(wire_id)
        return answered

    def _send_cancel(self, wire_id: int) -> None:
        line = self._connection.send_cancel(wire_id)
        self._stdin.write((line,), len(line))

    def unread(self) -> tuple[Exchange, ...]:
        """The requests of which the worker has taken no byte out of its stdin."""
        taken = self._stdin.look_at_taken()
        unread = tuple(e for e in self._in_flight.values() if e.offset >= taken)
        return (*unread, *self._held_back)

    def cut_off(self) -> tuple[Exchange, ...]:
        """The requests of which the worker has taken a part, and can never take the rest.

        Only true once the worker has closed its stdin; there is one at most.
        """
        taken = self._stdin.look_at_taken()
        return tuple(e for e in self._in_flight.values() if e.offset < taken < e.offset + e.size)

    def withdraw(self, exchange: Exchange) -> None:
        """Forget a request: whatever the worker says of it is ignored."""
        if exchange is self._held:
            self._held = None
            return
        self._in_flight.pop(exchange.wire_id, None)
        if (answered := self._cancelled.pop(exchange.wire_id, None)) is not None:
            answered.set()

    def has_read(self, exchange: Exchange) -> bool:
        """As `gateway.exchange.Carrier.has_read`."""
        return exchange.offset < self._stdin.look_at_taken()

    def catch_up(self) -> None:
        """As `gateway.exchange.Carrier.catch_up`. A worker that is paused stays so."""
        if not self._paused:
            self.read_rest()

    # Out of stdout

    async def run(self) -> None:
        """Read until the end of stdout, or until the worker has broken the protocol for good."""
        while not self._connection.broken:
            await readable(self._process.stdout)
            data = self._read()
            if data == b"":
                return
            if data is None:
                continue
            ahead = self._receive(data)
            del data  # not to be held while nothing comes
            if ahead is None:
                continue
            if len(self._in_flight) == 1:
                self._pause(paused=True)
                await ahead.wait_for_room()
                self._pause(paused=False)
            elif not ahead.spill():
                # Reading goes on for the others, so the slow client's stream ends. Not in
                # `read_rest`, which reads more at once than a client is given the time to take.
                ahead.fail(ClientTooSlow())
                self._report(FellBehind(ahead))

    def _pause(self, *, paused: bool) -> None:
        self._paused = paused
        self._report(Paused(paused))

    def read_rest(self) -> None:
        """Read what is in the pipe now, without waiting: all of it, once the worker has ended."""
        for _ in range(_MAX_READS_OF_REST):
            data = self._read()
            if not data:
                return
            self._receive(data)

    def _read(self) -> bytes | None:
        """Read once, without waiting: None when nothing is there, empty at the end of stdout, which
        a fatal violation is as well.

        `catch_up` may meet the violation while `run` waits for the pipe.
        """
        if self._connection.broken:
            return b""
        # More of one long line, of which each read costs a turn of the loop. Many short lines are
        # work, for which all others wait.
        most = 2 * READ_BYTES if self._connection.partial_bytes >= READ_BYTES else READ_BYTES
        try:
            data = os.read(self._process.stdout, most)
        except BlockingIOError:
            return None
        if len(data) >= PIPE_BYTES:
            enlarge_pipe(self._process.stdout)
        return data

    def _receive(self, data: bytes) -> Exchange | None:
        """Pass on what one read holds, and report it when all of it is passed on.

        Returns the stream that the worker is too far ahead of, if there is one.
        """
        told: list[LinkEvent] = []
        silent = self.state is WorkerState.SILENT
        self._read_at = now = clock.now()
        full: Exchange | None = None
        messages = self._connection.receive_batch(data)
        if self._connection.partial_bytes >= PIPE_BYTES:
            self._forget_read_payloads()  # a large answer is coming in
        if self._connection.broken:
            # Reported first: an answer before it would bring the worker its next request.
            self._pass_on(messages.pop(), told)
        for message in messages:
            if silent:
                silent = False
                told.append(self._first_line(message, now))
            if isinstance(message, _WORDS):
                exchange = self._in_flight.get(message.id)
                if exchange is None:
                    continue  # it was withdrawn
                exchange.add_words(_words(message), now)
                if exchange.full:
                    full = exchange
            else:
                self._pass_on(message, told)
        if len(told) == 1:  # as nearly always
            self._report(told[0])
        elif told:
            # The requests that the worker is given for its answers leave together.
            with self._stdin.corked():
                for event in told:
                    self._report(event)
        if self._held is not None and not self._connection.broken:
            self._release_held()
        return full if full is not None and full.full and not full.ended else None

    def _forget_read_payloads(self) -> None:
        taken = self._stdin.look_at_taken()
        for exchange in self._in_flight.values():
            if exchange.offset < taken:
                exchange.forget_payload()

    def _first_line(self, message: FromWorker | Burst, now: float) -> Spoke:
        self._ready = ready = message if isinstance(message, Ready) else None
        unanswered = self._connection.in_flight  # the same read may hold answers, too
        for wire_id, exchange in self._in_flight.items():
            exchange.worker_started(now)
            if wire_id in self._cancelled and ready is not None and wire_id in unanswered:
                self._send_cancel(wire_id)
        return Spoke(ready)

    def _pass_on(self, message: FromWorker | Burst, told: list[LinkEvent]) -> None:
        if isinstance(message, Malformed):
            if message.id is not None:
                error = invalid_response(message.error)
                self._end(message.id, told, error=error, served=False)
            placed = message.id is not None
            told.append(Violated(message.error, fatal=self._connection.broken, placed=placed))
        elif isinstance(message, Result):
            self._end(message.id, told, result=message.value, outcome=message.outcome)
        elif isinstance(message, End):
            self._end(message.id, told, outcome=message.outcome)
        elif isinstance(message, Failure):
            self._end(message.id, told, error=agents_error(message, self._diagnose))

    def _end(
        self,
        wire_id: int,
        told: list[LinkEvent],
        *,
        result: Payload | None = None,
        outcome: Outcome | None = None,
        error: GatewayError | None = None,
        served: bool = True,
    ) -> None:
        exchange = self._in_flight.pop(wire_id, None)
        if exchange is None:
            return  # it was withdrawn
        self._answered[wire_id] = Named.of(exchange)
        if len(self._answered) > _ANSWERED_KEPT:
            del self._answered[next(iter(self._answered))]
        if self._cancelled and (answered := self._cancelled.pop(wire_id, None)) is not None:
            answered.set()
        if error is None:
            exchange.end(result, outcome)
        else:
            exchange.fail(error)
        told.append(Answered(exchange, served))


def _words(message: Burst | Chunk | Event) -> list[bytes]:
    """What a message adds to its exchange."""
    if isinstance(message, Burst):
        return message.texts
    return [message.text if isinstance(message, Chunk) else message.event]
