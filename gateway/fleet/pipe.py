"""A reliable, ordered stream of bytes in each direction between one front and one host. Pure.

# Theory of operation

NATS delivers what one connection publishes in order, and without loss for as long as both
connections live. When one breaks, what was on its way is lost, without a word. So both ends number
their messages, and each message says up to which number its sender has received:

    kind 1 byte, epoch u64, number u64, received u64, big-endian; then data (`D` only)

    D  data              its number is one more than that of the D before; the first is 1
    K  "this was all"    its number is that of the last D
    N  K, "and send again what comes after `received`": something was lost
    R  "begin anew"      its sender has ended the epoch, and takes nothing more in it

A receiver takes the number that it expects, and ignores any other. Because of the order, a number
beyond the expected one proves a loss, of a D and of a K alike: the receiver says N. Each end says K
on every beat, so a loss is noticed within one beat, and a lost N is said again within another. An
end that has a new connection says N at once: it does not know what it has missed. A peer that keeps
asking for what it has acknowledged cannot be helped: the epoch ends.

A sender keeps each D until it is acknowledged; at most a window of them (`WINDOW_BYTES`) is on its
way. When the peer says N, it sends them again, at most once per beat from the same number: an N
that crosses the repetition asks for nothing new. Whatever arrives twice, late, or in another order
harms nobody, but costs a repetition.

An *epoch* is one life of both streams. The front numbers the epochs. Each of its messages of a
later epoch ends the earlier one at the host; and the host ends one by saying R, which it repeats in
answer to whatever else it hears of that epoch:

    front   open(e) ── R of e, violation, `end` ──────> open(e'), e' > e, from the front's counter
            open(e) ── `close` ───────────────────────> closed
    host    any(e)  ── a message of e' > e ───────────> open(e')
            open(e) ── R of e, violation, `end` ──────> closed(e)

A message of an epoch that is over is ignored, or answered with R. A host therefore never takes up
an epoch twice, which is why it has to remember the last one of a front (`Pipe.ended`). A host that
has no memory of the front, and hears of it in the middle of a stream, may have forgotten it, and
what it took then: it says R, too.

# What has certainly not been received

NATS answers a message that nobody listens for with "nobody" (503), and we ask for that with the
message's number in the reply's subject. A D whose copies have all been answered so, or that never
left, reached nobody. Nor will what follows it in the epoch: the peer takes messages in order. So
when an epoch ends, `Ended.reached` is the end of the last D that may have been received, and a
front may give requests beyond it to another host. A host that says R tells how far it has received,
and that counts, too.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DATA_BYTES = 512 * 1024
"""The most data of one message: half of what NATS takes by default, so that many pairs share its
buffers."""

WINDOW_BYTES = 2 * 1024 * 1024
"""Bytes that have left and are not acknowledged; what is said beyond them waits here. A connection
to NATS that takes nothing is cut with 32 MiB waiting at this end, and with 64 MiB at the server's,
and all that was on its way leaves again with the next one: together, it must be less."""

ACK_MESSAGES = 64
ACK_BYTES = 512 * 1024
"""After so much, a receiver acknowledges without waiting for the beat: several times within the
window, so that the sender need not wait for it."""

MAX_REPEATS = 2
"""Repetitions of a window until the next beat: a peer that was broken into could ask for thousands,
with a few bytes each."""

MAX_ENDS = 4
"""Epochs that end until the next beat, but for those that a front begins anew. A peer that could
end more, with a message each, is not listened to until then."""

MAX_BEHIND = 16
"""K and N in a row, three seconds of them, that take back what the peer has said before. A few are
what an earlier connection still had on its way."""

_HEADER = struct.Struct(">cQQQ")
_UNKNOWN = 2**64 - 1
"""The `received` of an R whose sender does not know what it has received in the epoch."""

_D, _K, _N, _R = b"D", b"K", b"N", b"R"


class Why(Enum):
    """Why an epoch has ended."""

    RESET = "reset"
    """The peer began anew, or asked to."""
    VIOLATION = "violation"
    """The peer said what is not the protocol."""
    GIVEN_UP = "given_up"
    """By this end: `Pipe.end` or `Pipe.close`."""


class Ended(Struct, frozen=True):
    """An epoch is over at this end; what was sent in it, and not yet received, never will be."""

    epoch: int
    why: Why
    detail: str
    """A sentence for the log."""
    reached: int
    """Bytes that the peer may have received of what was sent in the epoch. What ends beyond it (see
    `Pipe.send`) has certainly not been received, and never will be."""


Received: TypeAlias = memoryview | Ended


class _Message:
    """A D that is not acknowledged."""

    __slots__ = ("copies", "data", "end")

    def __init__(self, data: bytes, end: int) -> None:
        self.data = data
        self.end = end
        """Its last byte's position in the stream."""
        self.copies = 1
        """How many have left and may have reached somebody."""


