"""One request from its admission to its end: where the worker's side meets the client's.

The worker's side tells what happened, synchronously; the client's side waits for it. An exchange
ends once: with a result, with the end of its chunks, or with an error, and whatever is told after
that is ignored. It also knows which clock runs, because it knows what is being waited for; it does
not know processes, the wire or HTTP.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

import trio
from msgspec import structs

from gateway import clock
from gateway.call import Call, SessionBy, session_key
from gateway.errors import ClockRanOut, GatewayError, InvalidAgentResponse, InvalidRequest
from gateway.needs import unmet_needs
from gateway.words import join_chunks, text_runs
from protocol import Outcome, Payload
from protocol.framing import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.config import Clocks

_TURNS_TO_CATCH_UP = 3
"""Turns of the event loop in which an answer that lies in a pipe is read (the first finds the pipe
readable, the second reads) and the place that it makes is given away."""

Session = Literal["new", "kept", "lost"]
"""What a conversation finds: its first worker, the worker that it had, or that this one is gone."""

CHUNK_COST = 64
"""Bytes that a word takes beside its text, as an object and its place in a list. Without it, an
agent that sends empty chunks or events could fill the memory within any bound."""

MAX_COLLECTED_BYTES = 8 * 1024 * 1024
"""Of words that are put together for a caller that wants one answer, `CHUNK_COST` included: as
much as one line holds."""

MAX_LOOSE_CHUNKS = 1024
"""Words for a caller that wants one answer that are kept as they came. Joined earlier, short
answers would be slower; later, an answer of many words would be mostly `CHUNK_COST`."""

MAX_BUFFERED_BYTES = 1024 * 1024
"""Of words that wait for a client that reads more slowly than the worker writes, `CHUNK_COST`
included: 15,000 words. A thousand such streams are one GiB at the worst."""

MAX_HELD_PER_REQUEST = 3 * MAX_LINE_BYTES
"""Bytes that one request can make the gateway hold, whoever plays foul: its payload, the line that
it was written into where that is a copy, and the beginning of its answer; later its answer and the
response made of it, which is twice as long where every character had to be escaped. A stream's
words are less: one that is being written, and what waits (`MAX_BUFFERED_BYTES`, and the one word
that exceeded it, of a line at most)."""


class RequestPhase(Enum):
    """What is being waited for; each but the last has a clock."""

    QUEUED = "queue"
    STARTING = "start"
    GIVEN = "first"
    SPEAKING = "idle"
    ENDED = "ended"


class Carrier(Protocol):
    """What has carried a request to its worker."""

    @property
    def pid(self) -> int | None:
        """The worker's process; None before it has one."""

    @property
    def spoke(self) -> bool:
        """Whether the worker has said anything yet."""

    def has_read(self, exchange: Exchange) -> bool:
        """Whether the worker has begun to read the request."""

    def catch_up(self) -> None:
        """Pass on, without waiting, what the worker has written so far."""


