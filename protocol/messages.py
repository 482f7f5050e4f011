"""The closed set of messages that the sides of a connection exchange, each a msgspec Struct.

Payloads (`input`, `messages`, `output`, the text of a chunk) are the JSON bytes that the peer
wrote: they have been checked to be JSON, and are never decoded to Python objects here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from .errors import RemoteProtocolError

PROTOCOL_VERSION = 1
"""The version that `ready` declares. A worker that declares another one is not used."""

Method: TypeAlias = Literal["invoke", "chat"]
"""The two kinds of request. An agent has at most one handler for each."""

METHODS: tuple[Method, ...] = get_args(Method)

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
"""The author of a chat message (reference API, "Message Roles")."""

ROLES: tuple[Role, ...] = get_args(Role)

JSON = bytes
"""One JSON text, UTF-8, on one line."""

Payload: TypeAlias = bytes | memoryview
"""One JSON text that may be large: then it is a view of the bytes that it was read in."""


# From a worker, as the gateway receives it.


MAX_HANDLERS = 16
"""Names in `ready`'s `handlers`: this version knows two, and a later one may know more."""

MAX_HANDLER_NAME = 64
"""Characters of such a name."""

MAX_DESCRIPTION = 4096
"""Characters of `ready`'s `description`: a page of text. It is sent with every status."""

MAX_MODES = 16
"""Kinds of content in `ready`'s `modes`: this version knows four."""

MAX_METADATA_BYTES = 64 * 1024
"""Of `ready`'s `metadata`, `input` and `output` each, as JSON text: a schema of input and output
fits. It is sent with every status of the agent."""


class Ready(Struct, frozen=True, kw_only=True):
    """The optional first message of a worker, which declares what it can do."""

    protocol: int
    handlers: tuple[str, ...]
    concurrency: int = 1
    description: str | None = None
    metadata: JSON = b"{}"
    input: JSON | None = None
    """The JSON Schema of an invoke's input, an object."""
    output: JSON | None = None
    """The JSON Schema of an invoke's output, an object."""
    modes: tuple[str, ...] = ()
    """The kinds of content that messages may hold for it: "text", "image", "audio", "file"."""
    tools: bool = False
    """Whether it calls tools of the client's."""
    asks: bool = False
    """Whether it asks questions, and goes on with their answers."""

    def excess(self) -> str | None:
        """What is larger than it may be, in words that name the bound; None if nothing is."""
        longest = max(map(len, self.handlers), default=0)
        longest_mode = max(map(len, self.modes), default=0)
        for what, size, most in (
            ("names in ready's handlers", len(self.handlers), MAX_HANDLERS),
            ("characters in a name of ready's handlers", longest, MAX_HANDLER_NAME),
            ("characters in ready's description", len(self.description or ""), MAX_DESCRIPTION),
            ("bytes in ready's metadata", len(self.metadata), MAX_METADATA_BYTES),
            ("bytes in ready's input", len(self.input or b""), MAX_METADATA_BYTES),
            ("bytes in ready's output", len(self.output or b""), MAX_METADATA_BYTES),
            ("names in ready's modes", len(self.modes), MAX_MODES),
            ("characters in a name of ready's modes", longest_mode, MAX_HANDLER_NAME),
        ):
            if size > most:
                return f"{size} {what}, expected at most {most}"
        return None


class Chunk(Struct, frozen=True, gc=False):
    """One piece of a stream. `text` is a JSON string, quotes and escapes included."""

    id: int
    text: JSON


class Burst(Struct, frozen=True, gc=False):
    """Several consecutive `Chunk`s of one stream."""

    id: int
    texts: list[JSON]


class Event(Struct, frozen=True, gc=False):
    """What the agent says beside its text: a JSON object that `events.read_event` can read."""

    id: int
    event: JSON


class Outcome(Struct, frozen=True, gc=False):
    """How an answer ended, as far as the worker tells; see `events` for each member's bounds."""

    finish: str | None = None
    """One of `events.FINISHES`."""
    usage: JSON | None = None
    """An object of counts: `input_tokens`, `output_tokens`, …"""
    asks: JSON | None = None
    """An array of the questions to be answered, with the finish `input_required`."""


class Result(Struct, frozen=True, gc=False):
    """The whole answer: the `output` of an invoke, or the `message` of a chat."""

    id: int
    value: Payload
    outcome: Outcome | None = None


class End(Struct, frozen=True, gc=False):
    """The end of a stream of chunks."""

    id: int
    outcome: Outcome | None = None


class Failure(Struct, frozen=True):
    """The worker answered with an error. See `ErrorCode` for the codes with a meaning."""

    id: int
    code: int
    message: str


class Malformed(Struct, frozen=True):
    """A line that violates the protocol. `id` is None when the line belongs to no request in
    flight."""

    id: int | None
    error: RemoteProtocolError


FromWorker: TypeAlias = Ready | Chunk | Event | Result | End | Failure | Malformed


# From the gateway, as a worker receives it.


class Invoke(Struct, frozen=True):
    """Process `input` and answer with an output, or with chunks.

    `events`: the gateway takes events, and an outcome. `tools` and `resume` are JSON arrays:
    tools that the client will run, and its answers to questions. `traceparent` and
    `tracestate` are those of W3C Trace Context.
    """

    id: int
    input: Payload
    stream: bool
    context: JSON
    request_id: str
    events: bool = False
    tools: JSON | None = None
    resume: JSON | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class Chat(Struct, frozen=True):
    """Answer `messages` (a JSON array) with a message, or with chunks. The rest is as in
    `Invoke`."""

    id: int
    messages: Payload
    stream: bool
    context: JSON
    request_id: str
    events: bool = False
    tools: JSON | None = None
    resume: JSON | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class Cancel(Struct, frozen=True):
    """Nobody waits for the answer to `id` any more. An answer that is already sent does no harm."""

    id: int


class Unsupported(Struct, frozen=True):
    """A request whose method this version does not know, to be refused with
    HANDLER_NOT_IMPLEMENTED."""

    id: int
    method: str


FromGateway: TypeAlias = Invoke | Chat | Cancel | Unsupported
