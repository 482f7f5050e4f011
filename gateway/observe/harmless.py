"""Text of workers, agents and clients, made harmless for a log, whatever the log's format is.

Nothing in it ends a line, moves a terminal's cursor or changes the direction of text, and none of
it is longer than it may be.
"""

from __future__ import annotations

import json
import re
import unicodedata

MAX_TEXT = 8192
"""Longest message or field, in characters: the last lines of a worker's stderr fit."""

MAX_TRACEBACK = 32 * 1024
"""Longest traceback, in characters: a hundred frames fit."""

_PLAIN = re.compile(r"[\w./:@+-]+\Z")

_BREAKS = {"Zl", "Zp"}
"""Unicode categories of line separators. All other characters that must not be written are in the
categories C*: control characters, bidirectional formatting, lone surrogates."""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """The text, or its beginning and end if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters cut) … {text[-half:]}"


def printable(text: str) -> str:
    """The text with every character escaped that does more than print; the tab stays."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if _acts(char) and char != "\t" else char
        for char in text
    )


def quoted(text: str) -> str:
    """The text if it is one plain word, or else a JSON string."""
    return text if _PLAIN.match(text) else escaped(json.dumps(text, ensure_ascii=False))


def escaped(text: str) -> str:
    """A JSON text with every character escaped, as JSON does, that does more than print.

    Such characters stand in its strings alone: a JSON text has none between its tokens.
    """
    if text.isprintable():
        return text
    return "".join(json.dumps(char)[1:-1] if _acts(char) else char for char in text)


def escaped_lines(lines: bytes) -> bytes:
    """As `escaped`, of JSON texts in UTF-8, each of which is a line."""
    # In ASCII, one character that acts is no control character of JSON.
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return "\n".join(escaped(line) for line in lines.decode().split("\n")).encode()


def _acts(char: str) -> bool:
    """Whether a character does more than print."""
    if char.isprintable():
        return False
    category = unicodedata.category(char)
    return category[0] == "C" or category in _BREAKS
