"""What an agent says in a run: its text and its reasoning, as messages that are streamed.

At most one message is open. Text opens a text message, reasoning opens a span with one message, and
each ends the other. A tool call belongs to the message that the agent was saying, or to an
assistant's message without text (`carrier`); what is said after it is a new message, so that the
client's history is in the order in which things were said.

    text        TEXT_MESSAGE_START       TEXT_MESSAGE_CONTENT …       TEXT_MESSAGE_END
    reasoning   REASONING_START  REASONING_MESSAGE_START  REASONING_MESSAGE_CONTENT …
                REASONING_MESSAGE_END  REASONING_END
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.front.ag_ui.forms import event, new_id
from gateway.front.chats.message import EMPTY
from gateway.front.chats.parts import in_fewer_events
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


class Spoken:
    """See the module's docstring. Every method but `carrier` returns events, as they are sent."""

    __slots__ = ("_carrier", "_content", "_open", "_reasoning")

    def __init__(self) -> None:
        self._open = ""
        """The id of the open message; empty if there is none."""
        self._reasoning = False
        """Whether the open message is reasoning."""
        self._content = b""
        """What an event with a piece of the open message begins with."""
        self._carrier = ""
        """The assistant's message to which the next tool call belongs; empty if that is new."""

    def text(self, texts: Sequence[bytes]) -> bytes:
        """Pieces of text, JSON strings. Empty ones say nothing; clients before 1.0 refuse them."""
        if EMPTY in texts:
            texts = [text for text in texts if text != EMPTY]
        return self._say(texts, reasoning=False) if texts else b""

    def reasoning(self, text: bytes) -> bytes:
        """A piece of reasoning, a JSON string."""
        return self._say([text], reasoning=True) if text != EMPTY else b""

    def close(self) -> bytes:
        """The end of the open message, if there is one."""
        opened, self._open = self._open, ""
        if not opened:
            return b""
        if not self._reasoning:
            return event("TEXT_MESSAGE_END", messageId=opened)
        end = event("REASONING_MESSAGE_END", messageId=opened)
        return end + event("REASONING_END", messageId=opened)

    def carrier(self) -> str:
        """The id of the message that a tool call belongs to. Nothing is open then."""
        assert not self._open
        if not self._carrier:
            self._carrier = new_id("msg")
        return self._carrier

    def end_turn(self) -> None:
        """A tool has returned something: what comes is another message of the assistant's."""
        self._carrier = ""

    def _say(self, texts: Sequence[bytes], *, reasoning: bool) -> bytes:
        opening = b""
        if not self._open or self._reasoning is not reasoning:
            opening = self.close() + self._begin(reasoning=reasoning)
        texts = in_fewer_events(texts)
        between = b"}\n\n" + self._content
        said = between.join(texts)
        if not said.isascii():  # some clients end lines at U+2028, as `str.splitlines` does
            said = between.join(map(on_one_line, texts))
        return b"%b%b%b}\n\n" % (opening, self._content, said)

    def _begin(self, *, reasoning: bool) -> bytes:
        self._reasoning = reasoning
        self._open = opened = new_id("rsn" if reasoning else "msg")
        self._carrier = "" if reasoning else opened
        kind = b"REASONING_MESSAGE_CONTENT" if reasoning else b"TEXT_MESSAGE_CONTENT"
        self._content = b'data: {"type":"%b","messageId":"%b","delta":' % (kind, opened.encode())
        if not reasoning:
            return event("TEXT_MESSAGE_START", messageId=opened, role="assistant")
        span = event("REASONING_START", messageId=opened)
        return span + event("REASONING_MESSAGE_START", messageId=opened, role="reasoning")
