"""The fallback both ways between the two forms of an answer: one result, or chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol import Method, Payload


class _ChatMessage(Struct, gc=False):
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")


_decode_message = msgspec.json.Decoder(_ChatMessage).decode


def as_chunk(method: Method, result: Payload) -> bytes:
    """One result as the one chunk of a stream: a string as it is, anything else as JSON text.

    A chat's message counts as its content, unless it holds more than that (tool calls).
    """
    if method == "chat":
        message = _decode_message(result)
        content = bytes(message.content)
        if content[:1] == b'"' and bytes(message.tool_calls) == b"null":
            return content
    else:
        content = bytes(result)
        if content[:1] == b'"':
            return content
    return msgspec.json.encode(str(result, "utf-8"))


def as_body(method: Method, result: Payload | None, chunks: Iterable[bytes]) -> bytes:
    """The body of one JSON answer: the result, or the chunks joined to one string."""
    if result is None:
        # Each chunk is a whole JSON string, so the insides can be joined as they are: an escaped
        # surrogate pair is never split, because half of one is not accepted.
        joined = b'"%b"' % b"".join([chunk[1:-1] for chunk in chunks])
        result = joined if method == "invoke" else b'{"role":"assistant","content":%b}' % joined
    key = b'{"output":' if method == "invoke" else b'{"message":'
    return b"".join((key, result, b"}"))
