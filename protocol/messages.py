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


class Ready(Struct, frozen=True, kw_only=True):
    """The optional first message of a worker, which declares what it can do."""

    protocol: int
    handlers: tuple[str, ...]
    concurrency: int = 1
    description: str | None = None
    metadata: JSON = b"{}"


class Chunk(Struct, frozen=True, gc=False):
    """One piece of a stream. `text` is a JSON string, quotes and escapes included."""

    id: int
    text: JSON


class Burst(Struct, frozen=True, gc=False):
    """Several consecutive `Chunk`s of one stream."""

    id: int
    texts: list[JSON]


class Result(Struct, frozen=True, gc=False):
    """The whole answer: the `output` of an invoke, or the `message` of a chat."""

    id: int
    value: Payload


class End(Struct, frozen=True, gc=False):
    """The end of a stream of chunks."""

    id: int


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


FromWorker: TypeAlias = Ready | Chunk | Result | End | Failure | Malformed


# From the gateway, as a worker receives it.


class Invoke(Struct, frozen=True):
    """Process `input` and answer with an output, or with chunks."""

    id: int
    input: Payload
    stream: bool
    context: JSON
    request_id: str


class Chat(Struct, frozen=True):
    """Answer `messages` (a JSON array) with a message, or with chunks."""

    id: int
    messages: Payload
    stream: bool
    context: JSON
    request_id: str


class Cancel(Struct, frozen=True):
    """Nobody waits for the answer to `id` any more. An answer that is already sent does no harm."""

    id: int


class Unsupported(Struct, frozen=True):
    """A request whose method this version does not know, to be refused with
    HANDLER_NOT_IMPLEMENTED."""

    id: int
    method: str


FromGateway: TypeAlias = Invoke | Chat | Cancel | Unsupported
