"""The tool calls of one run, as its client sees them.

Theory of operation
-------------------

Every call is shown as it is made, the agent's own as well as those that may become the client's to
make. Which are the client's is known at the end only, and said there (`pending`).

A call ends with all its arguments at once, with its result, or with the run. What an agent says of
a call afterwards is dropped, and so are a second result, and a result of a call that nobody has
told. The client's history must stay one that a model can be given: a call of the agent's own
without a result would be taken by the client for one that is left to it to make. So it gets an
empty result at the end of the run (`settle`), unless a question waits for it.

**Ids.** A client knows a call by its id for as long as a conversation lasts; many agents count
theirs anew in each run. An id that is in the request's messages already is not used again: the call
gets another one (`_Shown.id`). But after a question, an agent may go on with a call of the run
before, with or without telling it again; then the result belongs to the old one, which was shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from gateway.front.ag_ui.forms import event, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gateway.front.ag_ui.run_input import RunRequest
    from gateway.front.chats.calls import FunctionCall
    from protocol.events import ToolCall, ToolResult

_decode_text = msgspec.json.Decoder(str).decode

NO_ARGUMENTS = "{}"
"""What the arguments of a call are whose agent told none: clients parse them."""


class _Shown:
    """A call that was told in this run, or, if it is `old`, in an earlier one."""

    __slots__ = ("answered", "handed", "has_arguments", "id", "name", "old", "open")

    def __init__(self, call: str, name: str, *, old: bool = False, handed: bool = False) -> None:
        self.id = call
        """What the client knows it by."""
        self.name = name
        self.old = old
        self.handed = handed
        """Whether it is the client's to make, however the answer ends."""
        self.open = not old
        self.has_arguments = False
        self.answered = False


class ShownCalls:
    """See the module's docstring. Of at most `protocol.events.MAX_CALLS` calls and those in the
    request's messages."""

    __slots__ = ("_calls", "_request")

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._calls: dict[str, _Shown] = {}
        """By the agent's id of each."""

    @property
    def ids(self) -> dict[str, str]:
        """The client's ids of all calls that an agent may speak of, by the agent's."""
        waiting = {call: call for call, name in self._request.calls.items() if name is not None}
        return waiting | {call: shown.id for call, shown in self._calls.items()}

    def add(self, told: ToolCall, carrier: Callable[[], tuple[bytes, str]]) -> bytes:
        """The events for a call, or for a piece of its arguments. `carrier` gives the events before
        a new call, and the id of the message that it belongs to."""
        shown = self._calls.get(told.call)
        start = b""
        if shown is None:
            shown = self._calls[told.call] = self._meet(told.call, told.name)
            if not shown.old:
                start = self._start(shown, carrier)
        if not shown.open:
            return start
        if isinstance(told.delta, str):
            return start + self._arguments(shown, told.delta)
        whole = bytes(told.arguments).decode() if isinstance(told.arguments, Raw) else NO_ARGUMENTS
        return start + self._arguments(shown, whole) + self._end(shown)

    def add_whole(self, call: FunctionCall, carrier: Callable[[], tuple[bytes, str]]) -> bytes:
        """The events for a call of the client's that came in one message with the answer; none, if
        it was shown before."""
        if (known := self._calls.get(call.id)) is not None:
            known.handed = True
            return b""
        shown_id = new_id("call") if call.id in self._request.calls else call.id
        shown = self._calls[call.id] = _Shown(shown_id, call.name, handed=True)
        start = self._start(shown, carrier)
        return start + self._arguments(shown, call.arguments) + self._end(shown)

    def answer(self, result: ToolResult) -> bytes:
        """The events for what a tool of the agent's own has returned."""
        shown = self._calls.get(result.call)
        if shown is None:
            name = self._request.calls.get(result.call)
            if name is None:
                return b""
            shown = self._calls[result.call] = _Shown(result.call, name, old=True)
        if shown.answered:
            return b""
        text = bytes(result.content)
        content = _decode_text(text) if text[:1] == b'"' else text.decode()
        return self._end(shown) + self._result(shown, content, is_error=result.is_error)

    def close(self) -> bytes:
        """The ends of all calls that are open."""
        return b"".join([self._end(shown) for shown in self._calls.values()])

    def pending(self, finish: str | None) -> list[str]:
        """The client's ids of the calls that it is to make, once the answer has ended so."""
        names = self._request.tools if finish == "tool_calls" else frozenset()
        return [each.id for each in self._unanswered() if each.handed or each.name in names]

    def settle(self, waiting: Collection[str]) -> bytes:
        """Empty results for the calls of this run that have none, but for those with these ids."""
        left = [each for each in self._unanswered() if not each.old and each.id not in waiting]
        return b"".join([self._result(shown, "", is_error=False) for shown in left])

    def _unanswered(self) -> Iterator[_Shown]:
        return (each for each in self._calls.values() if not each.answered)

    def _meet(self, call: str, name: str) -> _Shown:
        """A call that is told for the first time in this run."""
        known = self._request.calls
        if call not in known:
            return _Shown(call, name)
        if self._request.resumes and known[call] == name:
            return _Shown(call, name, old=True)
        return _Shown(new_id("call"), name)

    def _start(self, shown: _Shown, carrier: Callable[[], tuple[bytes, str]]) -> bytes:
        before, parent = carrier()
        return before + event(
            "TOOL_CALL_START",
            toolCallId=shown.id,
            toolCallName=shown.name,
            parentMessageId=parent,
        )

    @staticmethod
    def _arguments(shown: _Shown, piece: str) -> bytes:
        if not piece:
            return b""
        shown.has_arguments = True
        return event("TOOL_CALL_ARGS", toolCallId=shown.id, delta=piece)

    def _end(self, shown: _Shown) -> bytes:
        if not shown.open:
            return b""
        missing = b"" if shown.has_arguments else self._arguments(shown, NO_ARGUMENTS)
        shown.open = False
        return missing + event("TOOL_CALL_END", toolCallId=shown.id)

    @staticmethod
    def _result(shown: _Shown, content: str, *, is_error: bool) -> bytes:
        shown.answered = True
        more = {"metadata": {"is_error": True}} if is_error else {}
        return event(
            "TOOL_CALL_RESULT",
            messageId=new_id("tool"),
            toolCallId=shown.id,
            content=content,
            role="tool",
            **more,
        )
