"""The tool calls of one answer, as the page sees them.

Theory of operation
-------------------

A call of a tool that the page does not have is the agent's own: it is shown as it is made, as a
dynamic tool that the provider executes, for which `useChat` calls nothing. A call of a tool that
the page has may be either's. It is held back until its result shows that it was the agent's own, or
the end of the answer says that it is the page's (`pending`): `onToolCall` is called at once for
whatever is shown to be the page's.

A call ends with all its arguments at once, with its result, or with the answer. What is said of it
afterwards is dropped, and so are a second result, and a result of a call that nobody has told.

**Ids.** A page adds an output to whichever call of its message has that id, and an answer that goes
on after a tool or a question is added to the same message, while many agents count their calls anew
in each answer. So an id that the message has already is not used again. But after an approval, an
agent goes on with that very call, with or without telling it again (`ChatRequest.approved`).
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidAgentResponse
from gateway.front.chats.calls import MAX_HELD, new_call_id
from gateway.front.ui.forms import part

if TYPE_CHECKING:
    from gateway.front.chats.calls import FunctionCall
    from gateway.front.ui.request import ChatRequest
    from protocol.events import ToolCall, ToolResult

_decode_json = msgspec.json.Decoder(Raw).decode
_decode_text = msgspec.json.Decoder(str).decode

_OWN = {"dynamic": True, "providerExecuted": True}


class _Call:
    __slots__ = ("answered", "arguments", "held", "id", "name", "shown")

    def __init__(self, shown_id: str, name: str, *, held: bool = False) -> None:
        self.id = shown_id
        """What the page knows it by."""
        self.name = name
        self.held = held
        """Whether it may be the page's to make."""
        self.arguments: StringIO | None = StringIO()
        """None once they were told."""
        self.shown = False
        """Whether its beginning was told."""
        self.answered = False


class ShownCalls:
    """See the module's docstring. Of at most `protocol.events.MAX_CALLS` calls and those that were
    approved."""

    __slots__ = ("_calls", "_kept", "_request")

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._calls: dict[str, _Call] = {}
        """By the agent's id of each."""
        self._kept = 0
        """Characters of arguments that are kept."""

    def add(self, told: ToolCall) -> bytes:
        """The parts for a call, or for a piece of its arguments. Raises InvalidAgentResponse."""
        call = self._calls.get(told.call)
        if call is None:
            call = self._calls[told.call] = self._meet(told.call, told.name)
        if call.arguments is None:
            return b""
        if isinstance(told.delta, str):
            return self._add_piece(call, told.delta)
        whole = bytes(told.arguments).decode() if isinstance(told.arguments, Raw) else "{}"
        shown = self._add_piece(call, whole, streams=False)
        return shown if call.held else shown + self._finish(call)

    def answer(self, result: ToolResult) -> bytes:
        """The parts for what a tool of the agent's own has returned."""
        call = self._calls.get(result.call)
        if call is None:
            if result.call not in self._request.approved:
                return b""
            call = self._calls[result.call] = self._approved(result.call)
        if call.answered:
            return b""
        call.answered, call.held = True, False
        members: dict[str, Any] = {"toolCallId": call.id, **_OWN}
        if result.is_error:
            text = bytes(result.content)
            said = _decode_text(text) if text[:1] == b'"' else text.decode()
            return self._finish(call) + part("tool-output-error", errorText=said, **members)
        return self._finish(call) + part("tool-output-available", output=result.content, **members)

    def pending(self, finish: str | None, more: list[FunctionCall]) -> list[bytes]:
        """The parts for the calls that the page is to make, once the answer has ended so: those
        that were held, and `more` in its message."""
        handed = more if finish in {None, "tool_calls"} else []
        for each in handed:
            if each.id not in self._calls:
                call = self._calls[each.id] = _Call(self._fresh(each.id), each.name, held=True)
                call.arguments = StringIO(each.arguments)
        ids = {each.id for each in handed}
        found = []
        for call_id, call in self._calls.items():
            if call.held and (finish == "tool_calls" or call_id in ids):
                found.append(part("tool-input-available", **self._members(call)))
                call.arguments, call.held = None, False
        return found

    def close(self) -> bytes:
        """The ends of all calls that were begun: what was held was the agent's own."""
        return b"".join([self._finish(call) for call in self._calls.values()])

    def waiting(self, call_id: object) -> str | None:
        """The page's id of a call of the agent's own that has no result yet, by the agent's."""
        call = self._calls.get(call_id) if isinstance(call_id, str) else None
        return None if call is None or call.answered else call.id

    def _meet(self, call_id: str, name: str) -> _Call:
        if call_id in self._request.approved:
            return self._approved(call_id)
        return _Call(self._fresh(call_id), name, held=name in self._request.tools.names)

    def _approved(self, call_id: str) -> _Call:
        """A call of the answer before, which the page has shown."""
        call = _Call(call_id, "")
        call.arguments = None
        return call

    def _fresh(self, call_id: str) -> str:
        return new_call_id() if call_id in self._request.calls else call_id

    def _add_piece(self, call: _Call, piece: str, *, streams: bool = True) -> bytes:
        assert call.arguments is not None
        self._kept += len(piece)
        if self._kept > MAX_HELD:
            raise InvalidAgentResponse(
                f"the arguments of the answer's tool calls are more than {MAX_HELD} characters "
                "together before they are whole, the most that is kept for the client"
            )
        call.arguments.write(piece)
        if call.held or not streams:
            return b""
        start = (
            b""
            if call.shown
            else part("tool-input-start", toolCallId=call.id, toolName=call.name, **_OWN)
        )
        call.shown = True
        return start + part("tool-input-delta", toolCallId=call.id, inputTextDelta=piece)

    def _finish(self, call: _Call) -> bytes:
        """The part that says the arguments of a call of the agent's own, unless they were told."""
        if call.arguments is None:
            return b""
        members = self._members(call)
        call.arguments, call.held = None, False
        return part("tool-input-available", **members, **_OWN)

    def _members(self, call: _Call) -> dict[str, Any]:
        assert call.arguments is not None
        text = call.arguments.getvalue()
        self._kept -= len(text)
        return {"toolCallId": call.id, "toolName": call.name, "input": _input_of(text)}


def _input_of(text: str) -> Any:
    """The arguments as a value; the text itself, if it is no JSON."""
    if not text:
        return {}
    try:
        return _decode_json(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
