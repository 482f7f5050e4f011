"""JSON texts that pass through unchanged, and the few parts of them that either side reads."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from .framing import is_one_line, on_one_line
from .messages import JSON, ROLES, Payload

MAX_EXCERPT = 80
"""Bytes of an invalid text that a message quotes: enough to recognise it, too few to flood a
log."""

MAX_REASON = 300
"""Characters of a decoder's reason that are kept: the reason may quote a key of the peer's."""

_LARGE_BYTES = 64 * 1024
"""A larger payload is not copied, but kept as a view, which keeps its whole line in memory."""

_KINDS = {
    "{": "an object",
    "[": "an array",
    '"': "a string",
    "t": "true",
    "f": "false",
    "n": "null",
}


class _ChatMessage(Struct, gc=False):
    role: str
    content: Raw


_decode_chat_message = msgspec.json.Decoder(_ChatMessage).decode

as_bytes = msgspec.json.Encoder().encode
"""The bytes of a Raw, unchanged, in a third of the time of `bytes(raw)`."""


def as_payload(raw: Raw) -> Payload:
    """The payload that a Raw holds."""
    view = memoryview(raw)
    return view if len(view) > _LARGE_BYTES else bytes(view)


def as_one_line(raw: Raw, *, source: bytes) -> Payload:
    """The payload that a Raw holds, on one line; `source` is the text that it was decoded from.

    A large payload that is on one line already is not copied.
    """
    return as_payload(raw) if is_one_line(source) else on_one_line(bytes(raw))


def check_chat_message(text: Payload) -> str | None:
    """What is wrong with a chat message, or None. Only `role` and `content` are checked."""
    try:
        message = _decode_chat_message(text)
    except msgspec.MsgspecError as error:
        return str(error)
    if message.role not in ROLES:
        return f"the role is {message.role[:MAX_EXCERPT]!r}, expected one of {', '.join(ROLES)}"
    content = as_bytes(message.content)
    if content[:1] not in b'"[{n':
        return f"the content is {kind(content)}, expected a string, a list, an object or null"
    return None


def kind(text: JSON) -> str:
    """The type of a JSON text, in words: "an object", "null", …"""
    return _KINDS.get(chr(text[0]), "a number")
