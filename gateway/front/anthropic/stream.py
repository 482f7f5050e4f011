"""An answer to `POST /v1/messages` as a stream of events.

    message_start
        content_block_start   content_block_delta …   content_block_stop     for each block
    message_delta             the stop reason and the usage
    message_stop

    block     delta             at its end
    text      text_delta
    thinking  thinking_delta    signature_delta
    tool_use  input_json_delta

A `ping` may stand anywhere after the first event. An `error` is the last event of a stream that
failed; it has no `message_stop` then. Event types and members are those of Anthropic's "Streaming
messages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import GatewayError, InvalidAgentResponse
from gateway.front.anthropic.answer import Answer, message_members
from gateway.front.anthropic.errors import REQUEST_ID, error_members
from gateway.front.anthropic.message import new_id
from gateway.front.anthropic.outcomes import NO_USAGE, usage_of
from gateway.front.chats.parts import in_fewer_events
from gateway.front.event_stream import HEADERS
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.exchange import Exchange
    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.dialect import Headers
    from protocol import Payload
    from protocol.events import Status

_encode = msgspec.json.encode

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""What clients skip."""

_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":'
)


class BlockEvents:
    """A `Content` that makes events of its blocks."""

    __slots__ = ("_index", "_kind", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._index = 0
        """The place of the block that is open, or of the next one."""
        self._kind = b""
        """Of the block that is open: text or thinking."""

    def take(self) -> bytes:
        """The events that were made since the last time."""
        events = b"".join(self._parts)
        self._parts.clear()
        return events

    def event(self, kind: str, **members: Any) -> None:
        self._parts.append(event_of(kind, **members))

    def text(self, texts: Sequence[bytes]) -> None:
        self._say(b"text", texts)

    def thinking(self, text: bytes) -> None:
        self._say(b"thinking", [text])

    def status(self, status: Status) -> None:
        """A ping that says what the agent is doing, to people who look at the stream."""
        self.event("ping", status=status.text)

    def call(self, call: FunctionCall) -> None:
        self.close()
        index = self._index
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        self.event("content_block_start", index=index, content_block=block)
        self.event("content_block_delta", index=index, delta=delta)
        self._stop()

    def close(self) -> None:
        """End the block that is open, if there is one."""
        if not self._kind:
            return
        if self._kind == b"thinking":
            # Clients keep thoughts for the next request only with a signature.
            delta = {"type": "signature_delta", "signature": ""}
            self.event("content_block_delta", index=self._index, delta=delta)
        self._kind = b""
        self._stop()

    def _stop(self) -> None:
        self.event("content_block_stop", index=self._index)
        self._index += 1

    def _say(self, kind: bytes, texts: Sequence[bytes]) -> None:
        if self._kind != kind:
            self.close()
            self._kind = kind
            name = kind.decode()
            block = {"type": name, name: "", **({"signature": ""} if name == "thinking" else {})}
            self.event("content_block_start", index=self._index, content_block=block)
        before = _DELTA % (self._index, kind, kind)
        texts = in_fewer_events(texts)
        events = before + (b"}}\n\n" + before).join(texts) + b"}}\n\n"
        if not events.isascii():  # some clients end lines at U+2028
            events = before + (b"}}\n\n" + before).join(map(on_one_line, texts)) + b"}}\n\n"
        self._parts.append(events)


class MessageStream:
    """The `StreamEncoder` of one message."""

    __slots__ = ("_answer", "_begun", "_events", "_exchange", "_request", "failure")

    def __init__(self, request: MessagesRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self._events = BlockEvents()
        self._answer = Answer(request, self._events)
        self._begun = False
        self.failure: GatewayError | None = None
        """Why this encoder has ended the exchange: nothing that comes afterwards is sent."""

    @property
    def headers(self) -> Headers:
        return (*HEADERS, (REQUEST_ID, self._exchange.call.request_id.encode()))

    def chunks(self, words: list[bytes]) -> bytes:
        if self.failure is not None:
            return b""
        self._begin()
        try:
            self._answer.take(words)
        except InvalidAgentResponse as error:
            # It may have ended well meanwhile.
            self.failure = error
            self._exchange.fail(error)
        return self._events.take()

    def keep_alive(self) -> bytes:
        self._begin()
        return self._events.take() + PING

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, the stop reason and the usage."""
        if self.failure is not None:
            return self.error(self.failure)
        self._begin()
        outcome = self._exchange.outcome
        try:
            reason = self._answer.end(result, outcome)
        except InvalidAgentResponse as error:
            self.failure = error
            return self._events.take() + self.error(error)
        self._events.close()
        delta = {"stop_reason": reason, "stop_sequence": None}
        self._events.event("message_delta", delta=delta, usage=usage_of(outcome))
        self._events.event("message_stop")
        return self._events.take()

    def error(self, error: GatewayError) -> bytes:
        """An error, which the clients raise, and no `message_stop`."""
        exchange = self._exchange
        members = error_members(error, exchange.call.request_id, exchange.output_begun)
        return event_of("error", **members)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        message = message_members(
            new_id(),
            self._request.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=NO_USAGE,
        )
        self._events.event("message_start", message=message)


def event_of(kind: str, **members: Any) -> bytes:
    """One event, whose data has its name as its type."""
    data = on_one_line(_encode({"type": kind, **members}))
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
