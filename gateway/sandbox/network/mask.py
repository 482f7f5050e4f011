"""The keys of a service, removed from what comes back: no I/O.

An upstream may echo a request's headers, or quote the key in an error. So every answer passes
through here: each occurrence of a key is overwritten with as many asterisks, which leaves lengths
as they were announced.

# Theory of operation

A key may be cut by the border of two pieces of a body, so the end of a piece has to be held back
until more has come. *Which* part is held back must not depend on the key. If only what could be the
beginning of one were, an agent could have an upstream echo guesses, see which of them are late, and
learn the key one character at a time. So up to `longest - 1` bytes are held back, whatever they
are.

That would delay every token of a stream. But a key lies within a run of characters of a known
alphabet: the one of tokens (RFC 9110, 11.2) for nearly all keys, and visible characters otherwise.
So no more is held back than the run at the very end. Events of a stream end with an empty line, and
pass as they come.

A key is recognised as it is, as it would stand in a URL and in a JSON string, and in base64 at
whichever of the three offsets. An upstream that encodes it otherwise (or compresses it, which is
refused elsewhere) gives it away: a service is trusted with its key.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIN_SECRET = 8
"""Characters. Shorter ones are no keys, and would be found in every other answer."""

_TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
_VISIBLE = bytes(range(0x21, 0x7F))
_LINE = bytes(each for each in range(256) if each not in b"\r\n")


class Mask:
    """The forms in which the keys of one service may come back."""

    __slots__ = ("_forms", "_pattern", "_shortest", "alphabet", "longest")

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form for secret in secrets if len(secret) >= MIN_SECRET for form in _forms_of(secret)
        }
        # Of two that begin at the same place, the longer one counts.
        self._forms = sorted(forms, key=len, reverse=True)
        self._shortest = min(map(len, forms), default=0)
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)))
        self.longest = max(map(len, forms), default=0)
        """Bytes of the longest form; 0 when there is nothing to mask."""
        self.alphabet = next(
            each for each in (_TOKEN, _VISIBLE, _LINE) if not b"".join(forms).translate(None, each)
        )
        """The bytes that forms may be made of. No form extends over any other byte."""

    def __repr__(self) -> str:
        return f"<Mask of {len(self._forms)} forms>"

    def hide(self, text: bytes) -> bytes:
        """A text that is whole, without the keys."""
        return self.hide_until(text, len(text))[0]

    def is_in_name(self, name: bytes) -> bool:
        """Whether a key stands in the name of a field, which is in small letters."""
        return any(form.lower() in name for form in self._forms)

    def hide_until(self, text: bytes, end: int) -> tuple[bytes, bytes]:
        """The text up to `end` without the keys that begin there, and what is left behind them."""
        if len(text) < self._shortest or not any(form in text for form in self._forms):
            return text[:end], text[end:]
        hidden = bytearray(text)
        for found in self._pattern.finditer(text):
            if found.start() < end:
                hidden[found.start() : found.end()] = b"*" * (found.end() - found.start())
                end = max(end, found.end())
        return bytes(hidden[:end]), text[end:]

    def body(self) -> MaskedBody:
        """A mask for one body, which comes in pieces."""
        return MaskedBody(self)


class MaskedBody:
    """One body that comes in pieces."""

    __slots__ = ("_held", "_mask")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on, now that `data` has come."""
        if not self._mask.longest:
            return data
        data = self._held + data
        passed, self._held = self._mask.hide_until(data, len(data) - self._tail(data))
        return passed

    def end(self) -> bytes:
        """What is left when the body has ended."""
        passed, self._held = self._mask.hide(self._held), b""
        return passed

    def _tail(self, data: bytes) -> int:
        """How many bytes at the end may belong to a key that has not come wholly."""
        tail = data[-(self._mask.longest - 1) :]
        return len(tail) - len(tail.rstrip(self._mask.alphabet))


def _forms_of(secret: str) -> Iterator[bytes]:
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    in_json = json.dumps(secret)[1:-1]
    yield in_json.encode()
    yield in_json.replace("/", "\\/").encode()
    for offset in range(3):
        # Without the characters that depend on what stands before and behind.
        whole = base64.b64encode(bytes(offset) + raw)
        inner = whole[(0, 2, 3)[offset] : (len(raw) + offset) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
