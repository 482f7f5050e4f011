"""What an agent says in an answer: its text and its reasoning, as parts that are streamed.

At most one part is open. Text opens a text part, reasoning one of reasoning, and each ends the
other; so does what has a place among them (a tool's call, a file), so that the message keeps the
order in which things were said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway.front.chats.message import EMPTY
from gateway.front.chats.parts import in_fewer_events
from gateway.front.ui.forms import part
from protocol import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


class Spoken:
    """See the module's docstring. Every method returns parts, as they are sent."""

    __slots__ = ("_before", "_count", "_open")

    def __init__(self) -> None:
        self._open: Literal["", "text", "reasoning"] = ""
        self._count = 0
        """Of the parts so far; each has its number as its id."""
        self._before = b""
        """What a piece of the open part begins with."""

    def text(self, texts: Sequence[bytes]) -> bytes:
        """Pieces of text, JSON strings."""
        if EMPTY in texts:
            texts = [text for text in texts if text != EMPTY]
        return self._say("text", texts) if texts else b""

    def reasoning(self, text: bytes) -> bytes:
        """A piece of reasoning, a JSON string."""
        return self._say("reasoning", [text]) if text != EMPTY else b""

    def close(self) -> bytes:
        """The end of the open part, if there is one."""
        opened, self._open = self._open, ""
        return part(f"{opened}-end", id=str(self._count)) if opened else b""

    def _say(self, kind: Literal["text", "reasoning"], texts: Sequence[bytes]) -> bytes:
        opening = b""
        if self._open != kind:
            opening = self.close()
            self._open = kind
            self._count += 1
            opening += part(f"{kind}-start", id=str(self._count))
            self._before = b'data: {"type":"%b-delta","id":"%d","delta":' % (
                kind.encode(),
                self._count,
            )
        texts = in_fewer_events(texts)
        between = b"}\n\n" + self._before
        said = between.join(texts)
        if not said.isascii():  # some clients end lines at U+2028
            said = between.join(map(on_one_line, texts))
        return b"%b%b%b}\n\n" % (opening, self._before, said)
