"""The stream of one answer: from an agent's words to the parts of a UI message.

A stream begins with `start` and `start-step`. All that is open is closed before `finish-step`,
`finish` and `[DONE]`. One that failed ends with an `error` part and none of these, which `useChat`
takes for an error; one that its client has cancelled, which only who reads a run from elsewhere
gets to see, with `abort`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import Cancelled
from gateway.front.chats import endings
from gateway.front.chats.message import read_message
from gateway.front.chats.stream import AnswerStream
from gateway.front.event_stream import DONE
from gateway.front.ui import forms
from gateway.front.ui.forms import part
from gateway.front.ui.shown_calls import ShownCalls
from gateway.front.ui.spoken import Spoken
from protocol.events import (
    Custom,
    File,
    Reasoning,
    State,
    Status,
    ToolCall,
    ToolResult,
    read_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.ui.request import ChatRequest
    from protocol import Payload
    from protocol.events import AgentEvent

_encode = msgspec.json.encode


class UIStream(AnswerStream):
    """The `StreamEncoder` of one answer."""

    __slots__ = ("_calls", "_request", "_spoken")

    headers = forms.HEADERS

    def __init__(self, request: ChatRequest, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._request = request
        self._spoken = Spoken()
        self._calls = ShownCalls(request)

    def error(self, error: GatewayError) -> bytes:
        """The end of an answer that failed: nothing that is open is closed."""
        if isinstance(error, Cancelled):
            return part("abort", reason=error.message)
        return part("error", errorText=error.message)

    def _begin(self) -> bytes:
        # An answer that goes on in the page's last message must have that one's id.
        message_id = self._request.message_id or f"msg_{secrets.token_hex(12)}"
        denied = [call for call, yes in self._request.approved.items() if not yes]
        return b"".join(
            [
                part("start", messageId=message_id),
                part("start-step"),
                *(part("tool-output-denied", toolCallId=call) for call in denied),
            ]
        )

    def _text(self, texts: Sequence[bytes]) -> bytes:
        return self._spoken.text(texts)

    def _ending(self, result: Payload | None) -> Iterator[bytes]:
        """What was not told yet, the ends of all that is open, and `[DONE]`."""
        calls: list[FunctionCall] = []
        if result is not None:
            message = read_message(result, self._request.tools.names)
            if message.reasoning is not None:
                yield self._spoken.reasoning(message.reasoning)
            yield self._spoken.text([message.text])
            calls = message.calls
        yield self._spoken.close()
        yield self._outcome(calls)

    def _outcome(self, calls: list[FunctionCall]) -> bytes:
        outcome = self._exchange.outcome
        told = outcome.finish if outcome is not None else None
        pending = self._calls.pending(told, calls)
        parts = [self._calls.close(), *pending]
        approvals = False
        for ask in forms.asks_of(outcome):
            call = self._calls.waiting(ask.call)
            if call is None or ask.schema is not msgspec.UNSET:
                parts.append(forms.ask_part(ask))
            else:
                approvals = True
                parts.append(
                    part(
                        "tool-approval-request",
                        approvalId=ask.id,
                        toolCallId=call,
                        reason=ask.message,
                    )
                )
        finish = "tool_calls" if pending or approvals else endings.finish_of(outcome, [])
        reason = forms.FINISH_REASONS[finish]
        parts.append(part("finish-step"))
        parts.append(part("finish", finishReason=reason, **forms.metadata_of(outcome)))
        parts.append(DONE)
        return b"".join(parts)

    def _event(self, word: bytes) -> bytes:
        match read_event(word):
            case Reasoning(text=text):
                return self._spoken.reasoning(_encode(text))
            case Status() as event:
                return forms.status_part(event)
            case Custom(type=kind):
                return forms.custom_part(kind, word)
            case event:
                parts = self._placed(event)
                return self._spoken.close() + parts if parts else b""

    def _placed(self, event: AgentEvent) -> bytes:
        """The parts for what has a place among what is said."""
        match event:
            case ToolCall():
                return self._calls.add(event)
            case ToolResult():
                return self._calls.answer(event)
            case File():
                return forms.file_part(event)
            case State():
                return forms.state_part(event)
        return b""
