"""A call's answer in between: as events of a run, and what is read from them.

A call that is a run (its agent goes on without clients, or the request has an Idempotency-Key) is
encoded by the run's task and read by whoever waits for it:

    data: {"progress": [[0.5, 1.0, "half"]]}

    data: {"answer": {…}, "outcome": {…}}
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.errors import GatewayError
from gateway.front.dialect import Response, Route
from gateway.front.event_stream import HEADERS, KEEP_ALIVE
from gateway.front.mcp.answer import Answer, Answering, Progress
from gateway.front.mcp.errors import encode_error
from protocol import Outcome

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.exchange import Exchange
    from gateway.front.dialect import Headers, RequestHead
    from protocol import Method, Payload

PATH = "/mcp"

_encode = msgspec.json.encode


class Told(Struct, frozen=True, gc=False, omit_defaults=True):
    """One event of a run."""

    progress: list[Progress] = []
    content: str | None = None
    value: str | None = None
    meta: Raw = Raw(b"{}")
    finish: str | None = None
    asks: Raw = Raw(b"null")

    @property
    def answer(self) -> Answer | None:
        """The whole answer; None before the end."""
        if self.content is None:
            return None
        value = None if self.value is None else self.value.encode()
        return Answer(self.content.encode(), value, bytes(self.meta))


decode_told = msgspec.json.Decoder(Told).decode


def read_events(data: bytes) -> list[Told]:
    """What whole events of a run say; comments say nothing."""
    lines = (line for line in data.split(b"\n") if line.startswith(b"data: {"))
    return [decode_told(line.removeprefix(b"data: ")) for line in lines]


class CallCodec:
    """The `Codec` of one tool call. Its bodies are read elsewhere: `decode` is never called."""

    def __init__(self, agent: str, method: Method, version: str) -> None:
        self.agent = agent
        self.route = Route("mcp", PATH, method)
        self._version = version
        self.last = Answering(agent, method, version)
        """What makes the answer of words, of the last exchange."""

    def decode(self, head: RequestHead, body: bytes) -> Call | Response:
        raise NotImplementedError

    def answering(self) -> Answering:
        """A new one for an exchange: see `last`."""
        self.last = Answering(self.agent, self.route.handler, self._version)
        return self.last

    def encode(self, exchange: Exchange, words: list[bytes]) -> Response:
        raise NotImplementedError  # every call is a stream

    def encode_error(
        self, error: GatewayError, request_id: str, output_begun: bool | None = None
    ) -> Response:
        del output_begun
        return encode_error(error, request_id)

    def stream(self, exchange: Exchange) -> RunEncoder:
        return RunEncoder(self.answering(), exchange)


class RunEncoder:
    """A `StreamEncoder`: see the module's docstring."""

    headers: Headers = HEADERS

    def __init__(self, answering: Answering, exchange: Exchange) -> None:
        self.failure: GatewayError | None = None
        self._answering = answering
        self._exchange = exchange

    def chunks(self, words: list[bytes]) -> bytes:
        """Progress, if there is any."""
        if self.failure is not None:
            return KEEP_ALIVE
        try:
            self._answering.add(words)
        except GatewayError as error:
            self.failure = copy(error)
            return KEEP_ALIVE
        progress = self._answering.take_progress()
        return b"data: %b\n\n" % _encode(Told(progress)) if progress else KEEP_ALIVE

    def keep_alive(self) -> bytes:
        return KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        if self.failure is not None:
            return self.error(self.failure)
        outcome = self._exchange.outcome
        try:
            answer = self._answering.end(result, outcome)
        except GatewayError as error:
            self.failure = copy(error)
            return self.error(error)
        asks = None if outcome is None else outcome.asks
        told = Told(
            content=answer.content.decode(),
            value=None if answer.value is None else bytes(answer.value).decode(),
            meta=Raw(answer.meta),
            finish=None if outcome is None else outcome.finish,
            asks=Raw(b"null" if asks is None else asks),
        )
        return b"data: %b\n\n" % _encode(told)

    def error(self, error: GatewayError) -> bytes:
        del error  # the run has it
        return b"event: error\ndata: []\n\n"


def outcome_of(told: Told) -> Outcome | None:
    """How a run's answer ended, as far as it is asked for."""
    asks = bytes(told.asks)
    return Outcome(finish=told.finish, asks=None if asks == b"null" else asks)
