"""Pipes on a bus: one `Wire` for each pair of a front and a host, and all `Wires` of a process.

Owns which pipe a message belongs to, when a pipe's messages leave, and how long a peer has been
silent. What is to be done about silence, its owner knows: nothing here ends an epoch for the time
that has passed.

What is said in one turn of the event loop leaves together, a turn later: one task flushes all wires
that have something to say. The same number of tasks (two) serves any number of wires.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol

import trio

from gateway import clock
from gateway.fleet import pipe as pipes
from gateway.fleet.messages import FrameError, Reader, encode
from gateway.fleet.pipe import WINDOW_BYTES, Ended, Pipe, Why

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.fleet.bus import Bus, Delivery
    from gateway.fleet.messages import Down, Up
    from gateway.fleet.subjects import Peer, Subjects

    _NewReader = Callable[[], Reader[Any]]

BEAT = 0.2
"""Seconds between two beats of a wire."""

MAX_WIRES = 4096
"""At one process. A fleet has tens of processes; a message of one more is ignored."""

MAX_REMEMBERED = 10_000
"""Fronts that are gone, each with its last epoch: about 250 bytes each. See `Pipe.ended`."""


class Owner(Protocol):
    """What becomes of a wire. Every method is called in trio's thread and must not wait; it may
    call any method of the wire, `close` as well."""

    def receive(self, messages: list[Any]) -> None:
        """What has arrived, in order: at a host `Up`, at a front `Down`. All of it belongs to one
        epoch."""

    def ended(self, ended: Ended) -> None:
        """The epoch is over, also by `Wire.end` and `Wire.close`. At a front the next one has
        begun, if the wire was not closed: what is sent from now on belongs to it. At a host the
        front begins it."""

    def unheard(self) -> None:
        """NATS says that nobody listens to what was just sent: the peer is dead, or has no
        connection at the moment. Said for each message; nothing has ended yet."""


class Wire:
    """See the module's docstring."""

    __slots__ = (
        "_dirty",
        "_moved",
        "_new_reader",
        "_pipe",
        "_reader",
        "_reply",
        "_subject",
        "_wires",
        "heard_at",
        "owner",
        "peer",
    )

    owner: Owner

    def __init__(
        self, wires: Wires, peer: Peer, pipe: Pipe, reader: _NewReader, *, subject: str, reply: str
    ) -> None:
        """By `Wires`. What is said leaves on `subject`, with replies that begin with `reply`."""
        self.peer = peer
        self.heard_at = clock.now()
        """Running time of the last message of the peer; at first, of the beginning."""
        self._wires = wires
        self._pipe = pipe
        self._subject = subject
        self._reply = reply
        self._new_reader = reader
        self._reader = reader()
        self._dirty = False
        """Whether `Wires` knows that there is something to flush."""
        self._moved: trio.Event | None = None
        """Set when more was acknowledged, or the epoch has ended."""

    def __repr__(self) -> str:
        return f"<Wire to {self.peer}: {self._pipe}>"

    @property
    def open(self) -> bool:
        """Whether an epoch is: what is sent may arrive."""
        return self._pipe.open

    @property
    def heard(self) -> bool:
        """Whether the peer has said anything in this epoch."""
        return self._pipe.heard

    @property
    def epoch(self) -> int:
        """The number of the epoch at hand, or of the last one."""
        return self._pipe.epoch

    @property
    def acknowledged(self) -> int:
        """How far the peer has received what was sent in this epoch: compare with what `send`
        returned."""
        return self._pipe.acknowledged

    @property
    def full(self) -> bool:
        """Whether `room` would wait."""
        return self.unacknowledged > WINDOW_BYTES

    @property
    def unacknowledged(self) -> int:
        """Bytes that were sent in this epoch; none where nothing may be sent."""
        return self._pipe.sent - self._pipe.acknowledged if self._pipe.open else 0

    def send(self, *messages: Up | Down) -> int:
        """Send messages in order; returns a position in the epoch's stream. What is sent in one
        turn of the loop leaves together in the next one.

        The peer has received all of it once `acknowledged` reaches the position, and has certainly
        not received the last message, and never will, when the position is beyond `Ended.reached`.
        Never refuses, and holds what does not fit into the window: who sends much waits for `room`
        first.
        """
        for message in messages:
            self._pipe.send(encode(message))
        self._flush_soon()
        return self._pipe.sent

    def send_now(self, *messages: Up | Down) -> None:
        """As `send`, for whoever has gathered what there is to say in this turn: it leaves now."""
        for message in messages:
            self._pipe.send(encode(message))
        if not self._dirty:  # else a task is about to flush
            self.flush()

    async def room(self) -> None:
        """Wait until no more than a window is unacknowledged, or the epoch has ended."""
        await self._at_most(WINDOW_BYTES)

    async def settled(self) -> None:
        """Wait until all that was sent is acknowledged, or the epoch has ended. Takes a beat."""
        await self._at_most(0)

    async def _at_most(self, size: int) -> None:
        epoch = self._pipe.epoch
        while self.unacknowledged > size and self._pipe.epoch == epoch:
            if self._moved is None:
                self._moved = trio.Event()
            await self._moved.wait()

    def end(self, detail: str) -> None:
        """Give up the epoch: `detail` says why, for the log. The peer is told, and `Owner.ended` is
        called before this returns."""
        self._end(self._pipe.end(Why.GIVEN_UP, detail))

    def close(self) -> None:
        """End the epoch, if one is open, and forget the wire. Nothing is received any more."""
        ended = self._pipe.close(Why.GIVEN_UP, "the wire was closed")
        self._wires.forget(self)
        self._end(ended)

    # By `Wires`

    def receive(self, message: bytes) -> None:
        """A message of the peer."""
        self.pass_on(self._pipe.receive(message))

    def pass_on(self, received: tuple[pipes.Received, ...]) -> None:
        """What the pipe has made of a message of the peer."""
        pipe = self._pipe
        self.heard_at = clock.now()
        if self._moved is not None:
            self._move()
        for each in received:
            if isinstance(each, Ended):
                self._end(each)
            elif pipe.open:  # the owner may have ended what has just begun
                self._read(each)
        if not self._dirty and pipe.pending:
            self._flush_soon()

    def _read(self, data: memoryview) -> None:
        try:
            messages = self._reader.feed(data)
        except FrameError as error:
            self._end(self._pipe.end(Why.VIOLATION, str(error)))
            return
        if messages:
            self.owner.receive(messages)

    def undelivered(self, epoch: int, number: int) -> None:
        """NATS says that nobody listened to a message."""
        if self._pipe.undelivered(epoch, number):
            self.owner.unheard()

    def connected(self) -> None:
        self._pipe.connected()
        self._flush_soon()

    def beat(self) -> None:
        self._pipe.beat()
        if self._pipe.pending:
            self._flush_soon()

    def flush(self) -> None:
        """Publish what there is. Without a connection it waits for `connected`."""
        self._dirty = False
        pipe, bus = self._pipe, self._wires.bus
        if not bus.connected:
            return
        bus.publish_all(
            [
                (self._subject, message, f"{self._reply}.{pipe.epoch}.{number}")
                for number, message in pipe.flush()
            ]
        )

    def _flush_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._wires.flush_soon(self)

    def _end(self, ended: Ended | None) -> None:
        if ended is None:
            return
        self._reader = self._new_reader()
        self._move()
        self._flush_soon()
        self.owner.ended(ended)

    def _move(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None


class Wires:
    """All wires of one process, on one bus.

    A front opens one for each host that it has heard of. At a host, `accept` is called with each
    wire of a front that speaks for the first time, and returns its owner.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        this: Peer,
        *,
        role: Literal["front", "host"],
        accept: Callable[[Wire], Owner] | None = None,
    ) -> None:
        self.bus = bus
        self._subjects = subjects
        self._this = this
        self._role = role
        self._accept = accept
        self._epochs = count(1)
        """A front's, for all its pipes: a host that it comes back to hears of a later one."""
        self._wires: dict[str, Wire] = {}
        """By the subject on which the peer speaks."""
        self._by_reply: dict[str, Wire] = {}
        """By the subject on which NATS says that the peer does not listen."""
        self._last_epochs: dict[Peer, int] = {}
        """A host's, of the fronts that it has no wire to; the latest last."""
        self._dirty: list[Wire] = []
        self._flusher = trio.lowlevel.ParkingLot()
        bus.watch(self._connected, lambda: None)

    def __repr__(self) -> str:
        return f"<Wires of the {self._role} {self._this}: {len(self._wires)}>"

    def open(self, peer: Peer, owner: Owner) -> Wire:
        """The wire of a front to a host. Raises ValueError if there is one already."""
        if self._here(peer) in self._wires:
            raise ValueError(f"there is a wire to {peer}")
        wire = self._add(peer, Pipe(self._epochs))
        wire.owner = owner
        self.flush_soon(wire)
        return wire

    async def run(self) -> None:
        """Flush and beat, until cancelled. What is sent before this runs, leaves when it does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            while True:
                self.flush()
                await self._flusher.park()

    async def _beat(self) -> None:
        while True:
            await trio.sleep(BEAT)
            for wire in self._wires.values():
                wire.beat()

    def flush(self) -> None:
        """Publish now what was sent: for the last words of a process."""
        dirty, self._dirty = self._dirty, []
        for wire in dirty:
            wire.flush()

    # By wires

    def flush_soon(self, wire: Wire) -> None:
        self._dirty.append(wire)
        if len(self._dirty) == 1:
            self._flusher.unpark_all()

    def forget(self, wire: Wire) -> None:
        """The wire was closed."""
        if self._wires.pop(self._here(wire.peer), None) is None:
            return
        del self._by_reply[self._subjects.undelivered(self._this, wire.peer)]
        if self._role == "host":
            self._remember(wire.peer, wire.epoch)

    # From the bus

    def _connected(self) -> None:
        subjects, this = self._subjects, self._this
        here = subjects.downs(this) if self._role == "front" else subjects.ups(this)
        self.bus.subscribe(here, self._receive)
        self.bus.subscribe(subjects.all_undelivered(this), self._receive_undelivered)
        for wire in self._wires.values():
            wire.connected()

    def _receive(self, delivery: Delivery) -> None:
        if not delivery.data:
            return  # no peer's: any user of JetStream can have it acknowledge to any subject
        wire = self._wires.get(delivery.subject)
        if wire is not None:
            wire.receive(delivery.data)
            return
        peer = self._subjects.peer_at_end(delivery.subject)
        if peer is None:
            return
        if self._role == "host":
            self._receive_front(peer, delivery.data)
        elif (answer := pipes.reset(delivery.data)) is not None:
            self.bus.publish(self._there(peer), answer)

    def _receive_front(self, peer: Peer, message: bytes) -> None:
        """A front speaks for the first time, or after its wire was closed."""
        pipe = Pipe(ended=self._last_epochs.get(peer, 0))
        received = pipe.receive(message)
        if not pipe.open:
            for _, answer in pipe.flush():
                self.bus.publish(self._there(peer), answer)
            if pipe.epoch:
                self._remember(peer, pipe.epoch)
        elif self._accept is not None and len(self._wires) < MAX_WIRES:
            self._last_epochs.pop(peer, None)
            wire = self._add(peer, pipe)
            wire.owner = self._accept(wire)
            wire.pass_on(received)

    def _receive_undelivered(self, delivery: Delivery) -> None:
        if not delivery.nobody:
            return
        reply, _, rest = delivery.subject.rpartition(".")
        reply, _, epoch = reply.rpartition(".")
        wire = self._by_reply.get(reply)
        if wire is not None and epoch.isdecimal() and rest.isdecimal():
            wire.undelivered(int(epoch), int(rest))

    # Subjects

    def _here(self, peer: Peer) -> str:
        """Where a peer speaks."""
        if self._role == "front":
            return self._subjects.down(self._this, peer)
        return self._subjects.up(self._this, peer)

    def _there(self, peer: Peer) -> str:
        """Where a peer listens."""
        if self._role == "front":
            return self._subjects.up(peer, self._this)
        return self._subjects.down(peer, self._this)

    def _add(self, peer: Peer, pipe: Pipe) -> Wire:
        reply = self._subjects.undelivered(self._this, peer)
        reader: _NewReader = Reader.down if self._role == "front" else Reader.up
        wire = Wire(self, peer, pipe, reader, subject=self._there(peer), reply=reply)
        self._wires[self._here(peer)] = self._by_reply[reply] = wire
        return wire

    def _remember(self, peer: Peer, epoch: int) -> None:
        self._last_epochs.pop(peer, None)
        self._last_epochs[peer] = epoch
        if len(self._last_epochs) > MAX_REMEMBERED:
            del self._last_epochs[next(iter(self._last_epochs))]
