"""Checks beyond JSON's grammar, for texts that are passed on byte by byte.

A decoder that skips a value (`msgspec.Raw`) checks its grammar, its escapes and its surrogate
pairs, but neither that it is UTF-8 nor, on every version of Python, how deeply it nests. The
functions here check both, and allocate no objects in proportion to the text. They know nothing of
messages.
"""

from __future__ import annotations

import codecs
import re
from itertools import accumulate

MAX_NESTING = 512
"""Depth of arrays and objects in one line of a worker. Python 3.11 fails at a depth of about 1,000,
the caller's stack included, and later versions at about 10,000: below both limits, every version
decides alike."""

MAX_INPUT_NESTING = 100
"""Depth of arrays and objects in a caller's request body: far enough below MAX_NESTING that an
agent may wrap its input in its output, and below the default limits of parsers in other languages
(serde_json 128, jq 1.6 256, PHP 512)."""

_PIECE_BYTES = 64 * 1024
"""Bytes that are checked for UTF-8 at once: decoding 8 MiB with one emoji as a whole takes 32
MiB."""

_WALK_BYTES = 128
"""Brackets of one block. Blocks are counted, and walked bracket by bracket only where the depth
could pass the limit."""

_new_decoder = codecs.getincrementaldecoder("utf-8")
_STRUCTURE = b'[]{}"'
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STEP = {ord("["): 1, ord("]"): -1}
_find_strings = re.compile(rb'"[^"]*"')


def is_utf8(text: bytes) -> bool:
    """Whether `text` is UTF-8, without building a string of its size."""
    if text.isascii():
        return True
    decode = _new_decoder().decode
    view = memoryview(text)
    try:
        for start in range(0, len(text), _PIECE_BYTES):
            decode(view[start : start + _PIECE_BYTES])
        decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def nests_deeper(text: bytes, limit: int) -> bool:
    """Whether arrays and objects in `text` nest deeper than `limit`.

    The answer is exact for a JSON text, with any white space, strings and escapes, and undefined
    for anything else.
    """
    # Every bracket that opens must close, so a shorter text cannot nest as deeply.
    if len(text) <= 2 * limit or not _opens_more_than(limit, text):
        return False
    brackets = _brackets(text)
    depth = 0
    for start in range(0, len(brackets), _WALK_BYTES):
        block = brackets[start : start + _WALK_BYTES]
        opened = block.count(b"[")
        if depth + opened > limit:
            steps = map(_STEP.__getitem__, block)
            if max(accumulate(steps, initial=depth)) > limit:
                return True
        depth += 2 * opened - len(block)
    return False


def _opens_more_than(limit: int, text: bytes) -> bool:
    """Whether more than `limit` brackets open in the text, those in strings included."""
    # Searching for the next one is thirty times as fast as counting them all, and ends early.
    for bracket in (b"[", b"{"):
        found = text.find(bracket)
        while found >= 0:
            limit -= 1
            if limit < 0:
                return True
            found = text.find(bracket, found + 1)
    return False


def _brackets(text: bytes) -> bytes:
    """The brackets of a JSON text outside its strings, braces written as square brackets."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept = text.translate(_ONE_KIND, _NO_STRUCTURE)
    # Two adjacent quotes are either a string without brackets, or the end of one string and the
    # start of the next: without them, the remaining quotes still pair up as before.
    kept = kept.replace(b'""', b"")
    if b'"' in kept:
        kept = _find_strings.sub(b"", kept).replace(b'"', b"")
    return kept
