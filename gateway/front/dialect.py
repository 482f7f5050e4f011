"""The seam between HTTP and the formats of client protocols.

Theory of operation
-------------------

A *dialect* is one protocol that clients speak: its paths, the bodies of its requests, its answers,
the framing of its streams, and its errors. `front/requests.py` owns what is the same for all of
them: reading a body within its limits and clocks, watching whether the client leaves or stops
reading, request ids, the log, and responding before a body was read. A dialect owns every byte of
a body in both directions, and nothing else: no task, no clock, no I/O. Its methods are plain
functions over plain state, and none of them waits.

One request goes through the seam in this order:

1. `Dialect.match(path)` gives a `Codec`, or None: the path is not this dialect's. A codec is the
   state of one request, for as long as that lasts. It may be shared if it has no state. A request
   that fails without one is answered by a dialect that `covers` its path: where several do, by the
   one whose client the header shows (`dialect_of`).
2. `Codec.agent` is looked up before the body is read, if the path names an agent.
3. `Codec.decode(head, body)` makes a `Call`. Where the body names the agent, it is read here. What
   a response needs of the request (a JSON-RPC id, a model's name) is kept by the codec. A request
   that is for no agent (a handshake of the client protocol's own) gets its `Response` here, and one
   that concerns a run is a `RunRequest`.
4. The dispatcher makes an `Exchange` of the call.
5. An exchange that is not a stream is awaited, and `Codec.encode(exchange, chunks)` writes the one
   response. One that is a stream (`Call.stream`; a dialect may set it whatever the body says)
   gets a `StreamEncoder`, which writes the parts, with state of its own: ids, sequence numbers, the
   text so far. The response's head waits for the first chunk, for the end, or for the first
   keep-alive; a stream that fails before that is not a stream, but an error response with a status.
6. Any `GatewayError`, at any step, becomes a response through `Codec.encode_error`; after the head
   of a stream it becomes the stream's last part through `StreamEncoder.error`.

A request that is to outlive its connection is a *run* (`runs`): its exchange is read by a task of
the gateway's own, with the same codec, and what that encodes is kept. A dialect says that a request
is one by `Call.continues`. Streams are kept by their events, which are counted from 0 and given out
with `id:` lines; what a stream encoder writes must therefore be whole events and comments.

Where a client protocol speaks of such requests in its bodies (tasks, chats to be resumed), `decode`
gives a `RunRequest`, which is carried out for whoever may: runs are found by their tokens, for the
credential and in the dialect that they were started with. A dialect learns the token of a run from
`KeptCodec.kept_as` (`run_codec`). Its clients get the events of the run as they are, or, if the
codec is a `RunReader`, what that makes of them, and of what the run's own codec tells: one request
may be answered through two codecs, one that writes what is kept, and one that reads it to its
client.

An answer comes from a worker in either of two forms, whatever the client asked for: as one result,
or as chunks and their end. A codec and a stream encoder turn each into what the client wants.

A *word* is what a worker says of an answer before its end: a chunk of text (a JSON string), or an
event (a JSON object, `protocol.events`): the agent's reasoning, its tools' calls, files, and so on.
Words come in the order in which they were said. Events are among them only where `Call.events` is
true, and so is `Exchange.outcome` (how the answer ended, its usage, its questions), known once the
exchange has ended: a dialect that does not set it meets chunks only. `text_runs` divides words into
runs of chunks and events, and `protocol.events.read_event` decodes an event, which was checked.
A tool call is the client's to be run only if its name is one of the request's `tools`, no
tool_result has followed, and the finish is `tool_calls`; any other is the agent's own business, to
be shown or dropped. What a body holds that not every agent can honour is named in `Call.needs`:
then an agent whose `ready` does not declare it is not given the request, but InvalidRequest is the
answer.

Who asks is known before a dialect is: a request without a good key does not come here, and what a
body names (the agent, the conversation, the user) is checked and made its caller's own afterwards
(`auth`). What a dialect itself keeps from one request for another one, it must keep by
`RequestHead.owner`: the same name of two callers is two things. Where a client protocol has a field
of its own for keys, it is added to those that `auth` reads.

To add a dialect: make a package beside `native/` with a `Dialect`, and name it in `dialects`. What
a client protocol has besides calls (lists, cards) is a Blueprint in a module `routes` of the
package, which may know more. Its other modules may import the ground (`config`, `errors`,
`exchange`, `observe`), `protocol`, msgspec, the pure parts of the standard library, this module,
`run_codec`, and what dialects have in common: `bodies`, `chats` and `event_stream`;
tests/test_architecture.py holds that. A dialect never needs a change in `agents/` or `workers/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from gateway.errors import (
    GatewayError,
    HandlerNotImplemented,
    HTTPVersionNotSupported,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RateLimited,
    TransferCodingNotImplemented,
    Unauthorized,
)
from gateway.words import join_chunks, text_runs

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.exchange import Exchange
    from protocol import Method, Payload

__all__ = [
    "MOST_CONVERSATION_ID",
    "RUN_PREFIX",
    "Codec",
    "Dialect",
    "Headers",
    "RequestHead",
    "Response",
    "Route",
    "RunPath",
    "RunRequest",
    "SharingDialect",
    "StreamEncoder",
    "caller_timeout",
    "conversation_of",
    "dialect_of",
    "error_headers",
    "join_chunks",
    "rate_limit_fields",
    "retry_headers",
    "shown",
    "text_runs",
]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names in lower case, as ASGI has them."""

