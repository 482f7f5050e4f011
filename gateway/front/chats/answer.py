"""The reading of an answer: from what an agent says to what its client is told, whole or streamed.

Theory of operation
-------------------

An agent answers by words (chunks of text, with events among them), or by events and one message
after them. `Answer` reads either. A *content* is what a dialect makes of the parts: `Answer` calls
it in the order in which things were said, and every method returns the bytes that tell of the part
at once. One that keeps its parts until the end returns nothing. As one reading serves both, whoever
reads a stream learns what is told of the same answer whole.

Nothing that was said is left out for what was said before it: a message's reasoning stands after
that of the events. Calls of the client's tools come last, since whose they are is known at the end
(`calls`), and so do questions, as a paragraph of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import msgspec

from gateway.front.chats import endings
from gateway.front.chats.calls import Calls
from gateway.front.chats.message import EMPTY, read_message
from gateway.front.chats.parts import link_to, status_comment
from gateway.front.chats.stream import AnswerStream
from gateway.front.dialect import text_runs
from protocol.events import File, Reasoning, Status, ToolCall, ToolResult, read_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.exchange import Exchange
    from gateway.front.chats.calls import FunctionCall
    from protocol import Outcome, Payload

_encode = msgspec.json.encode


class Content(ABC):
    """What takes the parts of an answer. See the module's docstring. Methods may raise
    InvalidAgentResponse for what cannot be told."""

    __slots__ = ()

    @abstractmethod
    def text(self, texts: Sequence[bytes]) -> bytes:
        """Text for the user, JSON strings; at least one."""

    @abstractmethod
    def reasoning(self, text: bytes) -> bytes:
        """A piece of the agent's thoughts, a JSON string."""

    @abstractmethod
    def calls(self, calls: Sequence[FunctionCall]) -> bytes:
        """The calls that the client is to make; at least one."""

    def nothing(self) -> bytes:
        """The end of an answer that had no text and no call: it is an empty text."""
        return self.text([EMPTY])

    def file(self, file: File) -> bytes | None:
        """A file, if there is a form for it; None: it is a link in the text."""
        del file
        return None

    def status(self, status: Status) -> bytes:
        """What the agent is doing: a comment, unless there is a form for it."""
        return status_comment(status)


class Answer:
    """The reading of one answer. `names` are those of the client's tools."""

    __slots__ = ("_calls", "_content", "_said", "finish")

    def __init__(self, content: Content, names: frozenset[str]) -> None:
        self._content = content
        self._calls = Calls(names)
        self._said = False
        """Whether there was any text but empty ones."""
        self.finish = "stop"
        """How the answer ended, by the wire's word, once its end was read."""

    def take(self, words: Sequence[bytes]) -> None:
        """Read words for a content that keeps its parts. Raises InvalidAgentResponse."""
        for texts, word in text_runs(words):
            if word is None:
                self.text(texts)
            else:
                self.event(word)

    def text(self, texts: Sequence[bytes]) -> bytes:
        """Consecutive chunks; at least one."""
        if not self._said:
            self._said = texts.count(EMPTY) < len(texts)
        return self._content.text(texts)

    def event(self, word: bytes) -> bytes:
        """An event. Raises InvalidAgentResponse."""
        match read_event(word):
            case Reasoning(text=text):
                return self._content.reasoning(_encode(text))
            case Status() as event:
                return self._content.status(event)
            case File() as event:
                told = self._content.file(event)
                return self.text([_encode(link_to(event))]) if told is None else told
            case ToolCall() as event:
                self._calls.add(event)
            case ToolResult(call=call):
                self._calls.answered(call)
        return b""

    def end(self, result: Payload | None, outcome: Outcome | None) -> Iterator[bytes]:
        """The end of the answer, after its one result if it was one. Raises
        InvalidAgentResponse."""
        message = None
        if result is not None:
            message = read_message(result, self._calls.names)
            if message.reasoning is not None:
                yield self._content.reasoning(message.reasoning)
            if message.text != EMPTY:
                yield self.text([message.text])
        if questions := endings.questions_of(outcome):
            yield self.text([_encode(f"\n\n{questions}" if self._said else questions)])
        calls = endings.calls_of(outcome, self._calls, message)
        self.finish = endings.finish_of(outcome, calls)
        if calls:
            yield self._content.calls(calls)
        elif not self._said:
            yield self._content.nothing()


class ContentStream(AnswerStream):
    """An `AnswerStream` of an answer that a content makes the parts of."""

    __slots__ = ("_answer",)

    def __init__(self, exchange: Exchange, content: Content, names: frozenset[str]) -> None:
        super().__init__(exchange)
        self._answer = Answer(content, names)

    @abstractmethod
    def _finished(self, finish: str, outcome: Outcome | None) -> bytes:
        """What tells how the answer ended. Raises InvalidAgentResponse."""

    def _text(self, texts: Sequence[bytes]) -> bytes:
        return self._answer.text(texts)

    def _event(self, word: bytes) -> bytes:
        return self._answer.event(word)

    def _ending(self, result: Payload | None) -> Iterator[bytes]:
        outcome = self._exchange.outcome
        yield from self._answer.end(result, outcome)
        yield self._finished(self._answer.finish, outcome)
