"""What is known of one request, for whoever counts, logs or traces requests.

# Theory of operation

The front makes an `Observation` when a request's head has been read, fills in what it learns, and
ends it when the response has ended or its client has left. A request that starts a run, or comes
back for one, is observed as every request is; the run itself is one more observation, of its own
kind, at its own end. Without an observer nothing of this is made.

Observers are told of several that have ended at a time (`observe.batch`). They are plain functions
which run between what the event loop does, so they must not wait, and must do little. One that
fails is logged, and disturbs nobody. What has ended keeps nothing of its request's body, call or
answer: it may wait, and it may be kept.

Whatever may become a label or a column is *bounded*: agents that exist, methods that HTTP knows,
routes of this gateway (never the path that was sent), the types of errors, names of keys. A client
can make none of these up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from gateway import clock

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.observe.tracecontext import Spans

OBSERVATION = "observation"
"""The key of `scope["state"]` under which a request's observation is, if it is observed."""

METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)

OTHER_METHOD = "_OTHER"
"""What any other method is called here, as in OpenTelemetry's semantic conventions."""


class Observation(Struct, kw_only=True):
    """One request, or one run. Complete when observers are told. Times are running time
    (`gateway.clock`), in seconds; sizes are in bytes, of bodies alone."""

    kind: Literal["request", "run"] = "request"
    """A run has no method, status, sizes or client: those are of the requests that follow it."""
    began: float
    """When the request's head had been read; of a run, when it was admitted."""
    ended: float = math.nan
    request_id: str = ""
    method: str = ""
    """One of `METHODS`, or `OTHER_METHOD`."""
    route: str = ""
    """What was asked for, with the names of its variable parts: `/agent/{name}/invoke`. Empty:
    nothing that there is."""
    dialect: str = ""
    """The protocol in which an agent is called; empty if none is."""
    handler: str = ""
    """`invoke` or `chat`; empty if no agent is called."""
    agent: str = ""
    """The agent that is called or asked about; empty if there is none with that name."""
    key: str = ""
    """The name of the caller's key; empty if nobody has one."""
    run: str = ""
    """The id of the run that the request started, repeated or came back for."""
    stream: bool = False
    status: int = 0
    """Of the response; 0 if its head was not sent."""
    error: GatewayError | None = None
    """What went wrong last: of a stream, also after its head was sent."""
    bytes_in: int = 0
    bytes_out: int = 0
    request_body: bytes = b""
    """The beginning of the request's body, where payloads are to be logged; empty elsewhere."""
    response_body: bytes = b""
    body_began: float | None = None
    """When the first bytes of the response's body were sent."""
    client_left: bool = False
    """Whether the client was gone before its response had ended."""
    exchange: Exchange | None = None
    """The call of an agent that was made of the request; None again once it has ended. The call of
    a run is the run's, and not also that of a request which follows it: each call is observed once.
    """
    trace: Spans | None = None
    """Its spans, if traces are made."""

    # Derived from the rest by `end`, and unknown before it.

    total: float = math.nan
    """From its beginning to its end."""
    first: float | None = None
    """From its beginning until the first word of an answer came from the worker; of an answer that
    came as one result, until the first bytes of the response. None without either."""
    queued: float | None = None
    """From the call's admission until it was given to the worker that had it last; None if none
    had it."""
    error_type: str = ""
    """The error's `type`, as clients see it; empty if all went well."""
    admitted_at: float | None = None
    """When there was a call; None if none was made of the request."""
    given_at: float | None = None
    spoke_at: float | None = None
    """These two as in `Exchange`."""
    chunks: int = 0
    """How many words (chunks and events) the worker said before the end of its answer."""
    pid: int | None = None
    """Of the worker that had the call last; None if none had it."""
    journal: object = None
    """What the console has noted of the words, if it has."""

    def note_sent(self, data: bytes) -> None:
        """A part of the response's body is being sent."""
        if data and self.body_began is None:
            self.body_began = clock.now()
        self.bytes_out += len(data)

    def end(self, at: float) -> None:
        """The request or the run has ended. Reckons once, for all observers, what follows from all
        else, and lets go of the call, which holds what was asked and answered."""
        self.ended = at
        self.total = at - self.began
        if self.error is not None:
            self.error_type = self.error.type
        first, exchange = self.body_began, self.exchange
        if exchange is not None:
            self.exchange = None
            self.admitted_at, self.given_at = exchange.admitted_at, exchange.given_at
            self.chunks, self.journal = exchange.word_count, exchange.journal
            if exchange.carrier is not None:
                self.pid = exchange.carrier.pid
            if exchange.given_at is not None:
                self.queued = exchange.given_at - exchange.admitted_at
            if exchange.spoke_at is not None:
                first = self.spoke_at = exchange.spoke_at
        if first is not None:
            self.first = max(0.0, first - self.began)

    def of_run(self, run: str, exchange: Exchange) -> Observation:
        """The observation of the run that this request starts."""
        return Observation(
            kind="run",
            began=exchange.admitted_at,
            request_id=self.request_id,
            route=self.route,
            dialect=self.dialect,
            handler=self.handler,
            agent=self.agent,
            key=self.key,
            run=run,
            stream=self.stream,
            exchange=exchange,
            trace=self.trace,
        )


Tell: TypeAlias = Callable[[Observation], None]
"""Called with each observation that has ended. Never raises."""

Observer: TypeAlias = Callable[[Sequence[Observation]], None]
"""Called with several observations that have ended, in the order of their ends."""


def method_of(sent: str) -> str:
    """The method, if it is one that HTTP knows."""
    return sent if sent in METHODS else OTHER_METHOD