RUN_PREFIX = "run_"
"""What a run's id begins with, unless it is the id of an object of the client's protocol."""

MOST_CONVERSATION_ID = 256
"""Characters: conversations are kept by their ids for as long as their workers live."""


class RequestHead(Struct, gc=False):
    """What is used of a request's headers."""

    request_id: str
    """The client's, if it can be used, else one of the gateway's own."""
    host: bytes | None = None
    """`Host` as it was sent; `hosts` reads it."""
    content_type: bytes | None = None
    content_encoding: bytes | None = None
    content_length: int = 0
    """In bytes; 0 if the client does not tell."""
    has_body: bool = False
    query: bytes = b""
    """What follows the `?`, as it was sent. Known only where `Route.has_runs`, as is the next."""
    scheme: str = "http"
    """By which the request came to the gateway; a proxy in front may be reached by another."""
    conversation: bytes | None = None
    """`X-Conversation-Id` as it was sent; `conversation_of` reads it."""
    timeout: bytes | None = None
    """`X-Timeout` as it was sent; `caller_timeout` reads it."""
    owner: str = ""
    """The name of the caller's key; empty where there are no keys."""
    fields: Mapping[bytes, bytes] = {}
    """All that is used of the fields, by name in lower case, as they were sent: what only few
    requests need is read from here."""


class Response(NamedTuple):
    """A whole response. Content-Length and X-Request-Id are added where it is sent."""

    status: int
    headers: Headers
    body: bytes
    event: bytes = b""
    """Of an error: what tells of it in a stream, if that is not the body."""


class Route(NamedTuple):
    """What a path that calls an agent stands for, in words that clients cannot make up."""

    dialect: str
    path: str
    """With the names of its variable parts: `/agent/{name}/invoke`."""
    handler: Method
    method: str = "POST"
    """The only one that is supported there."""
    has_runs: bool = False
    """Whether a request there may concern a run: it takes no place in limits before that is known.
    """


class RunRequest(NamedTuple):
    """A request that concerns a run and calls no agent, though its path is that of a codec."""

    does: Literal["show", "cancel", "follow", "rejoin", "go_on", "list"]
    """`follow` is to read its stream; `rejoin` as well, from its first event, unless there is
    nothing to be had that was not read to its end, which is a 204. `go_on` is to begin another run
    in its place; it, `show`, `cancel` and `list` are for a `RunReader` only."""
    token: str = ""
    """The run's id without the dialect's prefix; empty if it has another form, and for `list`."""
    position: int = 0
    """Of `follow`: the number of the first event. A `RunReader` begins where its telling ends."""


class RunPath(NamedTuple):
    """What the path of a run says. A run is a request that outlives its connection: see `runs`."""

    token: str
    """The run's id without the dialect's prefix; empty if it has another form."""
    cancels: bool
    dialect: str = ""
    """The dialect that the run must be of, and whose object it is shown as (`RunCodec`). Empty: of
    any, and shown as every run can be."""
    root: str = "/runs"
    """What stands before the id."""

    @property
    def route(self) -> str:
        """The path, with a name for its variable part."""
        return f"{self.root}/{{id}}/cancel" if self.cancels else f"{self.root}/{{id}}"


class Dialect(Protocol):
    """One client protocol. See the module's docstring."""

    def match(self, path: str) -> Codec | None:
        """The codec for a request on `path`; None: the path does not call an agent by this dialect.

        The path is decoded, and as it was sent otherwise: see `target`.

        Every call is a POST: any other method on a path that matches is answered with 405.
        """

    def match_run(self, path: str) -> RunPath | None:
        """Which run `path` is of; None: of none that this dialect knows. It may not exist."""

    def covers(self, path: str) -> bool:
        """Whether clients that ask for `path` speak this dialect, though nothing may be there."""

    def encode_error(self, error: GatewayError, request_id: str) -> Response:
        """Write an error of a request on a path that is covered and has no codec."""


@runtime_checkable
class SharingDialect(Dialect, Protocol):
    """A dialect that covers paths which another one covers as well."""

    def claims(self, path: str, fields: Mapping[bytes, bytes]) -> bool:
        """Whether a request for one of these paths can only be of this dialect. `fields` are as in
        `RequestHead`."""


