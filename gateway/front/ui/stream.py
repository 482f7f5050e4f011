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

from gateway.errors import Cancelled, GatewayError, InvalidAgentResponse
from gateway.front.chats import endings
from gateway.front.chats.message import read_message
from gateway.front.dialect import text_runs
from gateway.front.event_stream import DONE, KEEP_ALIVE
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
    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.ui.request import ChatRequest
    from protocol import Payload
    from protocol.events import AgentEvent

_encode = msgspec.json.encode


class UIStream:
    """The `StreamEncoder` of one answer."""

    __slots__ = ("_begun", "_calls", "_exchange", "_request", "_spoken", "failure")

    headers = forms.HEADERS

    def __init__(self, request: ChatRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self._begun = False
        self._spoken = Spoken()
        self._calls = ShownCalls(request)
        self.failure: GatewayError | None = None
        """Why this encoder has ended the exchange: nothing that comes afterwards is sent."""

    def chunks(self, words: list[bytes]) -> bytes:
        """The parts for words of the answer."""
        if self.failure is not None:
            return b""
        parts = [self._opening()]
        try:
            for texts, word in text_runs(words):
                parts.append(self._spoken.text(texts) if word is None else self._event(word))
        except InvalidAgentResponse as error:
            # It may have ended well meanwhile: then `end` tells of the failure.
            self.failure = error
            self._exchange.fail(error)
        return b"".join(parts)

    def keep_alive(self) -> bytes:
        """A comment, which clients skip."""
        return self._opening() + KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, the ends of all that is open, and `[DONE]`."""
        if self.failure is not None:
            return self.error(self.failure)
        parts = [self._opening()]
        calls: list[FunctionCall] = []
        if result is not None:
            try:
                message = read_message(result, self._request.tools.names)
            except InvalidAgentResponse as error:
                self.failure = error
                return parts[0] + self.error(error)
            if message.reasoning is not None:
                parts.append(self._spoken.reasoning(message.reasoning))
            parts.append(self._spoken.text([message.text]))
            calls = message.calls
        parts.append(self._spoken.close())
        parts.append(self._ending(calls))
        return b"".join(parts)

    def error(self, error: GatewayError) -> bytes:
        """The end of an answer that failed: nothing that is open is closed."""
        if isinstance(error, Cancelled):
            return part("abort", reason=error.message)
        return part("error", errorText=error.message)

    def _opening(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
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

    def _ending(self, calls: list[FunctionCall]) -> bytes:
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
