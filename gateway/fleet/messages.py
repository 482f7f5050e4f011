"""What fronts and hosts say to each other; README.md tells when. Pure.

Frames on a pipe are written by `encode` and read by a `Reader`. Structs are arrays in MessagePack
with their tag first; what a later version adds to the end of one is ignored by an earlier one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from protocol import Method
from protocol.framing import MAX_RELAYED_LINE_BYTES
from protocol.payloads import MAX_REASON

VERSION = 1
"""The version of these messages and of the pipe. Processes of different versions ignore each other.
"""

Detail: TypeAlias = str | int | float | bool | None

# What is decoded takes up to a hundred times its bytes in memory. So the length of every list and
# map is bounded before its members are decoded; what is larger is not the protocol.

MOST_DETAILS = 64
"""Details of one error; this version has fewer than 16."""

MOST_NEEDS = 64
"""Needs of one call; this version has fewer than 16."""

MOST_DESCRIPTION = 64 * 1024
"""Characters of an agent's description in the configuration; the rest is not told."""

MOST_AGENTS = 1000
"""Agents of one host."""

MOST_BEATEN = 4 * MOST_AGENTS
"""Agents that a beat may have: those beyond `MOST_AGENTS` are left out. Reading them takes 3 ms."""


class Error(Struct, array_like=True, frozen=True):
    """A `GatewayError`, which the front makes anew (`front/errors.py`)."""

    type: str
    message: str
    retry_after: float | None = None
    details: Annotated[dict[str, Detail], Meta(max_length=MOST_DETAILS)] = {}


# Front to host


class Submit(Struct, array_like=True, frozen=True, tag="submit"):
    """A call; the members are those of `gateway.call.Call`."""

    id: int
    """Of the request on this pipe: given out by the front's `GatewayConnection`."""
    agent: str
    method: Method
    payload: bytes
    stream: bool
    context: bytes
    conversation: str | None
    user: str | None
    owner: str
    request_id: str
    total: float | None
    """Seconds that are left of what the caller allows; None: it did not say."""
    events: bool
    tools: bytes | None
    resume: bytes | None
    trace: tuple[str, str | None] | None
    """`traceparent` and `tracestate`."""
    needs: Annotated[list[str], Meta(max_length=MOST_NEEDS)]
    continues: bool
    described: int | None = None
    """By which revision of the agent's description the front has checked it; None: by none."""
    had: str | None = None
    """The process that had the conversation last, as far as the front knows: `str(Peer)`."""


class Cancel(Struct, array_like=True, frozen=True, tag="cancel"):
    """Nobody waits for a request any more. Its end is still told."""

    id: int


class Took(Struct, array_like=True, frozen=True, tag="took"):
    """The client has taken words of a request: bytes since the last time, each word with
    `exchange.CHUNK_COST`."""

    id: int
    size: int


class Ask(Struct, array_like=True, frozen=True, tag="ask"):
    """A question that a host answers with `Told`: "describe" (`AgentDescription`) or "status"
    (JSON, as `agents.status.AgentStatus`)."""

    id: int
    """Of the question: numbers of its own."""
    what: str
    agent: str


class Left(Struct, array_like=True, frozen=True, tag="left"):
    """The answer to `Leaving`: nothing is submitted after it."""


# Host to front


class Given(Struct, array_like=True, frozen=True, tag="given"):
    """A worker has the request. Said before its first word."""

    id: int
    pid: int | None
    session: str | None
    queued: float
    """Seconds from its submission at the host until then."""


class Lines(Struct, array_like=True, frozen=True, tag="lines"):
    """Whole lines of the worker protocol: chunks, events, results and ends of requests."""

    data: bytes


class Refused(Struct, array_like=True, frozen=True, tag="refused"):
    """No worker was given the request, and none will be."""

    id: int
    error: Error
    elsewhere: bool
    """Whether another host may be asked."""
    owner: str | None = None
    """The host that has the conversation, which is to be asked: `str(Peer)`."""


class Failed(Struct, array_like=True, frozen=True, tag="failed"):
    """The request has ended badly."""

    id: int
    error: Error
    handed_over: bool
    """Whether a worker may have read it."""


class Hurry(Struct, array_like=True, frozen=True, tag="hurry"):
    """Others need the worker of a stream whose client is slow: its words are to be taken soon
    without the client, as those of a run can be; otherwise the stream is to end."""

    id: int


class Described(Struct, array_like=True, frozen=True, tag="described"):
    """The agent's description is another one than the front was told. Said before the first words
    that came after the change."""

    agent: str
    revision: int
    body: bytes
    """An `AgentDescription`."""


class Leaving(Struct, array_like=True, frozen=True, tag="leaving"):
    """The host ends: whoever has received this says `Left`, and submits nothing to it any more."""


