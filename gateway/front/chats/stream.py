"""What streams of answers have in common: they open once, and end once, well or badly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import TYPE_CHECKING

from gateway.errors import InvalidAgentResponse
from gateway.front.dialect import text_runs
from gateway.front.event_stream import HEADERS, KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.errors import GatewayError
    from gateway.exchange import Exchange
    from gateway.front.dialect import Headers
    from protocol import Payload


class AnswerStream(ABC):
    """A `StreamEncoder`, but for what its dialect makes of what the agent says.

    An answer that cannot be told in the dialect is known by InvalidAgentResponse: then its exchange
    is ended, nothing more of it is told, and `end` tells of the failure instead.
    """

    __slots__ = ("_begun", "_exchange", "failure")

    headers: Headers = HEADERS

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._begun = False
        self.failure: GatewayError | None = None
        """Why this encoder has ended the exchange: nothing that comes afterwards is sent."""

    def chunks(self, words: list[bytes]) -> bytes:
        """What tells of words of the answer."""
        if self.failure is not None:
            return b""
        # Joined with nothing else, an event that is as long as a line is not copied.
        opening = self._opening()
        parts = [opening] if opening else []
        try:
            for texts, word in text_runs(words):
                parts.append(self._text(texts) if word is None else self._event(word))
        except InvalidAgentResponse as error:
            self._fail(error)
        return b"".join(parts)

    def keep_alive(self) -> bytes:
        """A comment, which clients skip."""
        return self._opening() + KEEP_ALIVE

    def end(self, result: Payload | None) -> bytes:
        """What was not told yet, and the end of the answer."""
        if self.failure is not None:
            return self.error(self.failure)
        parts = [self._opening()]
        try:
            parts.extend(self._ending(result))
        except InvalidAgentResponse as error:
            self.failure = copy(error)
            parts.append(self.error(error))
        return b"".join(parts)

    @abstractmethod
    def error(self, error: GatewayError) -> bytes:
        """See `StreamEncoder.error`."""

    @abstractmethod
    def _begin(self) -> bytes:
        """What the stream opens with."""

    @abstractmethod
    def _text(self, texts: Sequence[bytes]) -> bytes:
        """What tells of consecutive chunks."""

    @abstractmethod
    def _event(self, word: bytes) -> bytes:
        """What tells of an event of the agent's. Raises InvalidAgentResponse."""

    @abstractmethod
    def _ending(self, result: Payload | None) -> Iterator[bytes]:
        """The last parts of an answer that ended well, `result` among them if it came as one.
        Raises InvalidAgentResponse."""

    def _fail(self, error: GatewayError) -> None:
        """End the exchange. It may have ended well meanwhile: then `end` tells of the failure."""
        self.failure = copy(error)
        self._exchange.fail(self.failure)

    def _opening(self) -> bytes:
        """What the stream opens with, unless it has."""
        if self._begun:
            return b""
        self._begun = True
        return self._begin()
