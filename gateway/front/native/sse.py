"""The native dialect's streams: Server-Sent Events (WHATWG HTML, "Server-sent events").

Chunks are JSON strings as the worker wrote them: they hold no newline, so each is one `data:` line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.dialect import text_runs
from gateway.front.event_stream import DONE, HEADERS, KEEP_ALIVE
from gateway.front.native.errors import error_body
from gateway.front.native.results import as_chunk, outcome_members
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from protocol import Payload

_BETWEEN_CHUNKS = b'}\n\ndata: {"chunk":'


class EventStream:
    """The `StreamEncoder` of one native stream. No event depends on the ones before it."""

    __slots__ = ("_exchange",)

    headers = HEADERS
    failure = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @staticmethod
    def chunks(chunks: Sequence[bytes]) -> bytes:
        """One event for each chunk, joined once, to be written at once."""
        text = _BETWEEN_CHUNKS.join(chunks)
        if not text.isascii():  # some clients end lines at U+2028, as `str.splitlines` does
            text = _BETWEEN_CHUNKS.join(map(on_one_line, chunks))
        return b'data: {"chunk":%b}\n\n' % text

    @staticmethod
    def keep_alive() -> bytes:
        """A comment, which clients skip."""
        return KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        """`[DONE]`, after the one event of a result."""
        if result is None:
            return DONE
        return self.chunks([as_chunk(self._exchange.call.method, result)]) + DONE

    def error(self, error: GatewayError) -> bytes:
        """An `error` event, with the body of an error response as its data, and no `[DONE]`."""
        body = error_body(error, self._exchange.call.request_id, self._exchange.output_begun)
        return b"event: error\ndata: " + on_one_line(body) + b"\n\n"


class AgentEventStream(EventStream):
    """A native stream whose client asked for events: each is an `agent` event, in its place.

    How the answer ended is the last of them, of the type `outcome`, which no worker can send.
    """

    __slots__ = ()

    def chunks(self, words: Sequence[bytes]) -> bytes:  # type: ignore[override]
        """Each word as one event."""
        return b"".join(
            [
                EventStream.chunks(texts) if event is None else _agent_event(event)
                for texts, event in text_runs(words)
            ]
        )

    def end(self, result: Payload | None) -> bytes:
        """The same as `EventStream.end`, with the outcome before `[DONE]`."""
        last = (
            b"" if result is None else self.chunks([as_chunk(self._exchange.call.method, result)])
        )
        outcome = outcome_members(self._exchange.outcome)
        told = _agent_event(b'{"type":"outcome",%b}' % outcome) if outcome else b""
        return last + told + DONE


def _agent_event(data: bytes) -> bytes:
    return b"event: agent\ndata: %b\n\n" % data
