"""From what an agent says to the content of a message, whether that is told whole or as a stream.

A *content* takes what is said, in its order: `message.Blocks` keeps it until the end, and
`stream.BlockEvents` makes events of it. Which calls are the client's is known at the end, and they
are the last blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Raw

from gateway.errors import InvalidAgentResponse
from gateway.front.anthropic.outcomes import STOP_REASONS
from gateway.front.chats import endings
from gateway.front.chats.calls import Calls
from gateway.front.chats.message import EMPTY, read_message
from gateway.front.chats.parts import link_to
from gateway.front.dialect import text_runs
from protocol.events import File, Reasoning, Status, ToolCall, ToolResult, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front.anthropic.request import MessagesRequest
    from gateway.front.chats.calls import FunctionCall
    from protocol import Outcome, Payload

_encode = msgspec.json.encode
_decode_input = msgspec.json.Decoder(dict[str, Raw]).decode


class Content(Protocol):
    """What takes the parts of an answer. Texts are JSON strings."""

    def text(self, texts: Sequence[bytes]) -> None:
        """Text for the user; at least one."""

    def thinking(self, text: bytes) -> None:
        """A piece of the agent's thoughts."""

    def status(self, status: Status) -> None:
        """What the agent is doing."""

    def call(self, call: FunctionCall) -> None:
        """A call of a tool of the client's, whose arguments are an object."""


class Answer:
    """The reading of one answer, which is told to a content."""

    __slots__ = ("_calls", "_content", "_request", "_texts", "_thoughts")

    def __init__(self, request: MessagesRequest, content: Content) -> None:
        self._request = request
        self._content = content
        self._calls = Calls(request.tools)
        self._texts = False
        self._thoughts = False

    def take(self, words: Sequence[bytes]) -> None:
        """Words of the answer, in their order. Raises InvalidAgentResponse."""
        for texts, event in text_runs(words):
            if event is None:
                self._say(texts)
            else:
                self._take_event(event)

    def end(self, result: Payload | None, outcome: Outcome | None) -> str:
        """The end of the answer, after its one result if it was one; returns the stop reason.
        Raises InvalidAgentResponse."""
        message = None
        if result is not None:
            message = read_message(result, self._request.tools)
            if message.reasoning is not None and not self._thoughts:
                self._think(message.reasoning)
            if message.text != EMPTY:
                self._say([message.text])
        calls = endings.calls_of(outcome, self._calls, message)
        for call in calls:
            _check_arguments(call)
        if questions := endings.questions_of(outcome):
            self._say([_encode(f"\n\n{questions}" if self._texts else questions)])
        for call in calls:
            self._content.call(call)
        if not calls and not self._texts:
            # Clients look for the text in the first block or in the last.
            self._say([EMPTY])
        return STOP_REASONS[endings.finish_of(outcome, calls)]

    def _say(self, texts: Sequence[bytes]) -> None:
        self._texts = True
        self._content.text(texts)

    def _think(self, text: bytes) -> None:
        self._thoughts = True
        if self._request.shows_thinking:
            self._content.thinking(text)

    def _take_event(self, word: bytes) -> None:
        match read_event(word):
            case Reasoning(text=text):
                self._think(_encode(text))
            case Status() as event:
                self._content.status(event)
            case File() as event:
                self._say([_encode(link_to(event))])
            case ToolCall() as event:
                self._calls.add(event)
            case ToolResult(call=call):
                self._calls.answered(call)


def _check_arguments(call: FunctionCall) -> None:
    """Raises InvalidAgentResponse for what is no JSON object: here the client is given the object
    itself."""
    try:
        _decode_input(call.arguments)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidAgentResponse(
            f"the arguments of the call {call.id!r} of the client's tool {call.name!r} are no JSON "
            f"object: {error}"
        ) from None


def message_members(message_id: str, model: str, **members: Any) -> dict[str, Any]:
    """A message, with what it has beside its id and the agent that says it."""
    return {"id": message_id, "type": "message", "role": "assistant", "model": model, **members}