class Codec(Protocol):
    """One request: decodes its body, encodes what it is answered with."""

    @property
    def agent(self) -> str | None:
        """The agent that the path names; None: the body names it."""

    @property
    def route(self) -> Route:
        """What the path stands for."""

    def decode(self, head: RequestHead, body: bytes) -> Call | Response | RunRequest:
        """Check a whole body. Returns a response if no agent is needed for it, and a `RunRequest`
        if it concerns a run. Raises InvalidRequest.

        The codec must not keep `body`: the exchange outlives it, perhaps by hours.
        """

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        """Write the answer of an exchange that ended well.

        The answer is `exchange.result`, or, where that is None, the chunks among the words. Raises
        GatewayError for an answer that cannot be told in this dialect.
        """

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        """Write an error. `output_begun` is the exchange's; None: there was no exchange."""

    def stream(self, exchange: Exchange) -> StreamEncoder:
        """Start the response to an exchange that is a stream."""


class StreamEncoder(Protocol):
    """The parts of one stream, in the order in which they are sent.

    Events that open a stream belong to the first part, whichever that is: `chunks` or `keep_alive`
    any number of times, then `end` or `error` once.
    """

    @property
    def headers(self) -> Headers:
        """Of the response, whose status is 200."""

    @property
    def failure(self) -> GatewayError | None:
        """Why an answer cannot be told, though its exchange may have ended well:
        `end` tells of this instead."""

    def chunks(self, words: list[bytes]) -> bytes:
        """Words that came together; at least one."""

    def keep_alive(self) -> bytes:
        """What tells the client, and the proxies on the way, that the agent is still at work."""

    def end(self, result: Payload | None) -> bytes:
        """The end of a stream that ended well, after its one result if the answer was one. The
        exchange has its outcome."""

    def error(self, error: GatewayError) -> bytes:
        """The end of a stream that failed: never to be mistaken for `end`."""


def dialect_of(dialects: Sequence[Dialect], path: str, fields: Mapping[bytes, bytes]) -> Dialect:
    """The dialect that a client speaks who asks for `path`: of those that cover it, the one that
    claims the request, or else the first. The last of all covers what no other one does."""
    covering = [each for each in dialects if each.covers(path)] or [dialects[-1]]
    claiming = (
        each for each in covering if isinstance(each, SharingDialect) and each.claims(path, fields)
    )
    return next(claiming, covering[0])


def error_headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """The headers by which HTTP itself tells of an error, in every dialect alike."""
    headers = [(b"cache-control", b"no-store")]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, RateLimited):
        headers += rate_limit_fields(error.policies.encode(), error.left.encode())
    if error.retry_after is not None:
        # Whole seconds, and never 0: "now" is what has just failed (RFC 9110, 10.2.3).
        seconds = max(1, math.ceil(error.retry_after))
        headers.append((b"retry-after", b"%d" % seconds))
    return headers


def rate_limit_fields(policies: bytes, left: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10; none where there are no policies."""
    return [(b"ratelimit-policy", policies), (b"ratelimit", left)] if policies else []


_SAME_AGAIN = (
    HandlerNotImplemented,
    HTTPVersionNotSupported,
    InternalError,
    TransferCodingNotImplemented,
)
"""After these, the same request has the same outcome."""


def retry_headers(error: GatewayError, *, handed_over: bool) -> list[tuple[bytes, bytes]]:
    """The headers that say whether a request may be sent again after an error of the server.

    Many clients send one again after any 5xx. Once a worker may have read it (`handed_over`, see
    `Exchange`) that would run the agent again, so `x-should-retry: false`, which the clients of
    OpenAI and Anthropic obey, forbids it; so it does where the answer would be the same again.
    Otherwise `Retry-After` says when.
    """
    if error.status < 500:
        return []
    if handed_over or isinstance(error, _SAME_AGAIN):
        return [(b"x-should-retry", b"false")]
    return [(b"retry-after", b"1")] if error.retry_after is None else []


def caller_timeout(head: RequestHead) -> float:
    """The `X-Timeout` header in seconds, infinity without one. Raises InvalidRequest."""
    if head.timeout is None:
        return math.inf
    try:
        seconds = float(head.timeout)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidRequest(f"X-Timeout is {shown(head.timeout)}, expected seconds, more than 0")
    return seconds


def conversation_of(head: RequestHead, body_id: str | None) -> str | None:
    """The conversation that a request belongs to, by its body or by `X-Conversation-Id`.

    The header, in UTF-8, is for the proxies on the way, which cannot read the body. An empty one is
    none. Raises InvalidRequest.
    """
    header_id = _conversation_in_header(head.conversation) if head.conversation else None
    if header_id is not None and body_id is not None and header_id != body_id:
        raise InvalidRequest(
            "X-Conversation-Id and the body name different conversations: "
            f"{header_id[:80]!r} and {body_id[:80]!r}"
        )
    conversation = body_id if header_id is None else header_id
    if conversation is not None and len(conversation) > MOST_CONVERSATION_ID:
        raise InvalidRequest(
            f"the conversation's id has {len(conversation)} characters, "
            f"expected at most {MOST_CONVERSATION_ID}"
        )
    return conversation


def _conversation_in_header(value: bytes) -> str:
    if b"\n" in value:
        raise InvalidRequest("X-Conversation-Id was sent more than once")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"X-Conversation-Id is {shown(value)}, expected UTF-8") from None


def shown(value: bytes) -> str:
    """The start of a header's value, fit for a message."""
    return repr(value[:80].decode("latin-1"))