class Exchange:
    """Also the pool's ticket for the request. Times are running time, in seconds."""

    __slots__ = (
        "_clocks",
        "_event",
        "_joined",
        "_room",
        "_since",
        "_total_at",
        "_wakes_at",
        "_words",
        "admitted_at",
        "buffered_bytes",
        "call",
        "carrier",
        "conversation",
        "error",
        "failed_starts",
        "given_at",
        "late_check",
        "offset",
        "on_spill",
        "on_taken",
        "outcome",
        "output_begun",
        "phase",
        "result",
        "session",
        "size",
        "spoke_at",
        "wire_id",
        "word_count",
        "worker_id",
    )

    journal: object = None  # what was noted of the words, if anybody does (`front/console/journal`)

    def __init__(
        self,
        call: Call,
        clocks: Clocks,
        now: float,
        session_by: SessionBy = "conversation",
        late_check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.call = call
        self.conversation = session_key(call, session_by)
        """What a session keeps together is called a conversation behind the front, though it may be
        all that one user asks, or the holder of one key."""
        self.late_check = late_check
        """To be awaited before the answer is given: raises what the client is told instead."""
        self.phase = RequestPhase.QUEUED
        self.admitted_at = now
        self.failed_starts = 0
        """How many workers that the request was given to have failed to start."""
        self.given_at: float | None = None
        """When it was given to the worker that has it, or had it last."""
        self.spoke_at: float | None = None
        """When the first word of the answer came."""
        self.word_count = 0
        """How many words have come."""
        self.carrier: Carrier | None = None
        """What has carried the request to a worker that may have read it."""
        self.result: Payload | None = None
        self.outcome: Outcome | None = None
        """How the answer ended, where events were asked for and the worker told."""
        self.error: GatewayError | None = None
        self.output_begun: bool | None = False
        """Whether any word of the answer has come; None: its host has not admitted it."""
        self.session: Session | None = None
        self.worker_id: int | None = None
        """The pool's: the worker that has the request."""
        self.wire_id = 0
        """The link's: the request's id on the wire to that worker."""
        self.offset = 0
        """The link's: where the request's line begins in all that the worker was sent, in bytes."""
        self.size = 0
        """The link's: the length of that line in bytes."""
        self.buffered_bytes = 0
        """What the words that wait for the client take, `CHUNK_COST` included."""
        self.on_taken: Callable[[int], None] | None = None
        """Of one whose worker is at a host: called with what was taken, `CHUNK_COST` included."""
        self.on_spill: Callable[[], None] | None = None
        """Of a run: called by `spill`, so that the words are taken though no client reads them."""
        self._clocks = clocks
        self._since = now
        self._total_at = now + min(clocks.seconds("total"), call.total)
        self._words: list[bytes] = []
        """What came from the worker and waits for the client, in order: chunks, which are JSON
        strings, and, if the call asks for them, events, which are JSON objects."""
        self._joined = 0
        """How many of the words, from the first on, are as short as joining makes them."""
        self._event: trio.Event | None = None
        self._wakes_at = math.inf
        """When the one who waits for `_event` wakes without it, on trio's clock."""
        self._room: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Exchange {self.call.request_id} {self.call.agent} {self.phase.value}>"

    @property
    def write_seconds(self) -> float:
        """How long the client may leave the answer unread."""
        return self._clocks.seconds("write")

    @property
    def handed_over(self) -> bool:
        """Whether a worker may have read the request: then it must not be run again."""
        return self.carrier is not None

    @property
    def ended(self) -> bool:
        return self.phase is RequestPhase.ENDED

    @property
    def drained(self) -> bool:
        """Whether the exchange has ended, well or badly, and every word was taken."""
        return self.phase is RequestPhase.ENDED and not self._words

    @property
    def full(self) -> bool:
        """Whether the worker is too far ahead of the client."""
        return self.call.stream and self.buffered_bytes > MAX_BUFFERED_BYTES

    # The worker's side

    def queued_again(self, now: float) -> None:
        """The request waits again: its worker takes no more, and has not read it."""
        self.carrier = None
        self._enter(RequestPhase.QUEUED, now)

    def given(self, now: float, carrier: Carrier, *, worker_spoke: bool) -> None:
        """The request is on its way to a worker."""
        self.carrier = carrier
        self.given_at = now
        self._enter(RequestPhase.GIVEN if worker_spoke else RequestPhase.STARTING, now)

    def worker_started(self, now: float) -> None:
        """The worker's start is over: it has spoken, or has read the request."""
        if self.phase is RequestPhase.STARTING:
            self._enter(RequestPhase.GIVEN, now)

    def forget_payload(self) -> None:
        """Drop the payload: no other worker will need it, and an answer may be as large."""
        if self.call.payload:
            self.call = structs.replace(self.call, payload=b"")

    def add_words(self, words: list[bytes], now: float) -> None:
        """Add chunks of the answer, each a JSON string, and events, each a JSON object."""
        if self.phase is RequestPhase.ENDED:
            return
        self._words += words
        self.buffered_bytes += sum(map(len, words)) + CHUNK_COST * len(words)
        self.word_count += len(words)
        self._since = now
        if not self.output_begun:
            self.output_begun = True
            self.spoke_at = now
            self.forget_payload()
        if self.phase is not RequestPhase.SPEAKING or self.call.stream:
            self.phase = RequestPhase.SPEAKING
            self._wake()
        if not self.call.stream:
            self._bound_collected()

    def _bound_collected(self) -> None:
        """Join small chunks, and fail if even so there is too much for one answer."""
        if len(self._words) - self._joined > MAX_LOOSE_CHUNKS:
            loose = self._words[self._joined :]
            joined = [
                join_chunks(texts) if event is None else event for texts, event in text_runs(loose)
            ]
            self._words[self._joined :] = joined
            self.buffered_bytes -= CHUNK_COST * (len(loose) - len(joined))
            self._joined += len(joined)
        if self.buffered_bytes > MAX_COLLECTED_BYTES:
            self.fail(
                InvalidAgentResponse(
                    f"the chunks are more than {MAX_COLLECTED_BYTES} bytes together, the most that "
                    'one answer may hold; ask for them with "stream": true'
                )
            )

    def end(self, result: Payload | None = None, outcome: Outcome | None = None) -> None:
        """End the exchange well: with one result, a JSON text, or after the chunks so far."""
        if self._words and result is not None and not self.call.stream:
            # Events before a result: both are held, and the response is made of both.
            self.buffered_bytes += len(result)
            self._bound_collected()
        if self.phase is not RequestPhase.ENDED:
            self.result = result
            self.outcome = outcome
            self.forget_payload()
            self.phase = RequestPhase.ENDED
            self._wake()

    def fail(self, error: GatewayError) -> None:
        """End the exchange badly. Others may end with the same error: it is never changed."""
        if self.phase is not RequestPhase.ENDED:
            self.error = error
            self.phase = RequestPhase.ENDED
            if not self.call.stream:
                # No client will get them, and the exchange lives until its response is sent.
                self._words.clear()
            self._wake()
            self._make_room()  # what comes now is thrown away

    def forget_answer(self) -> None:
        """Drop the result: its response has been made, and may wait for its client for long."""
        self.result = self.outcome = None

    async def wait_for_room(self) -> None:
        """Wait until the client has taken what waits for it, or the exchange has ended."""
        if self.full and not self.ended:
            self._room = trio.Event()
            await self._room.wait()

    def spill(self) -> bool:
        """Stop waiting for the client: the worker is needed by others. Returns whether the words
        will be taken soon all the same, which only a run's are."""
        if self.on_spill is None:
            return False
        self.on_spill()
        return True

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _enter(self, phase: RequestPhase, now: float) -> None:
        if self.phase is not RequestPhase.ENDED:
            self.phase = phase
            self._since = now
            # Who waits looks at the clocks when it wakes: only an earlier deadline must wake it.
            if self._event is not None and self._wakes_at > clock.as_deadline(self._deadline()[1]):
                self._wake()

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    # The client's side. Nothing here raises: a bad end is the value of `error`.

    def take(self) -> list[bytes]:
        """Take the words that have come since the last time, without waiting."""
        words = self._words
        if words:
            if self.on_taken is not None:
                self.on_taken(self.buffered_bytes)
            self._words = []
            self._joined = self.buffered_bytes = 0
            self._make_room()
        return words

    async def receive(self, *, patience: float = math.inf) -> list[bytes]:
        """Wait for words, and take them.

        Returns an empty list after `patience` seconds of silence, and once the exchange has ended
        and every word was taken (`drained`).
        """
        until = trio.current_time() + patience
        while not self._words and self.phase is not RequestPhase.ENDED:
            if not await self._change(until):
                return []
        if self.late_check is not None:
            await self._check_late()
        return self.take()

    async def ends_within(self, patience: float) -> bool:
        """Wait for the end for at most `patience` seconds; whether it has come.

        The first words of a stream end the wait as well: they must not be delayed.
        """
        until = trio.current_time() + patience
        while self.phase is not RequestPhase.ENDED and not (self.call.stream and self._words):
            if not await self._change(until):
                break
        return self.phase is RequestPhase.ENDED

    async def collect(self) -> list[bytes]:
        """Wait for the end, and take all words."""
        while self.phase is not RequestPhase.ENDED:
            await self._change(math.inf)
        if self.late_check is not None:
            await self._check_late()
        return self.take()

    async def _check_late(self) -> None:
        check, self.late_check = self.late_check, None
        # What the gateway itself has to say of a failure counts more, and costs no check.
        if check is not None and (self.error is None or isinstance(self.error, InvalidRequest)):
            try:
                await check()
            except GatewayError as error:
                self.phase = RequestPhase.SPEAKING  # it may have ended well: that counts no more
                self.result = self.outcome = None
                self._words.clear()
                self.fail(error)

    async def _change(self, until: float) -> bool:
        """Wait for the next change; False if `until`, on trio's clock, passed before one.

        A clock that runs out meanwhile ends the exchange.
        """
        self._event = trio.Event()
        self._wakes_at = min(clock.as_deadline(self._deadline()[1]), until)
        with trio.CancelScope(deadline=self._wakes_at) as scope:
            await self._event.wait()
        self._event = None
        # The end may come at the very moment at which a deadline passes: no clock runs after it.
        if not scope.cancelled_caught or self.phase is RequestPhase.ENDED:
            return True
        # The deadline is not moved at every chunk: some may have come since it was set.
        if clock.now() >= self._deadline()[1]:
            await self._judge()
        return trio.current_time() < until

    async def _judge(self) -> None:
        """End the exchange if a clock has run out, once what happened in time is known.

        After the process stood still, deadlines pass before anything is read: an answer may lie in
        the worker's pipe, and for one that waits, the answers that will make room for it.
        """
        if self.carrier is not None:
            self.carrier.catch_up()
        else:
            for _ in range(_TURNS_TO_CATCH_UP):
                await trio.lowlevel.checkpoint()
        if self.ended:
            return
        name, deadline = self._deadline()
        now = clock.now()
        if name == "start" and self.carrier is not None and self.carrier.has_read(self):
            # The worker has read it since the last look (`Worker._look_whether_it_reads`).
            self.worker_started(now)
            name, deadline = self._deadline()
        if now >= deadline:
            self._run_out(name, now)

    def _deadline(self) -> tuple[str, float]:
        """The name of the clock that runs out first, and when."""
        name = self.phase.value
        at = self._since + self._clocks.seconds(name)
        return (name, at) if at <= self._total_at else ("total", self._total_at)

    def _run_out(self, name: str, now: float) -> None:
        since = self.admitted_at if name == "total" else self._since
        limit = self._total_at - since if name == "total" else self._clocks.seconds(name)
        carrier = self.carrier
        if name == "start" and self.call.needs:
            # It was not sent: what does not speak the handshake says nothing before it is.
            lacking = unmet_needs(self.call.agent, self.call.needs, None)
            if lacking is not None:
                self.fail(lacking)
                return
        unheard = carrier is not None and not carrier.spoke and carrier.has_read(self)
        self.fail(ClockRanOut(name, now - since, limit, unheard=unheard))
