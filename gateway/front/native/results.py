"""The fallback both ways between the two forms of an answer: one result, or chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gateway.words import join_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def as_body(method: Method, result: Payload | None, chunks: Sequence[bytes]) -> bytes:
    """The body of one JSON answer: the result, or the chunks joined to one string."""
    if result is None:
        joined = join_chunks(chunks)
        result = joined if method == "invoke" else b'{"role":"assistant","content":%b}' % joined
    key = b'{"output":' if method == "invoke" else b'{"message":'
    return b"".join((key, result, b"}"))