class Told(Struct, array_like=True, frozen=True, tag="told"):
    """The answer to an `Ask`; None: there is no such agent, or question."""

    id: int
    body: bytes | None


# Host to host, and to fronts


class Claim(Struct, array_like=True, frozen=True):
    """Who else has this conversation? Asked on its subject. The answer (`Subjects.answer_to` says
    where) is the name of a process (`str(Peer)`) that has it or has the better claim, or nothing:
    not the one who answers."""

    rank: int
    """Of two that claim at once, the one with the smaller rank has it; then the smaller host."""
    host: str


Up: TypeAlias = Submit | Cancel | Took | Ask | Left
Down: TypeAlias = Given | Lines | Refused | Failed | Hurry | Described | Leaving | Told


# What a host says of itself


class AgentBeat(Struct, array_like=True, frozen=True):
    """How an agent is at a host."""

    state: str
    """An `agents.status.AgentState`."""
    capacity: int
    """Requests that its workers, all that there may be, can have at a time."""
    in_flight: int
    waiting: int
    revision: int
    """Goes up when what `AgentDescription` says changes."""
    workers: int = 0
    """Those that it has now."""


class Beat(Struct, array_like=True, frozen=True):
    """Every 200 ms, by each host. MessagePack without a length: a message of its own."""

    version: int
    gateway: str
    """The version of agent-gateway."""
    draining: bool
    agents: Annotated[dict[str, AgentBeat], Meta(max_length=MOST_BEATEN)]


class AgentDescription(Struct, array_like=True, frozen=True):
    """What seldom changes of an agent at a host."""

    ready: bytes | None
    """The line `ready` of the worker protocol; None: no worker has spoken the handshake."""
    known: bool
    """Whether any worker has spoken."""
    description: str | None
    """The configuration's."""
    session: str
    session_by: str
    continues: bool
    """Whether `on_disconnect` is "continue"."""
    most_workers: int
    queue: int
    total: float
    """The `total` clock in seconds; infinity: off."""
    write: float
    """The `write` clock."""
    settings: Raw = Raw(b"\x80")
    """A map, for a later version."""


MAX_FRAME_BYTES = MAX_RELAYED_LINE_BYTES + 64 * 1024
"""The longest body of a frame, which holds a whole line. A call is shorter: its payload is at most
one line of a worker's, and context, tools and answers to questions come from the same body."""

_LENGTH = struct.Struct(">I")

_encoder = msgspec.msgpack.Encoder()


def encode(message: Up | Down) -> bytes:
    """A frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


NO_MESSAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected: text that is no UTF-8, and what is
nested too deeply, have exceptions of their own. Wherever a peer's bytes are read, all are caught:
one that was not would end this process."""


class FrameError(ValueError):
    """What the peer has sent are not frames of the messages that it may send."""


_Said = TypeVar("_Said")

_decode_up = msgspec.msgpack.Decoder[Up](Up).decode
_decode_down = msgspec.msgpack.Decoder[Down](Down).decode


class Reader(Generic[_Said]):
    """Takes bytes in any split, returns the messages of the frames that they complete.

    The work is linear in the input, and what is held is at most one frame, as far as it has come.
    """

    __slots__ = ("_decode", "_held", "_needed")

    def __init__(self, decode: Callable[[memoryview], _Said]) -> None:
        self._decode = decode
        self._held = bytearray()
        """The beginning of a frame."""
        self._needed = 0
        """Bytes that `_held` must have before more can be said of the frame."""

    @classmethod
    def up(cls) -> Reader[Up]:
        """Of what fronts say."""
        return Reader(_decode_up)

    @classmethod
    def down(cls) -> Reader[Down]:
        """Of what hosts say."""
        return Reader(_decode_down)

    def feed(self, data: bytes | memoryview) -> list[_Said]:
        """Raises FrameError; the reader is not to be fed again after it."""
        if not self._held:
            return self._read(memoryview(data))
        self._held += data
        if len(self._held) < self._needed:
            return []
        whole, self._held = self._held, bytearray()
        return self._read(memoryview(whole))

    def _read(self, data: memoryview) -> list[_Said]:
        messages = []
        at, size = 0, len(data)
        self._needed = _LENGTH.size
        while at + _LENGTH.size <= size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes, expected at most {MAX_FRAME_BYTES}")
            start = at + _LENGTH.size
            if start + length > size:
                self._needed = _LENGTH.size + length
                break
            try:
                messages.append(self._decode(data[start : start + length]))
            except NO_MESSAGE as error:
                raise FrameError(f"a frame that is no message: {str(error)[:MAX_REASON]}") from None
            at = start + length
        if at < size:
            self._held += data[at:]
        return messages
