"""Puts JSON texts into a response that was made with placeholders for them.

A placeholder is a JSON object that holds a token of this response's own, which nobody can guess, as
the name of a member or as a string; it holds no braces in strings. The object is replaced as a
whole.
"""

from __future__ import annotations

import secrets


class Splices:
    """The replacements of one response."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}

    def add(self, text: bytes) -> str:
        """A token, whose object is to become `text`: JSON on one line, with nothing around it."""
        token = secrets.token_hex(16)
        self._texts[token.encode()] = text
        return token

    def apply(self, data: bytes) -> bytes:
        """Replace what stands in `data`, which holds each object whole."""
        for token in [each for each in self._texts if each in data]:
            start, end = _object_around(data, data.index(token))
            data = b"%b%b%b" % (data[:start], self._texts.pop(token), data[end:])
        return data


def _object_around(data: bytes, at: int) -> tuple[int, int]:
    """Where the innermost object with the byte `at` begins and ends."""
    start, depth = at, 0
    while depth >= 0:
        start = max(data.rfind(b"{", 0, start), data.rfind(b"}", 0, start))
        depth += 1 if data[start : start + 1] == b"}" else -1
    end, depth = start + 1, 1
    while depth:
        closing, opening = data.index(b"}", end), data.find(b"{", end)
        inner = 0 <= opening < closing
        end = (opening if inner else closing) + 1
        depth += 1 if inner else -1
    return start, end
