"""What somebody may have meant: the known word that is nearest to an unknown one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CHARACTERS = 64
"""Of a word that is compared: no known one is longer, and the time grows with the square."""


def meant(word: object, known: Iterable[object]) -> str:
    """`; did you mean …?` to add to an error, or nothing where no known word is near."""
    if not isinstance(word, str) or len(word) > MAX_CHARACTERS:
        return ""
    names = {each.lower(): each for each in known if isinstance(each, str)}
    found = get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {names[found[0]]!r}?" if found else ""
