"""One request that does not need its client: what it has said, and who reads it.

Between the pump, which writes, and any number of readers. Nothing here waits or decides for how
long a run is kept.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

import trio

from gateway.errors import Cancelled, GatewayError, Overloaded, RunGone
from gateway.exchange import RequestPhase
from gateway.front.run_codec import RunCodec, RunReader
from gateway.front.runs.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway.exchange import Exchange, Session
    from gateway.front.dialect import Codec, Headers, Response

MAX_READERS = 64
"""Of one run at a time: several tabs and a lost connection or two. More is a defect, or an attack,
that multiplies the work for each event."""

WINDOW = 256 * 1024
"""What the fastest reader may have before it, unread, while the agent goes on. Beside it the
exchange holds `MAX_BUFFERED_BYTES` before its worker is held."""


class RunState(Enum):
    """The states of a run as clients see them."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reader:
    """One client that reads a run's events."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position
        """The number of the event that is sent next."""


class Run:
    """See the module's docstring."""

    __slots__ = (
        "_codec",
        "_exchange",
        "_holds",
        "_hurries",
        "_readers",
        "_session",
        "_told",
        "agent",
        "answer",
        "credential",
        "dialect",
        "ended_at",
        "error",
        "fingerprints",
        "gone",
        "head",
        "key",
        "news",
        "owner",
        "request_id",
        "ring",
        "room",
        "stream",
        "successor",
        "token",
        "was_read",
        "write_seconds",
    )

    def __init__(
        self,
        token: str,
        credential: bytes,
        exchange: Exchange,
        codec: Codec,
        *,
        most_bytes: int,
        key: bytes | None = None,
        fingerprints: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """`key` is a digest of an Idempotency-Key, and `fingerprints` are digests of what was asked
        under it, and under those of the runs whose place this one takes."""
        self.token = token
        self.credential = credential
        self.key = key
        self.fingerprints = fingerprints or {}
        self.dialect = codec.route.dialect
        self.agent = exchange.call.agent
        self.owner = exchange.call.owner
        self.request_id = exchange.call.request_id
        self.stream = exchange.call.stream
        self.write_seconds = exchange.write_seconds
        self.ring = Ring(most_bytes)
        self.head: Headers = ()
        """Of the stream, if it is one."""
        self.answer: Response | None = None
        """The one response; of a stream, if it failed before its first event. None before the
        end."""
        self.error: GatewayError | None = None
        """How it has ended, if badly."""
        self._session: Session | None = None
        self.ended_at = math.inf
        self.was_read = False
        self.successor: Run | None = None
        """The run that has taken its place."""
        self.gone = False
        """Whether what it kept was freed."""
        self.news = trio.lowlevel.ParkingLot()
        """Where readers wait for what comes next."""
        self.room = trio.lowlevel.ParkingLot()
        """Where the pump waits for its readers."""
        self._told: Response | None = None
        self._holds = True
        """Whether the pump waits for a reader that is behind."""
        self._hurries = False
        self._readers: set[Reader] = set()
        # Neither is kept after the end: both may hold as much as the request did.
        self._codec: Codec | None = codec
        exchange.on_spill = self.let_go
        self._exchange: Exchange | None = exchange

    def __repr__(self) -> str:
        return f"<Run {self.request_id} {self.agent} {self.state.value}, {self.ring!r}>"

    @property
    def state(self) -> RunState:
        error = self.error
        if self._exchange is not None:
            error = self._exchange.error
            if error is None:
                queued = self._exchange.phase is RequestPhase.QUEUED
                return RunState.QUEUED if queued else RunState.RUNNING
        if isinstance(error, Cancelled):
            return RunState.CANCELLED
        return RunState.COMPLETED if error is None else RunState.FAILED

    @property
    def exchange(self) -> Exchange | None:
        """None once it has ended."""
        return self._exchange

    @property
    def session(self) -> Session | None:
        """The exchange's."""
        return self._session if self._exchange is None else self._exchange.session

    @property
    def ended(self) -> bool:
        """Whether everything that will ever be said is there."""
        return self._exchange is None

    @property
    def keys(self) -> Collection[bytes]:
        """See `Kept.keys`."""
        return self.fingerprints.keys()

    @property
    def attached(self) -> bool:
        return bool(self._readers)

    @property
    def cost(self) -> int:
        answers = {id(each): len(each.body) for each in (self.answer, self._told) if each}
        return self.ring.cost + sum(answers.values())

    @property
    def can_be_told(self) -> bool:
        """Whether its own protocol has an object for it."""
        return self._told is not None if self.ended else isinstance(self._codec, RunCodec)

    def tell(self) -> Response | None:
        """The object that the run is in its own protocol; None if that has none."""
        if self._codec is None:
            return self._told
        if not isinstance(self._codec, RunCodec):
            return None
        return self._codec.tell(self.state.value, self.error)

    @property
    def outline(self) -> bytes:
        """Of what a `RunReader` tells, at least the beginning by which runs are chosen."""
        if isinstance(self._codec, RunReader):
            return self._codec.outline(self.state.value)
        return b"" if self._told is None else self._told.body

    @property
    def covered(self) -> int:
        """How many events of the stream what is told covers."""
        return self._codec.told_events if isinstance(self._codec, RunReader) else self.ring.next

    def retell(self, body: bytes, event: bytes) -> None:
        """Tell another thing from now on, and its readers that event. The run has ended."""
        if self._told is not None:
            self._told = self._told._replace(body=body)
        self.ring.add(event)
        self.news.unpark_all()

    def give_way(self, successor: Run) -> None:
        """Another run has taken this one's place and id."""
        self.successor = successor
        self.news.unpark_all()

    @property
    def _furthest(self) -> int:
        """The position of the fastest reader; the end if nobody reads. It may be beyond that."""
        return max((reader.position for reader in self._readers), default=self.ring.next)

    # The pump's side

    def must_wait(self, size: int) -> bool:
        """Whether an event of so many bytes is to wait until a reader has made room for it.

        The fastest reader counts. A slower one may be a connection that is lost already, and must
        not hold up the one that has taken its place; it is told when it has fallen too far back.
        """
        if not self._readers or self._hurries:
            return False
        lag = self.ring.lag(self._furthest)
        # What is larger than the window waits until everything before it was read.
        if lag == 0 or lag + size <= WINDOW:
            self._holds = True
            return False
        return self._holds

    def let_go(self) -> None:
        """Do not wait for readers until one of them has caught up: the worker is needed."""
        self._holds = False
        self.room.unpark_all()

    def hurry(self) -> None:
        """Never wait for readers again: the run is to end."""
        self._hurries = True
        self.room.unpark_all()

    def end(self, now: float, answer: Response | None, error: GatewayError | None) -> None:
        """Everything is said. `answer` is the one response, if there is one."""
        assert self._exchange is not None
        self._session = self._exchange.session
        self.error = error
        self._exchange = None
        whole = isinstance(self._codec, RunCodec) and answer is not None and error is None
        self._told = answer if whole else self.tell()
        self._codec = None
        self.ended_at = now
        self.answer = answer
        self.news.unpark_all()

    # The registry's side

    def shed(self, cost: int) -> None:
        """See `Kept.shed`. A whole answer that is being sent stays.

        So does what the fastest reader of a run that goes on is about to get: at most `WINDOW`, or
        one event. A reader that is further back attached late, and holds only the newest event.
        """
        if not self.ended:
            unread = max(self.ring.next - self._furthest, 0)
            keeps_up = self.ring.lag(self._furthest) <= WINDOW
            self.ring.drop(cost, keep=unread if keeps_up else 1)
        elif self.stream or not self._readers:
            self.forget()

    def forget(self) -> None:
        """See `Kept.forget`."""
        self.gone = True
        self.ring.clear()
        self.answer = self._told = None
        self.news.unpark_all()

    # The readers' side

    def attach(self, position: int) -> Reader:
        """Begin to read at the event of that number. Raises Overloaded."""
        if len(self._readers) >= MAX_READERS:
            raise Overloaded(
                f"{MAX_READERS} connections read this run already, the most that may at a time",
                retry_after=1,
            )
        reader = Reader(position)
        self._readers.add(reader)
        return reader

    def take(self, reader: Reader, most: int) -> bytes:
        """The next events for a reader, none at the end of what there is. Raises RunGone."""
        portion = self.ring.read(reader.position, most)
        if portion is None:
            raise self.gap(reader.position)
        reader.position = portion.position
        self.room.unpark_all()
        return portion.data

    def gap(self, position: int) -> RunGone:
        """What a reader at a position is told whose next event is gone."""
        if self.gone:
            return RunGone("what this run has answered is not kept any more")
        last = self.ring.first - 1
        return RunGone(
            f"the events {position} to {last} of this run are gone: they were not read in time",
            first_event=self.ring.first,
        )

    def detach(self, reader: Reader) -> None:
        """A reader has left, or is given up. May be called again."""
        self._readers.discard(reader)
        self.room.unpark_all()
