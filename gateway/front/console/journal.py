"""When the words of a request came, for whoever opens it in the console.

Kept only of requests that are admitted while a console is open: such a request's exchange is a
`Noted`, and any other is an ordinary one, which knows nothing of all this.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import Any

import msgspec
from msgspec import Struct

from gateway.exchange import Exchange
from protocol.events import EVENT_TYPES

FIRST, LAST = 100, 100
"""Entries that are kept of one request: how it began, and what came last."""

MOST_TEXT = 256
"""Bytes of each entry's text, where payloads are shown."""

ENTRY_COST = 150
"""Bytes of an entry beside its text."""

_QUOTE = b'"'[0]


class Entry(Struct, frozen=True):
    """Words of one kind that came at the same moment, or another event of the request. `at` is
    running time."""

    at: float
    kind: str
    count: int = 0
    size: int = 0
    text: str | None = None

    def show(self, began: float) -> dict[str, Any]:
        return {
            "t": round(max(0.0, self.at - began), 6),
            "kind": self.kind,
            "count": self.count,
            "size": self.size,
            "text": self.text,
        }


class Journal:
    """The entries of one request."""

    __slots__ = ("_last", "_total", "first", "with_text")

    def __init__(self, *, with_text: bool) -> None:
        self.with_text = with_text
        self.first: list[Entry] = []
        self._last: deque[Entry] = deque(maxlen=LAST)
        self._total = 0

    def __repr__(self) -> str:
        return f"<Journal of {self._total} entries>"

    @property
    def entries(self) -> list[Entry]:
        return [*self.first, *self._last]

    @property
    def left_out(self) -> int:
        """How many are not kept, of those in the middle."""
        return self._total - len(self.first) - len(self._last)

    @property
    def cost(self) -> int:
        """In bytes."""
        text = sum(len(each.text or "") for each in self.entries) if self.with_text else 0
        return ENTRY_COST * (len(self.first) + len(self._last)) + 4 * text

    def add(self, entry: Entry) -> None:
        self._total += 1
        if len(self.first) < FIRST:
            self.first.append(entry)
        else:
            self._last.append(entry)

    def note(self, words: list[bytes], at: float) -> None:
        """Words have come, in this order."""
        for kind, group in groupby(words, _kind):
            same = list(group)
            text = _beginning(same) if self.with_text else None
            self.add(Entry(at, kind, len(same), sum(map(len, same)), text))


class Noted(Exchange):
    """An exchange whose words are noted."""

    __slots__ = ("journal",)

    journal: Journal

    with_text = False
    """Whether the beginnings of the words are noted, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.journal = Journal(with_text=self.with_text)

    def add_words(self, words: list[bytes], now: float) -> None:
        if not self.ended:
            self.journal.note(words, now)
        super().add_words(words, now)


class NotedWithText(Noted):
    """The same where payloads are shown."""

    __slots__ = ()

    with_text = True


class _Type(Struct):
    type: str = ""


_decode_type = msgspec.json.Decoder(_Type).decode


def _kind(word: bytes) -> str:
    if word[0] == _QUOTE:
        return "chunk"
    kind = _decode_type(word).type
    return kind if kind in EVENT_TYPES else "event"


def _beginning(words: list[bytes]) -> str:
    text = b"".join(word[1:-1] if word[0] == _QUOTE else word for word in words)
    return text[:MOST_TEXT].decode("utf-8", "ignore")
