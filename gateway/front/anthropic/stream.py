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

from gateway.front.anthropic.errors import REQUEST_ID, error_members
from gateway.front.anthropic.message import check_arguments, message_members
from gateway.front.anthropic.outcomes import NO_USAGE, STOP_REASONS, usage_of
from gateway.front.chats.answer import Content, ContentStream
from gateway.front.chats.parts import in_fewer_events
from gateway.front.event_stream import HEADERS
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.chats.calls import FunctionCall
    from protocol import Outcome
    from protocol.events import Status

_encode = msgspec.json.encode

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""What clients skip."""

_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":'
)


class BlockEvents(Content):
    """A `Content` that makes events of its blocks."""

    __slots__ = ("_index", "_kind", "_shows_thinking")

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._index = 0
        """The place of the block that is open, or of the next one."""
        self._kind = b""
        """Of the block that is open: text or thinking."""

    def text(self, texts: Sequence[bytes]) -> bytes:
        return self._say(b"text", texts)

    def reasoning(self, text: bytes) -> bytes:
        return self._say(b"thinking", [text]) if self._shows_thinking else b""

    def status(self, status: Status) -> bytes:
        """A ping that says what the agent is doing, to people who look at the stream."""
        return event_of("ping", status=status.text)

    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        check_arguments(calls)
        return self.close() + b"".join([self._call(call) for call in calls])

    def close(self) -> bytes:
        """The end of the block that is open, if there is one."""
        if not self._kind:
            return b""
        signed = b""
        if self._kind == b"thinking":
            # Clients keep thoughts for the next request only with a signature.
            delta = {"type": "signature_delta", "signature": ""}
            signed = event_of("content_block_delta", index=self._index, delta=delta)
        self._kind = b""
        return signed + self._stop()

    def _call(self, call: FunctionCall) -> bytes:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return (
            event_of("content_block_start", index=self._index, content_block=block)
            + event_of("content_block_delta", index=self._index, delta=delta)
            + self._stop()
        )

    def _stop(self) -> bytes:
        self._index += 1
        return event_of("content_block_stop", index=self._index - 1)

    def _say(self, kind: bytes, texts: Sequence[bytes]) -> bytes:
        opening = b""
        if self._kind != kind:
            opening = self.close()
            self._kind = kind
            name = kind.decode()
            block = {"type": name, name: "", **({"signature": ""} if name == "thinking" else {})}
            opening += event_of("content_block_start", index=self._index, content_block=block)
        before = _DELTA % (self._index, kind, kind)
        texts = in_fewer_events(texts)
        said = (b"}}\n\n" + before).join(texts)
        if not said.isascii():  # some clients end lines at U+2028
            said = (b"}}\n\n" + before).join(map(on_one_line, texts))
        return b"%b%b%b}}\n\n" % (opening, before, said)


class MessageStream(ContentStream):
    """The `StreamEncoder` of one message."""

    __slots__ = ("_events", "_model", "headers")

    def __init__(self, request: MessagesRequest, exchange: Exchange) -> None:
        self._model = request.model
        self._events = BlockEvents(shows_thinking=request.shows_thinking)
        self.headers = (*HEADERS, (REQUEST_ID, exchange.call.request_id.encode()))
        super().__init__(exchange, self._events, request.tools)

    def keep_alive(self) -> bytes:
        return self._opening() + PING

    def error(self, error: GatewayError) -> bytes:
        """An error, which the clients raise, and no `message_stop`."""
        exchange = self._exchange
        members = error_members(error, exchange.call.request_id, exchange.output_begun)
        return event_of("error", **members)

    def _begin(self) -> bytes:
        message = message_members(
            self._model, content=[], stop_reason=None, stop_sequence=None, usage=NO_USAGE
        )
        return event_of("message_start", message=message)

    def _finished(self, finish: str, outcome: Outcome | None) -> bytes:
        """The stop reason and the usage."""
        delta = {"stop_reason": STOP_REASONS[finish], "stop_sequence": None}
        return (
            self._events.close()
            + event_of("message_delta", delta=delta, usage=usage_of(outcome))
            + event_of("message_stop")
        )


def event_of(kind: str, **members: Any) -> bytes:
    """One event, whose data has its name as its type."""
    data = on_one_line(_encode({"type": kind, **members}))
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
