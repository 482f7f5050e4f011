"""The stream of one run: from the words of an answer to AG-UI's events.

A stream begins with RUN_STARTED. All that is open is closed before RUN_FINISHED, whose `outcome`
says how the run ended; a run that failed ends with RUN_ERROR instead, and whatever is open then
stays so. A run that its client has cancelled ends with the outcome `cancelled`, which only who
reads it from elsewhere gets to see.

Clients of a version before 1.0, which say none, refuse a run for an outcome that they do not know,
and for its members. For them there is neither the outcome `cancelled`, which is an error then, nor
`pendingToolCallIds`: such a client finds the calls without a result by itself, and for that they
are the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import Cancelled
from gateway.front.ag_ui import forms
from gateway.front.ag_ui.errors import error_members
from gateway.front.ag_ui.forms import event
from gateway.front.ag_ui.shown_calls import ShownCalls
from gateway.front.ag_ui.spoken import Spoken
from gateway.front.chats.message import read_message
from gateway.front.chats.stream import AnswerStream
from protocol.events import (
    Custom,
    File,
    Reasoning,
    State,
    Status,
    ToolCall,
    ToolResult,
    UsageSoFar,
    read_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.ag_ui.run_input import RunRequest
    from protocol import Outcome, Payload

_encode = msgspec.json.encode


class RunStream(AnswerStream):
    """The `StreamEncoder` of one run."""

    __slots__ = ("_calls", "_request", "_spoken", "_step", "_usage")

    def __init__(self, request: RunRequest, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._request = request
        self._spoken = Spoken()
        self._calls = ShownCalls(request)
        self._step = ""
        """The step that the agent is at, by its name; empty before the first."""
        self._usage: bytes | None = None
        """The last `usage` event."""

    def error(self, error: GatewayError) -> bytes:
        """RUN_ERROR; of a run that was cancelled, that outcome."""
        if isinstance(error, Cancelled) and self._request.versioned:
            closing = self._opening() + self._closing()
            return closing + self._finished({"type": "cancelled"}, {})
        exchange = self._exchange
        more: dict[str, Any] = {}
        if usage := forms.usage_so_far(self._usage):
            more["usage"] = usage
        members = error_members(error, exchange.call.request_id, exchange.output_begun)
        return self._opening() + event("RUN_ERROR", **members, **more)

    def _begin(self) -> bytes:
        request = self._request
        more = {} if request.parent is None else {"parentRunId": request.parent}
        return event(
            "RUN_STARTED",
            threadId=request.thread,
            runId=request.run,
            protocolVersion=forms.PROTOCOL_VERSION,
            **more,
        )

    def _text(self, texts: Sequence[bytes]) -> bytes:
        return self._spoken.text(texts)

    def _event(self, word: bytes) -> bytes:
        told: Any = read_event(word)
        events = b""
        match told:
            case Reasoning(text=text):
                events = self._spoken.reasoning(_encode(text))
            case ToolCall():
                events = self._calls.add(told, self._carrier)
            case ToolResult():
                events = self._calls.answer(told)
                if events:
                    self._spoken.end_turn()
            case State():
                events = forms.state_event(told)
            case Status(text=text, progress=progress, total=total):
                events = self._at(text)
                if progress is not None or total is not None:
                    events += forms.custom("status", word)
            case File():
                events = forms.custom("file", word)
            case UsageSoFar():
                self._usage = word
            case Custom(type=name):
                events = forms.custom(name, word)
        return events

    def _carrier(self) -> tuple[bytes, str]:
        closing = self._spoken.close()
        return closing, self._spoken.carrier()

    def _at(self, step: str) -> bytes:
        """The end of the step before, and the begin of one with this name, unless it is the same.
        An empty name is that of none."""
        if step == self._step:
            return b""
        before, self._step = self._step, step
        ended = event("STEP_FINISHED", stepName=before) if before else b""
        return ended + (event("STEP_STARTED", stepName=step) if step else b"")

    def _ending(self, result: Payload | None) -> Iterator[bytes]:
        """What was not told yet, the ends of all that is open, and RUN_FINISHED."""
        if result is not None:
            yield self._message(result)
        yield self._closing()
        yield self._outcome(self._exchange.outcome)

    def _message(self, result: Payload) -> bytes:
        """The events for an answer that came as one message. Raises InvalidAgentResponse."""
        message = read_message(result, self._request.tools)
        parts = []
        if message.reasoning is not None:
            parts.append(self._spoken.reasoning(message.reasoning))
        parts.append(self._spoken.text([message.text]))
        outcome = self._exchange.outcome
        if outcome is None or outcome.finish in {None, "tool_calls"}:
            parts += [self._calls.add_whole(call, self._carrier) for call in message.calls]
        return b"".join(parts)

    def _closing(self) -> bytes:
        """The ends of all that is open."""
        return self._spoken.close() + self._calls.close() + self._at("")

    def _outcome(self, outcome: Outcome | None) -> bytes:
        """RUN_FINISHED, after results for the calls that nobody is to make."""
        finish = None if outcome is None else outcome.finish
        more: dict[str, Any] = {}
        if usage := forms.usage_of(outcome):
            more["usage"] = usage
        if outcome is not None and outcome.asks is not None:
            interrupts = forms.interrupts_of(outcome, self._calls.ids)
            waiting = {each["toolCallId"] for each in interrupts if "toolCallId" in each}
            settled = self._calls.settle(waiting)
            return settled + self._finished({"type": "interrupt", "interrupts": interrupts}, more)
        pending = self._calls.pending(finish)
        settled = self._calls.settle(pending)
        if finish in {"length", "refused"}:
            more["metadata"] = {"finish": finish}
        success: dict[str, Any] = {"type": "success"}
        if self._request.versioned:
            success["pendingToolCallIds"] = pending
        return settled + self._finished(success, more)

    def _finished(self, outcome: dict[str, Any], more: dict[str, Any]) -> bytes:
        request = self._request
        return event(
            "RUN_FINISHED", threadId=request.thread, runId=request.run, outcome=outcome, **more
        )