class Pipe:
    """One end. The front's end leads: it takes the number of each epoch from `epochs`, which
    increase. A host's end has none and follows; `ended` is the last epoch that it knows of, with
    which nothing is begun again.

    Every method may give the next `flush` something to return: see `pending`.
    """

    def __init__(self, epochs: Iterator[int] | None = None, *, ended: int = 0) -> None:
        self._epochs = epochs
        self._ends = 0
        """Epochs that have ended since the last beat: see `MAX_ENDS`."""
        self._forgetful = ended == 0
        """Whether a host may have forgotten what it knew of this front."""
        self._begin(ended)
        self._say: bytes | None = None
        """The kind of message that has to be said."""
        if epochs is None:
            self.open = False
            self._received = _UNKNOWN
        else:
            self._begin_next(epochs)

    def __repr__(self) -> str:
        return (
            f"<Pipe {'open' if self.open else 'closed'}, epoch {self.epoch}, "
            f"{self.acknowledged} of {self.sent} bytes acknowledged, "
            f"received to message {self._received}>"
        )

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.open = True
        """Whether what is sent may arrive. False only at a host, and once this end was closed: what
        is sent is dropped."""
        self.heard = False
        """Whether the peer has said anything in this epoch."""
        self.sent = 0
        """Bytes that `send` was given in this epoch."""
        self.acknowledged = 0
        """Bytes of `sent` that the peer has certainly received."""
        self._queue: deque[bytes | memoryview] = deque()
        self._cut = 0
        """Bytes of `sent` that were put into messages; the rest is in `_queue`."""
        self._number = 0
        """Of the last D."""
        self._window: deque[_Message] = deque()
        self._repeat = False
        """Whether the peer has asked for the window again."""
        self._repeated: int | None = None
        """The number before the first one that was repeated since the last beat."""
        self._repeats = 0
        """How often something was repeated since then."""
        self._received = 0
        """The number of the last D that was taken."""
        self._asked = False
        """Whether N was said since the last D that was taken."""
        self._behind = 0
        """How many K and N one after the other were older than what is known."""
        self._untold = self._untold_bytes = 0
        """What was taken since the peer was last told how far."""

    def _begin_next(self, epochs: Iterator[int]) -> None:
        self._begin(next(epochs))
        self._say = _K

    # To the peer

    @property
    def pending(self) -> bool:
        """Whether `flush` has something to return."""
        return self._say is not None or self._repeat or (bool(self._queue) and self._room > 0)

    @property
    def _room(self) -> int:
        """Bytes that may leave now."""
        return WINDOW_BYTES - (self._cut - self.acknowledged)

    def send(self, data: bytes) -> int:
        """Append to the stream; returns the position of its end: `sent`. Nothing leaves before
        `flush`."""
        if self.open:
            self._queue.append(data)
            self.sent += len(data)
        return self.sent

    def flush(self) -> list[tuple[int, bytes]]:
        """What is to be published now, in order: the number of each message, and its bytes. The
        number is 0 if the message bears no data.

        Not to be called without a connection: what it returns counts as having left.
        """
        data = self._take(self._room)
        if self._say is _K and data:
            self._say = None  # a D says as much
        leaving: list[tuple[int, bytes]] = []
        if self._say is not None:
            leaving.append((0, self._header(self._say, self._number)))
            self._say = None
        if self._repeat:
            self._repeat = False
            leaving += self._again()
        if data:
            leaving += self._cut_up(data)
        return leaving

    def _header(self, kind: bytes, number: int) -> bytes:
        self._untold = self._untold_bytes = 0
        return _HEADER.pack(kind, self.epoch, number, self._received)

    def _again(self) -> list[tuple[int, bytes]]:
        leaving = []
        for number, message in enumerate(self._window, self._number - len(self._window) + 1):
            message.copies += 1
            leaving.append((number, message.data))
        return leaving

    def _take(self, room: int) -> bytes:
        """The beginning of what is queued."""
        queue = self._queue
        parts: list[bytes | memoryview] = []
        while queue and room > 0:
            part = queue.popleft()
            if len(part) > room:
                queue.appendleft(memoryview(part)[room:])
                part = part[:room]
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def _cut_up(self, data: bytes) -> list[tuple[int, bytes]]:
        leaving = []
        for start in range(0, len(data), MAX_DATA_BYTES):
            piece = data if len(data) <= MAX_DATA_BYTES else data[start : start + MAX_DATA_BYTES]
            self._number += 1
            self._cut += len(piece)
            message = self._header(_D, self._number) + piece
            self._window.append(_Message(message, self._cut))
            leaving.append((self._number, message))
        return leaving

    def beat(self) -> None:
        """To be called every `wire.BEAT` seconds."""
        self._repeated = None
        self._repeats = self._ends = 0
        if self.open and self._say is None:
            self._say = _K

    def connected(self) -> None:
        """This end's connection is another one now: what was on its way may be lost."""
        if self.open:
            self._say = _N

    def undelivered(self, epoch: int, number: int) -> bool:
        """One copy of a message that `flush` returned reached nobody. Whether that was said of the
        epoch at hand."""
        if epoch != self.epoch or not self.open:
            return False
        index = number - (self._number - len(self._window) + 1)
        if 0 <= index < len(self._window):
            message = self._window[index]
            message.copies = max(0, message.copies - 1)
        return True

    # From the peer

    def receive(self, message: bytes) -> tuple[Received, ...]:
        """What a message of the peer brings, in order: at most an end of the epoch, and data."""
        if len(message) < _HEADER.size:
            return self._violated(f"a message of {len(message)} bytes")
        kind, epoch, number, received = _HEADER.unpack_from(message)
        if epoch != self.epoch or not self.open or self._ends >= MAX_ENDS:
            return self._receive_other(message)
        self.heard = True
        if kind == _R:
            return self._reset(received)
        if received > self._number:
            return self._violated(f"{received} messages received, of {self._number}")
        while received > self._number - len(self._window):
            self.acknowledged = self._window.popleft().end
        if kind == _D:
            return self._receive_data(message, number)
        return self._receive_number(message, number, received)

    def _receive_number(self, message: bytes, number: int, received: int) -> tuple[Received, ...]:
        """K or N."""
        kind = message[:1]
        if kind not in (_K, _N) or len(message) > _HEADER.size:
            return self._violated(f"{message[: _HEADER.size + 8]!r} is no message")
        before = self._number - len(self._window)
        if received < before or number < self._received:
            # An old message; a peer that says nothing else has forgotten what it knew.
            self._behind += 1
            if self._behind >= MAX_BEHIND:
                return self._violated("the peer does not know what it has said before")
            return ()
        self._behind = 0
        if number > self._received:
            self._ask()
        if kind == _N and self._window and self._repeated != before:
            self._repeat_window(before)
        return ()

    def _repeat_window(self, before: int) -> None:
        if self._repeats < MAX_REPEATS:
            self._repeats += 1
            self._repeat = True
            self._repeated = before

    def _receive_data(self, message: bytes, number: int) -> tuple[Received, ...]:
        size = len(message) - _HEADER.size
        if not 0 < size <= MAX_DATA_BYTES or not number:
            return self._violated(f"message {number} with {size} bytes of data")
        if number != self._received + 1:
            if number > self._received and not self._asked:
                self._ask()
            return ()
        self._received = number
        self._asked = False
        self._untold += 1
        self._untold_bytes += size
        if self._untold >= ACK_MESSAGES or self._untold_bytes >= ACK_BYTES:
            self._say = self._say or _K
        return (memoryview(message)[_HEADER.size :],)

    def _ask(self) -> None:
        self._asked = True
        self._say = _N

    def _receive_other(self, message: bytes) -> tuple[Received, ...]:
        """A message of another epoch than the open one, or of a peer that has ended too many."""
        kind, epoch, number, received = _HEADER.unpack_from(message)
        if self._ends >= MAX_ENDS:
            return ()  # until the next beat
        if self._epochs is not None or epoch < self.epoch:
            return ()  # a front knows better than its hosts, and than its own past
        if epoch == self.epoch:
            if kind != _R:
                self._say = _R
            return ()
        ended = self._finish(Why.RESET, "the front has begun anew")
        self._begin(epoch)
        self._say = _K  # so that the front knows at once
        begins = (kind, number) in ((_K, 0), (_N, 0), (_D, 1))
        lost = received > 0 or (self._forgetful and not begins)
        self._forgetful = False
        if kind == _R:
            self.open = False
            self._say = None
        elif lost:
            self.open = False
            self._received = _UNKNOWN
            self._say = _R
        rest = self.receive(message) if self.open else ()
        return rest if ended is None else (ended, *rest)

    # The end of an epoch

    def end(self, why: Why, detail: str) -> Ended | None:
        """End the epoch, and at the front begin the next one; None: there is none to end."""
        self._ends += 1
        ended = self.close(why, detail)
        if ended is not None and self._epochs is not None:
            self._begin_next(self._epochs)
        return ended

    def close(self, why: Why, detail: str) -> Ended | None:
        """End the epoch, and at the front begin no other: nothing is received any more."""
        ended = self._finish(why, detail)
        if ended is not None:
            self._say = _R
        return ended

    def _violated(self, detail: str) -> tuple[Received, ...]:
        if self._ends >= MAX_ENDS:
            return ()
        ended = self.end(Why.VIOLATION, detail)
        return () if ended is None else (ended,)

    def _reset(self, received: int) -> tuple[Received, ...]:
        self._ends += 1
        known = None if received == _UNKNOWN else received
        ended = self._finish(Why.RESET, "the peer asks to begin anew", known)
        if self._epochs is not None:
            self._begin_next(self._epochs)
        return () if ended is None else (ended,)

    def _finish(self, why: Why, detail: str, received: int | None = None) -> Ended | None:
        """`received`: what the peer says that it has."""
        if not self.open:
            return None
        self.open = False
        reached = self._reached(received)
        self._queue.clear()
        self._window.clear()
        self._say = None
        self._repeat = False
        return Ended(self.epoch, why, detail, reached)

    def _reached(self, received: int | None) -> int:
        """`Ended.reached`."""
        reached = self.acknowledged
        first = self._number - len(self._window) + 1
        for number, message in enumerate(self._window, first):
            if not message.copies or (received is not None and number > received):
                break
            reached = message.end
        return reached


def reset(message: bytes) -> bytes | None:
    """What a front answers to a message of a host that it has no pipe to: R; None: nothing."""
    if len(message) < _HEADER.size or message[:1] == _R:
        return None
    _, epoch, _, _ = _HEADER.unpack_from(message)
    return _HEADER.pack(_R, epoch, 0, 0)
