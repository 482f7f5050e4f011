"""The closed set of messages, each a msgspec Struct, as the sides of a connection exchange them.

Payloads (`input`, `messages`, `output`, the text of a chunk) are the JSON bytes that the peer
wrote: they were checked to be JSON, and are never rebuilt as Python objects here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from .errors import RemoteProtocolError

PROTOCOL_VERSION = 1
"""What `ready` declares. A worker that declares another version is not served."""

Method: TypeAlias = Literal["invoke", "chat"]
"""What a worker can be asked for: one handler each."""

METHODS: tuple[Method, ...] = get_args(Method)

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
"""Who speaks in a chat message (reference API, "Message Roles")."""

ROLES: tuple[Role, ...] = get_args(Role)

JSON = bytes
"""One JSON text, UTF-8, without a newline."""

Payload: TypeAlias = bytes | memoryview
"""The same, where it may be large: then a view of what it came in, which saves a copy."""


# What a worker sends, as the gateway sees it.


class Ready(Struct, frozen=True, kw_only=True):
    """The worker's first line, if it sends one: what it can do."""

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
    """Several pieces of one stream that came together: as many `Chunk`s, in one."""

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
    """A line that broke the protocol. `id` is None when it belongs to no request in flight."""

    id: int | None
    error: RemoteProtocolError


FromWorker: TypeAlias = Ready | Chunk | Result | End | Failure | Malformed


# What the gateway sends, as a worker sees it.


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
    """Nobody waits for the answer to `id` any more. An answer that is on its way does no harm."""

    id: int


class Unsupported(Struct, frozen=True):
    """A request that this version does not know, to be answered with `handler not implemented`."""

    id: int
    method: str


FromGateway: TypeAlias = Invoke | Chat | Cancel | Unsupported
