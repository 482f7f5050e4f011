"""Server-Sent Events, and how an answer of either kind becomes what the caller asked for.

Chunks are JSON strings as the worker wrote them: they hold no newline, so each is one `data:` line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocol import Method, Payload

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

KEEP_ALIVE_SECONDS = 15.0
"""Of silence before a comment is sent: below the idle timeouts of common proxies (30 to 60 s)."""

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the stream otherwise
)


class _ChatMessage(Struct, gc=False):
    content: Raw = Raw(b"null")
    tool_calls: Raw | UnsetType = UNSET


_decode_message = msgspec.json.Decoder(_ChatMessage).decode


def encode_chunks(chunks: Sequence[bytes]) -> bytes:
    """One event for each chunk, all in one piece to be written at once."""
    if not chunks:
        return b""
    return b'data: {"chunk":%b}\n\n' % b'}\n\ndata: {"chunk":'.join(chunks)


def encode_error(body: bytes) -> bytes:
    """The last event of a stream that failed; no `[DONE]` follows."""
    return b"event: error\ndata: " + body + b"\n\n"


def as_chunk(method: Method, result: Payload) -> bytes:
    """One result as the one chunk of a stream: a string as it is, anything else as JSON text.

    A chat's message counts as its content, unless it holds more than that (tool calls).
    """
    if method == "chat":
        message = _decode_message(result)
        content = bytes(message.content)
        if content[:1] == b'"' and message.tool_calls is UNSET:
            return content
    else:
        content = bytes(result)
        if content[:1] == b'"':
            return content
    return msgspec.json.encode(str(result, "utf-8"))


def as_body(method: Method, result: Payload | None, chunks: Iterable[bytes]) -> bytes:
    """The answer to a caller that wants one JSON: the result, or the chunks in one string."""
    if result is None:
        # Each chunk is a whole JSON string, so the insides can be joined as they are: an escaped
        # surrogate pair is never split, because half of one is not accepted.
        joined = b'"%b"' % b"".join([chunk[1:-1] for chunk in chunks])
        result = joined if method == "invoke" else b'{"role":"assistant","content":%b}' % joined
    key = b'{"output":' if method == "invoke" else b'{"message":'
    return b"".join((key, result, b"}"))
