"""JSON texts that are carried as they are, and as much of them as either side looks at."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from .messages import JSON, ROLES, Payload

MAX_EXCERPT = 80
"""Bytes of what is wrong that are shown: enough to recognise it in a log, too few to fill one."""

_LARGE_BYTES = 64 * 1024
"""A payload above this is not copied. A view keeps all that it was decoded from."""

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
"""The bytes of a Raw, as they are: a third of what `bytes(raw)` costs."""


def as_payload(raw: Raw) -> Payload:
    """What a Raw holds that was decoded from one line."""
    view = memoryview(raw)
    return view if len(view) > _LARGE_BYTES else bytes(view)


def check_chat_message(text: Payload) -> str | None:
    """What is wrong with the message of a chat, or None. Looks at its role and content only."""
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
    """What a JSON text is, in words: "an object", "null", …"""
    return _KINDS.get(chr(text[0]), "a number")
