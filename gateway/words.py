"""The words of an answer: its chunks, and what the agent says beside them.

A *word* is one JSON text on one line: a string is a chunk of the answer's text, an object is an
event (`protocol.events`). An answer's words are kept in one list, in the order in which they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_QUOTE = 0x22


def text_runs(words: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], bytes | None]]:
    """The words in order: `(chunks, None)` for consecutive chunks, at least one, and
    `((), event)` for each event."""
    # Long streams of text are common, and a comparison costs a fourth of a turn of the loop: an
    # object's brace is greater than a quote, so it would be the first byte of the greatest word.
    if words and max(words)[0] == _QUOTE:
        yield words, None
        return
    start = 0
    for at, word in enumerate(words):
        if word[0] != _QUOTE:
            if start < at:
                yield words[start:at], None
            yield (), word
            start = at + 1
    if start < len(words):
        yield words[start:], None


def join_chunks(texts: Sequence[bytes]) -> bytes:
    """Chunks as one JSON string.

    The insides of whole JSON strings can be joined as they are: none of them ends within an escape,
    and a surrogate pair is never split, because half of one is not accepted.
    """
    return b'"%b"' % b"".join([text[1:-1] for text in texts])
